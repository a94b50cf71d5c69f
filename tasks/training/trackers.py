"""Curves of a training for people: TensorBoard's files, wandb or trackio.

A training that goes on from a resume point logs again the steps after it, to the same figures. No curve shows them
twice: TensorBoard is told to forget them, the others are not told again.
"""

import math
import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from tasks.training.launch_config import LaunchConfig

PROJECT = "solon"


class Curves(Protocol):
    """Where figures go."""

    def add(self, line: dict[str, Any]) -> None:
        """Take one log line: its numbers, at its `step`."""

    def close(self) -> None:
        """Everything is written."""


def open_curves(config: LaunchConfig, run: str, settings: dict[str, Any]) -> Curves:
    """The curves of a run; `settings` of its trainer stand beside them, nothing else of the environment does."""
    folder = Path(config.tracker_folder)
    match config.tracker:
        case "none":
            return NoCurves()
        case "tensorboard":
            return Dispensable(TensorBoardCurves(folder / run))
        case "wandb":
            return Dispensable(_open_wandb(folder, run, settings))
        case "trackio":
            return Dispensable(_open_trackio(folder, run, settings))


def numbers(line: dict[str, Any]) -> dict[str, float]:
    """The figures of a log line that can be drawn."""
    others = ("step", "num_steps")
    found = {name: value for name, value in line.items() if name not in others and isinstance(value, int | float)}
    return {name: float(value) for name, value in found.items() if not isinstance(value, bool) and math.isfinite(value)}


class NoCurves:
    """No tracker."""

    def add(self, line: dict[str, Any]) -> None:
        return None

    def close(self) -> None:
        return None


class Dispensable:
    """Curves that a training can do without: one that fails is named once in its log, and left.

    wandb's own process, for one, ends when the training is asked to leave, before its resume point is written.
    """

    def __init__(self, curves: Curves) -> None:
        self._curves = curves

    def add(self, line: dict[str, Any]) -> None:
        self._attempt(lambda: self._curves.add(line))

    def close(self) -> None:
        self._attempt(self._curves.close)

    def _attempt(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:  # the border: whatever a tracker does, the training and its resume points go on
            print(f"tracker: {type(error).__name__}: {error}; no more curves from here on", file=sys.stderr, flush=True)
            self._curves = NoCurves()


class TensorBoardCurves:
    """TensorBoard's files in a folder of the run's own; several starts of one training are one curve."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: Any = None

    def add(self, line: dict[str, Any]) -> None:
        step = line["step"]
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            # an earlier start may have come further than the resume point that this one goes on from
            self._writer = SummaryWriter(str(self._folder), purge_step=step)
        for name, value in numbers(line).items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class RunCurves:
    """A run of wandb or trackio: both take figures by `log` and end by `finish`.

    What was told last stands in a file beside it, since neither forgets: a line that a resumed training repeats is
    the same one.
    """

    def __init__(self, run: Any, told: Path) -> None:
        self._run, self._told = run, told
        told.parent.mkdir(parents=True, exist_ok=True)
        self._last = int(told.read_text()) if told.exists() else -1

    def add(self, line: dict[str, Any]) -> None:
        if line["step"] <= self._last:
            return
        self._last = line["step"]
        self._run.log(numbers(line), step=self._last)
        self._told.write_text(str(self._last))

    def close(self) -> None:
        self._run.finish()


def _open_wandb(folder: Path, run: str, settings: dict[str, Any]) -> RunCurves:
    wandb = import_module("wandb")  # by name: it is an extra, type checkers need not find it
    quiet = wandb.Settings(console="off", disable_code=True, disable_git=True, x_disable_stats=True)
    folder.mkdir(parents=True, exist_ok=True)
    opened = wandb.init(
        project=PROJECT,
        name=run,
        id=run.replace("/", "-"),
        resume="allow",
        dir=str(folder),
        config=settings,
        settings=quiet,
    )
    return RunCurves(opened, folder / run / "wandb.step")


def _open_trackio(folder: Path, run: str, settings: dict[str, Any]) -> RunCurves:
    os.environ.setdefault("TRACKIO_DIR", str(folder / "trackio"))  # read once, when it is imported
    trackio = import_module("trackio")
    opened = trackio.init(project=PROJECT, name=run, config=settings, resume="allow", embed=False, auto_log_gpu=False)
    return RunCurves(opened, folder / run / "trackio.step")
