"""Training in processes of its own, as seen by whoever starts it; `child` is the other side.

A child gives back all memory and cannot take the stage down with it. It tells what happens as events (`events`), ends
when its parent ends, however that ends (`tasks.processes`), and writes a resume point first when it is asked to leave.
"""

import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.processes import GuardedProcess, guarded
from tasks.training.deaths import MemoryKills, ending_signal, how_it_ended
from tasks.training.events import Event, EventTail
from tasks.training.job import TrainingJob
from tasks.training.launch_command import ROOT, check_launch, child_environment, command
from tasks.training.launch_config import LaunchConfig
from tasks.training.supervision import Log

POLL_SECONDS = 0.1


class TrainingRefused(ValueError):
    """The trainer cannot use what it was given, or diverges with these settings; says what and what to do."""


class TrainingDied(RuntimeError):
    """A training process failed or was killed; says how, with the end of its output."""


class TrainingLeft(RuntimeError):
    """The training was asked to leave and has written its resume point; says where a rerun goes on."""


def no_upload(folder: Path) -> None:
    """Resume points stay where they are."""


def keep_none(folder: Path, update: int) -> None:
    """Policies along the way are not kept."""


@dataclass
class Received:
    """What the events of a training came to."""

    on_log: Log
    on_checkpoint: Callable[[Path], None]
    on_policy: Callable[[Path, int], None]
    result: dict[str, Any] | None = None
    left: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    """The first one, of whichever process: others fail because it did."""

    def take(self, events: Iterable[Event]) -> None:
        for event in events:
            if "log" in event:
                self.on_log(event["log"])
            elif "checkpoint" in event:
                self.on_checkpoint(Path(event["checkpoint"]))
            elif "policy" in event:
                self.on_policy(Path(event["policy"]), event["update"])
            else:
                self.result = event.get("result", self.result)
                self.left = event.get("left", self.left)
                self.error = self.error or event.get("error")


def launch(
    job: TrainingJob,
    config: LaunchConfig,
    on_log: Log,
    on_checkpoint: Callable[[Path], None] = no_upload,
    log_path: Path | None = None,
    on_policy: Callable[[Path, int], None] = keep_none,
) -> dict[str, Any]:
    """Run the job in processes of its own and return what its trainer returns.

    `on_log` gets each log line as it comes (`step` and `num_steps` among it), `on_checkpoint` each resume point,
    `on_policy` each policy kept along the way. `log_path` keeps the processes' own output, appended. However this call
    ends, the processes end with it: they are asked to leave and have `config.grace_seconds` for a resume point.

    With `job.node` these are the processes of one machine of several: all but the first return {}.

    Raises: TrainingRefused: bad input, or a training that diverges. TrainingLeft: somebody else asked it to leave.
    TrainingDied: any other failure, or death by a signal. ValueError: a launch that cannot be.
    """
    check_launch(job.kind, config)
    with tempfile.TemporaryDirectory() as scratch:
        job_path, events = Path(scratch, "job.json"), Path(scratch, "events.jsonl")
        log_path = log_path or Path(scratch, "training.log")
        launched = config.model_copy(update={"tracker_folder": str(Path(config.tracker_folder).absolute())})
        job = job.model_copy(update={"events": events, "launched": launched})
        job_path.write_text(job.model_dump_json(), encoding="utf-8")
        tail, received, memory = EventTail(events), Received(on_log, on_checkpoint, on_policy), MemoryKills.now()
        log_start = log_path.stat().st_size if log_path.exists() else 0
        process = guarded(
            command(job_path, config, job.node),
            child_environment(config),
            log_path,
            cwd=ROOT,
            grace_seconds=config.grace_seconds,
        )
        try:
            with process:
                _follow(process, tail, received)
        finally:
            received.take(tail.read())  # what it told while it was leaving: its last resume point
        log = log_path.read_bytes()[log_start:].decode(errors="replace")
        return _outcome(job, received, process, log, MemoryKills.now().since(memory))


def _follow(process: GuardedProcess, tail: EventTail, received: Received) -> None:
    """Take events until the process has ended."""
    while process.poll() is None:
        received.take(tail.read())
        with suppress(subprocess.TimeoutExpired):
            process.wait(POLL_SECONDS)
    received.take(tail.read())


def _outcome(job: TrainingJob, received: Received, process: GuardedProcess, log: str, memory: str) -> dict[str, Any]:
    code = process.wait()
    if received.error and received.error["bad_input"]:
        raise TrainingRefused(received.error["message"])
    if received.error and ending_signal(code, log) not in (None, signal.SIGTERM):
        # a process fails when another one of its training is killed: that is the cause, this is what came of it
        raise TrainingDied(f"{job.kind}: {how_it_ended(code, log, memory)}\n{process.log_tail()}")
    if received.error:
        note = f"; {memory}" if memory else ""
        message = f"{job.kind}: {received.error['type']}: {received.error['message']}{note}"
        raise TrainingDied(f"{message}\n{process.log_tail()}")
    if received.left:
        when = when_it_left(received.left["step"])
        raise TrainingLeft(
            f"{job.kind}: the training was asked to leave and left {when}; run it again, it goes on there"
        )
    follows = job.node is not None and job.node.rank > 0
    if code != 0 or (received.result is None and not follows):
        raise TrainingDied(f"{job.kind}: {how_it_ended(code, log, memory)}\n{process.log_tail()}")
    return received.result or {}


def when_it_left(step: int | None) -> str:
    """The step as the first node knows it; None on the others."""
    if step is None:
        return "together with the first node"
    return f"after step {step}, its resume point is written" if step else "before it made a step"
