"""The columns of `benchmarks.ppo` as processes that take turns: an update of one, then one of the next.

On a shared machine the same work takes a quarter more or less time from one minute to the next. In turns whatever
slows one column slows all of them.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.ppo_child import UPDATE_OVER, Job
from tasks.training.launch_command import ALLOCATOR, child_environment
from tasks.training.launch_config import LaunchConfig

ROOT = Path(__file__).resolve().parent.parent
TRL_PYTHON = ROOT / ".solon" / "tools" / "trl-ppo" / "bin" / "python"
COLUMNS = {
    # column: interpreter, module
    "trl": (TRL_PYTHON, "benchmarks.trl_ppo"),
    "trl-tuned": (TRL_PYTHON, "benchmarks.trl_ppo"),
    "trl-without-collect": (TRL_PYTHON, "benchmarks.trl_ppo"),
    "solon": (Path(sys.executable), "benchmarks.solon_ppo"),
    "floor": (Path(sys.executable), "benchmarks.ppo_floor"),
}


class Ran(NamedTuple):
    """What came of a column's process."""

    figures: dict[str, Any]
    """As `Meter.figures` has them."""
    seconds: float
    """Of its turns, from start to end."""


def take_turns(jobs: Sequence[Job], threads: int) -> dict[str, Ran]:
    """Run a process a job, one at a time, each for an update; what came of them by column.

    Every other round goes backwards, so that no column always follows the same one.
    Raises: SystemExit: a process failed.
    """
    with tempfile.TemporaryDirectory(prefix="solon-bench-") as scratch:
        children = [Child(job, Path(scratch), threads) for job in jobs]
        running = children
        try:
            while running:
                running = [child for child in running if child.turn()][::-1]
        finally:
            for child in children:
                child.kill()
        return {child.column: child.result() for child in children}


class Child:
    """A column's process, which stops after each update until it is told to go on."""

    def __init__(self, job: Job, scratch: Path, threads: int) -> None:
        self.column, self._scratch, self._threads = job.column, scratch, threads
        self._seconds, self._last_line = 0.0, ""
        self._job = scratch / f"{job.column}.json"
        self._job.write_text(json.dumps(job._asdict()), encoding="utf-8")
        self._process: subprocess.Popen[str] | None = None

    def turn(self) -> bool:
        """Let it run until its next update is over, the first time from its start; False once it has ended."""
        started = time.monotonic()
        if self._process is None:
            self._process = self._start()
        else:
            print(file=self._process.stdin, flush=True)
        goes_on = self._read()
        self._seconds += time.monotonic() - started
        return goes_on

    def result(self) -> Ran:
        return Ran(json.loads(self._last_line), self._seconds)

    def kill(self) -> None:
        """End it, if it has not ended by itself."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

    def _start(self) -> subprocess.Popen[str]:
        python, module = COLUMNS[self.column]
        environment = child_environment(LaunchConfig(threads=self._threads))
        if python == TRL_PYTHON:  # how the allocator is set is how Solon starts trainings, not how TRL comes
            environment = {name: value for name, value in environment.items() if name not in ALLOCATOR}
        with self._errors().open("w") as errors:
            return subprocess.Popen(
                [str(python), "-m", module, str(self._job)],
                env=environment,
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def _read(self) -> bool:
        """Whether an update came to its end; if not, the process has."""
        assert self._process is not None and self._process.stdout is not None
        for line in self._process.stdout:
            if line == UPDATE_OVER:
                return True
            self._last_line = line
        if code := self._process.wait():
            errors = self._errors().read_text(encoding="utf-8", errors="replace")
            raise SystemExit(f"{COLUMNS[self.column][1]} ({self.column}) failed with exit code {code}\n{errors}")
        return False

    def _errors(self) -> Path:
        return self._scratch / f"{self.column}.log"
