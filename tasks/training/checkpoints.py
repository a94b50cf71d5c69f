"""Resume points in a local folder: each is whole or not there, and says what training it belongs to.

A resume point is a folder `step-00000010` of safetensors and JSON files, no pickle. It is written under a hidden
name, flushed and renamed, so a folder with that name is complete.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from tasks.training.config import TrainerConfig
from tasks.training.folders import write_json

KEPT = 2  # the newest, and the one before in case the newest is lost
RUN_FILE = "run.json"


def run_name(config: TrainerConfig, seed: int, *parts: object) -> str:
    """Hash of what a resume point must agree on; the parts are JSON values, such as examples and a model's config.

    How often resume points are written, and what memory a server has, changes nothing and may differ.
    """
    operational = {"checkpoint_every", "rollout_memory_share"}
    told = [type(config).__name__, config.model_dump(mode="json", exclude=operational), seed, *parts]
    return hashlib.sha256(json.dumps(told, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


class Checkpoints:
    """The resume points of one training. `run` names what is trained on what (a hash)."""

    def __init__(self, folder: Path | None, run: str, on_written: Callable[[Path], None] = lambda folder: None) -> None:
        self.folder = folder
        self.run = run
        self._on_written = on_written

    def newest(self) -> Path | None:
        """The newest complete one, or None.

        Raises: ValueError: it belongs to another training (other config, seed, model or examples).
        """
        found = self._complete()
        if not found:
            return None
        run = json.loads((found[-1] / RUN_FILE).read_text(encoding="utf-8"))["run"]
        if run != self.run:
            raise ValueError(
                f"resume point {found[-1].name} is of another config, seed, model or set of examples; "
                "give each training its own folder, or delete this one"
            )
        return found[-1]

    def newest_step(self) -> int:
        """Of the newest complete one; 0 where there is none."""
        found = self._complete()
        return int(found[-1].name.removeprefix("step-")) if found else 0

    def write(self, step: int, fill: Callable[[Path], None]) -> None:
        """Let `fill` write the files of a resume point, complete it, and drop all but the newest `KEPT`."""
        if self.folder is None:
            return
        complete = self.folder / f"step-{step:08d}"
        partial = self.folder / f".partial-{complete.name}"
        for leftover in self.folder.glob(".partial-*"):
            shutil.rmtree(leftover)
        partial.mkdir(parents=True)
        fill(partial)
        write_json(partial / RUN_FILE, {"run": self.run, "step": step})
        for path in partial.iterdir():
            _flush(path)
        if complete.exists():
            shutil.rmtree(complete)
        partial.replace(complete)
        _flush(self.folder)
        for old in self._complete()[:-KEPT]:
            shutil.rmtree(old)
        self._on_written(complete)

    def _complete(self) -> list[Path]:
        """Oldest first."""
        return sorted(self.folder.glob("step-*")) if self.folder else []


def _flush(path: Path) -> None:
    """To the disk itself, so that not even a power cut leaves a complete name over incomplete files."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
