"""What a training process tells whoever started it: JSON lines at the end of a file.

A file and not a pipe, because it reaches a training process through any launcher (torchrun, `accelerate launch`),
and because a process whose starter was killed can still write to it while it leaves.

    {"log": {...}}             figures of one step
    {"checkpoint": "<folder>"} a resume point that is whole
    {"policy": "<folder>", "update": n}   a policy that is kept along the way
    {"result": {...}}          what the trainer returned
    {"left": {"step": n}}      it was asked to leave, and has written its resume point; null: another node knows
    {"error": {...}}           see `deaths.describe`
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Event = dict[str, Any]


class EventWriter:
    """Appends events. Several processes may append to one file: a line is one write."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)

    def send(self, event: Event) -> None:
        line = json.dumps(event, default=float) + "\n"  # default: a Trainer logs numpy and torch scalars
        self._file.write(line.encode())


class EventTail:
    """Reads events while they are written. A last line that is not whole is left for later, or for nobody."""

    def __init__(self, path: Path) -> None:
        path.touch()
        self._path, self._offset = path, 0

    def read(self) -> Iterator[Event]:
        """The events since the last call."""
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._offset += len(line)
                yield json.loads(line)
