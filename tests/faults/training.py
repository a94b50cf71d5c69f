"""Trainings that are killed and go on: `python -m tests.faults.training --kind ppo --points 20 --seed 0`.

The process of a tiny training is ended by `kill -9` at random points, again and again, until the training ends. What
it leaves must be what the uninterrupted one left, to the bit: the model, the last resume point (weights, optimizer,
progress) and the history but for what is measured in seconds. Every start must go on at the newest resume point and
make at least a step. Prints a line a point and a verdict; exit code 1 where something differed.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

from tasks.training.job import TrainingJob
from tasks.training.launch import TrainingDied, launch
from tasks.training.launch_config import LaunchConfig
from tests.faults.training_cases import KINDS, Case, Kind, make_case, placed

KILLS_A_TRAINING = 4
MOST_FILES = 8
"""More than a resume point has, so that some kills come when only its name is missing."""
STEPS_AN_UPDATE = 4
"""Optimizer steps of a PPO update here."""

How = Literal["after a line", "after a while", "before a step", "in a resume point"]


@dataclass(frozen=True)
class Point:
    """Where a start of a training is killed; counted from that start."""

    how: How
    lines: int = 0
    """Lines that it has logged; 0: at any."""
    seconds: float = 0.0
    """And how long after that."""
    step: int = 0
    """Of the optimizer: killed before this one."""
    file: int = 0
    """Of a resume point: killed when this one is opened, or before the whole gets its name."""

    def __str__(self) -> str:
        if self.how == "before a step":
            return f"before optimizer step {self.step}"
        if self.how == "in a resume point":
            return f"while a resume point is written, at file {self.file}"
        return f"after line {self.lines}" + (f" and {self.seconds:.3f} s" if self.seconds else "")


@dataclass
class Start:
    """How one start of a training went."""

    resumed_at: int
    """Step of the newest resume point that it found."""
    lines: list[dict[str, Any]] = field(default_factory=list)
    result: dict[str, Any] | None = None
    """None: it was killed."""
    in_resume_point: bool = False
    """The kill left one half written."""


def run(job: TrainingJob, point: Point | None) -> Start:
    """Start the training, and kill it at the point; it may end before that."""
    assert job.checkpoint is not None
    points, pid_file = job.checkpoint, job.checkpoint.parent / "pid"
    pid_file.unlink(missing_ok=True)
    start = Start(resumed_at=newest_step(points))
    doomed = [str(point.step), str(point.file)] if point else ["0", "0"]
    argv = [sys.executable, "-m", "tests.faults.trainer_child", str(pid_file), *doomed]

    def on_log(line: dict[str, Any]) -> None:
        start.lines.append(line)
        if point and len(start.lines) == point.lines:
            threading.Timer(point.seconds, kill, [pid_file]).start()

    with patch("tasks.training.launch.command", lambda path, config, node: [*argv, str(path)]):
        try:
            start.result = launch(job, LaunchConfig(tracker="none"), on_log, log_path=points.parent / "log")
        except TrainingDied as error:
            if "SIGKILL" not in str(error):
                raise
    start.in_resume_point = any(points.glob(".partial-*"))
    return start


def kill(pid_file: Path) -> None:
    with suppress(ProcessLookupError):  # the training may have ended before its point came
        os.kill(int(pid_file.read_text()), signal.SIGKILL)


def newest_step(points: Path) -> int:
    """Of the newest resume point; 0 where there is none."""
    return max((int(path.name.removeprefix("step-")) for path in points.glob("step-*")), default=0)


def choose(case: Case, how: How, room: int, randomness: random.Random) -> Point:
    """A point of this sort within the next `room` steps of its log."""
    lines = randomness.randint(1, max(1, room))
    if how == "in a resume point":
        return Point(how, file=randomness.randint(1, MOST_FILES))
    if how == "before a step":
        an_update = STEPS_AN_UPDATE if case.job.kind == "ppo" else 1
        return Point(how, step=1 + an_update * (lines - 1))  # of PPO: between an update's rollout and its first step
    return Point(how, lines, randomness.uniform(0, 2 * case.line_seconds) if how == "after a while" else 0.0)


def differences(case: Case, left: Path, starts: list[Start]) -> Iterator[str]:
    """What is not as it is without kills."""
    yield from different_files(case.reference / "model", left / "model")
    newest = max(path.name for path in (case.reference / "checkpoints").glob("step-*"))
    yield from different_files(case.reference / "checkpoints" / newest, left / "checkpoints" / newest)
    if case.job.kind == "ppo":
        yield from different_files(case.reference, left, ["rollouts.jsonl"])
    assert starts[-1].result is not None
    if timeless(starts[-1].result) != timeless(case.result):
        yield "the result or its history differs"
    expected = {line["step"]: timeless(line) for line in case.lines}
    for number, start in enumerate(starts):
        steps = [line["step"] for line in start.lines if line["step"] > 0]
        if steps != list(range(start.resumed_at + 1, start.resumed_at + 1 + len(steps))):
            yield f"start {number} resumed at {start.resumed_at} and made the steps {steps}"
        if not steps and start.result is not None and start.resumed_at < case.num_steps:
            yield f"start {number} ended without a step"
        yield from (
            f"start {number}, step {line['step']}: its line differs"
            for line in start.lines
            if timeless(line) != expected[line["step"]]
        )


def different_files(expected: Path, found: Path, names: list[str] | None = None) -> Iterator[str]:
    names = names or sorted({path.name for folder in (expected, found) for path in folder.iterdir()})
    for name in names:
        if not ((expected / name).exists() and (found / name).exists()):
            yield f"{name} is there only once"
        elif content(expected / name) != content(found / name):
            yield f"{found.name}/{name} differs"


def content(path: Path) -> Any:
    """Bytes; of JSON the values without times."""
    return timeless(json.loads(path.read_text())) if path.suffix == ".json" else path.read_bytes()


def timeless(value: Any) -> Any:
    """The value without what is measured in seconds."""
    if isinstance(value, dict):
        return {key: timeless(item) for key, item in value.items() if not str(key).endswith("_seconds")}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def kill_and_resume(
    case: Case, folder: Path, sorts: Sequence[How], randomness: random.Random, tell: Callable[[str], None]
) -> tuple[int, list[str]]:
    """Kill one training at a point of each sort in turn, let it end, compare: points that were hit, differences."""
    job, starts, hit = placed(case.job, folder), list[Start](), 0
    for number, how in enumerate(sorts):
        newest = newest_step(folder / "checkpoints")
        room = (case.num_steps - newest) // (len(sorts) - number)  # some is left for the kills that follow
        point = choose(case, how, room, randomness)
        starts.append(run(job, point))
        if starts[-1].result is not None:
            tell(f"{point}: the training had ended")
            break
        hit += 1
        if how == "in a resume point" and not starts[-1].in_resume_point:
            return hit, [f"{point}: the kill left no resume point half written"]
        tell(f"{point}: killed after step {newest + len([x for x in starts[-1].lines if x['step'] > 0])}")
    else:
        starts.append(run(job, None))
    return hit, list(differences(case, folder, starts))


SORTS: tuple[How, ...] = ("before a step", "in a resume point", "after a while", "after a line")


def check(kind: Kind, points: int, seed: int, folder: Path, tell: Callable[[str], None]) -> list[str]:
    """Kill trainings of this kind at so many points in all. Returns what differed."""
    case, randomness = make_case(kind, folder / kind), random.Random(f"{seed}/{kind}")
    done, rounds, found = 0, 0, list[str]()
    while done < points:
        sorts = [SORTS[(done + i) % len(SORTS)] for i in range(min(KILLS_A_TRAINING, points - done))]
        randomness.shuffle(sorts)
        left = folder / kind / f"round-{rounds}"
        hit, differing = kill_and_resume(case, left, sorts, randomness, lambda text: tell(f"{kind:<7} {text}"))
        found += [f"round {rounds}: {text}" for text in differing]
        done, rounds = done + hit, rounds + 1
    verdict = "differs from" if found else "is bit-identical to"
    tell(f"{kind:<7} killed at {done} points in {rounds} trainings: the result {verdict} the uninterrupted one")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.training", description=__doc__)
    parser.add_argument("--kind", choices=[*KINDS, "all"], default="all")
    parser.add_argument("--points", type=int, default=20, help="kills of each kind of training")
    parser.add_argument("--seed", type=int, default=0, help="which points")
    options = parser.parse_args()
    found: list[str] = []
    with tempfile.TemporaryDirectory(prefix="solon-training-faults-") as folder:
        for kind in KINDS if options.kind == "all" else (options.kind,):
            found += check(
                kind, options.points, options.seed, Path(folder), lambda text: print(text, file=sys.stdout, flush=True)
            )
    for text in found:
        print(text)
    print(f"verdict: {len(found)} differences")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
