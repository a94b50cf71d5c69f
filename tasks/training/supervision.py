"""What stands over a trainer: takes its figures, keeps its resume points, and may ask it to leave."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Log = Callable[[dict[str, Any]], None]
"""Takes one line of figures; `step` and `num_steps` are always among them."""


class Leaving(Exception):
    """The trainer was asked to leave and has written its resume point: a rerun goes on from there."""


@dataclass(frozen=True)
class Supervision:
    """How a trainer is watched. By default nobody does: nothing is logged or kept."""

    log: Log = lambda line: None
    checkpoints: Path | None = None
    """Folder of resume points; None keeps none."""
    on_checkpoint: Callable[[Path], None] = lambda folder: None
    """Called with each resume point once it is whole."""
    leaving: Callable[[], bool] = lambda: False
    """Whether the trainer should write a resume point at the next step and raise `Leaving`."""
    on_policy: Callable[[Path, int], None] = lambda folder, update: None
    """Called with the folder of each policy that is kept along the way, and the updates behind it."""


UNWATCHED = Supervision()
