"""A training process: `python -m tasks.training.child job.json`, alone or as one of several under a launcher.

Of several only the first tells what happens; whichever fails tells why.
"""

import fcntl
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from tasks.training.deaths import describe
from tasks.training.events import Event, EventWriter
from tasks.training.job import TrainingJob, run_job
from tasks.training.supervision import Leaving, Supervision
from tasks.training.trackers import Curves, open_curves

LEFT = 75
"""Exit code of a training that left because it was asked to (EX_TEMPFAIL: try again later)."""
LOCK_FILE = ".lock"


class FirstProcess:
    """The process that logs and writes: events for whoever started it, curves for people."""

    def __init__(self, send: Callable[[Event], None], curves: Curves) -> None:
        self._send, self._curves = send, curves
        self.step = 0
        """Of the last line; 0 before any."""

    def log(self, line: dict[str, Any]) -> None:
        self.step = line["step"]
        print(line, flush=True)
        self._send({"log": line})
        self._curves.add(line)

    def on_checkpoint(self, folder: Path) -> None:
        self._send({"checkpoint": str(folder)})

    def on_policy(self, folder: Path, update: int) -> None:
        self._send({"policy": str(folder), "update": update})


def run(job: TrainingJob, send: Callable[[Event], None], leaving: Callable[[], bool], rank: int) -> None:
    """Run the job as process `rank` of its training and tell how it went.

    Raises: Leaving. Whatever the trainer raises, which is told before.
    """
    try:
        check_processes(job)
        join_others(job)
        if rank == 0:
            lead(job, send, leaving)
        else:
            run_job(job, Supervision(checkpoints=job.checkpoint, leaving=leaving))
    except Leaving:
        if rank != 0 and os.environ.get("LOCAL_RANK") == "0":  # the first of its node, which hears nothing of rank 0
            send({"left": {"step": None}})
        raise
    except Exception as error:  # the border: the parent must learn why, the log keeps the traceback
        send({"error": describe(error)})
        raise


def lead(job: TrainingJob, send: Callable[[Event], None], leaving: Callable[[], bool]) -> None:
    """Run the job as the process that logs and writes."""
    with closing(open_curves(job.launched, job.run_name, job.config)) as curves:
        first = FirstProcess(send, curves)
        try:
            with alone(job.checkpoint, leaving):
                watched = Supervision(first.log, job.checkpoint, first.on_checkpoint, leaving, first.on_policy)
                result = run_job(job, watched)
        except Leaving:
            send({"left": {"step": first.step}})
            raise
    send({"result": result})


def check_processes(job: TrainingJob) -> None:
    """Launchers start another number of processes, or shard nothing, without a word.

    Raises: ValueError.
    """
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started != job.launched.total_processes:
        nodes = f" on each of {job.launched.nodes.num_nodes} nodes" if job.node else ""
        raise ValueError(
            f"{job.kind}: run.training.num_processes is {job.launched.num_processes}{nodes}, but {started} started; "
            "with run.training.sharding each needs a GPU of its own: lower num_processes, or set sharding to none"
        )
    if job.launched.sharding != "none":
        import torch

        if not torch.cuda.is_available():
            raise ValueError(
                f"{job.kind}: run.training.sharding is {job.launched.sharding!r}, but there is no GPU to shard over; "
                "set it to none"
            )


def join_others(job: TrainingJob) -> None:
    """Meet the processes of other nodes, with the job's own limit on how long each exchange may take.

    A machine that vanishes closes no connection: without a limit the others would wait for it.
    """
    if job.node:
        from tasks.training.ranks import Ranks

        Ranks.join(timedelta(seconds=job.launched.nodes.exchange_seconds))


@contextmanager
def alone(checkpoints: Path | None, leaving: Callable[[], bool]) -> Iterator[None]:
    """Wait until an earlier process of this training has left, which may still be writing its resume point."""
    if checkpoints is None:
        yield
        return
    checkpoints.mkdir(parents=True, exist_ok=True)
    with (checkpoints / LOCK_FILE).open("w") as lock:
        if not _locked(lock.fileno()):
            print("waiting for an earlier process of this training to leave", flush=True)
        while not _locked(lock.fileno()):
            if leaving():
                raise Leaving
            time.sleep(0.2)
        yield


def asked_by_sigterm() -> Callable[[], bool]:
    """Whether SIGTERM has come since this call.

    It comes twice, from the launcher and from the guard. That is why it is no `threading.Event`: a second signal within
    its `set` would wait for ever for the lock that the first one holds.
    """
    signals: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: signals.append(number))
    return lambda: bool(signals)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _main(job_path: str) -> None:
    asked = asked_by_sigterm()
    from transformers.utils import logging

    logging.disable_progress_bar()
    job = TrainingJob.model_validate_json(Path(job_path).read_text(encoding="utf-8"))
    assert job.events is not None, "launch gives a file for events"
    try:
        run(job, EventWriter(job.events).send, asked, int(os.environ.get("RANK", "0")))
    except Leaving:
        sys.exit(LEFT)


if __name__ == "__main__":
    _main(*sys.argv[1:])
