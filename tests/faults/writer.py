"""One writer process of a round: commits, reads back, tags and collects garbage, and journals what it was told.

python -m tests.faults.writer JOB        for writers that need something preloaded; else they are forked
"""

import ctypes
import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import s3fs  # noqa: F401  imported by the fork server once, instead of by every writer

from tasks.schema import DatasetRef
from tasks.store import Corrupt, NotCommitted, Store, StoreError, StoreUnavailable
from tasks.store.gc import collect_garbage
from tasks.store.retention import Retention
from tests.small_versions import completions, derivation

DATASET, TAG = "completions", "prod"
NUM_ROWS = 60
MEETING_SECONDS = 0.5
"""How long a writer that is about to publish waits for the others."""


@dataclass(frozen=True)
class Job:
    """What one writer does."""

    uri: str
    number: int
    """Of this writer; its rows carry it."""
    seeds: tuple[int, ...]
    """The versions it commits, in this order."""
    journal: str
    """The file to which it appends what it was told."""
    environment: dict[str, str] = field(default_factory=dict)
    num_writers: int = 1
    """That race for the same versions."""
    random_seed: int = 0
    crash_rate: float = 0.0
    """Chance of a SIGKILL to itself before and after each operation on the place."""
    io_error_rate: float = 0.0
    """Chance of an error of each read and write of a file, while it works on the place; needs libfiu preloaded."""
    collects: bool = False
    """Whether it collects garbage with no grace after each commit."""
    unconditional: bool = False
    """The mutant: manifests are written without asking whether they exist."""
    owner: int = field(default_factory=os.getpid)
    """The process that ordered it."""


class Journal:
    """Lines of JSON, each whole in the file before the next step: a killed writer's acknowledgements count."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def add(self, kind: str, **fields: Any) -> None:
        os.write(self._file, json.dumps({"kind": kind, **fields}).encode() + b"\n")


class Perilous:
    """A backend on which things happen between and during operations."""

    def __init__(self, inner: Any, job: Job) -> None:
        self._inner = inner
        self._job = job
        self._random = random.Random(job.random_seed)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        return self._perilous(value) if callable(value) and name != "location" else value

    def put_if_absent(self, key: str, data: bytes) -> bool:
        if "/versions/" not in key:
            return bool(self._perilous(self._inner.put_if_absent)(key, data))
        self._meet_the_others(key)
        if self._job.unconditional:
            self._inner.put(key, [data])
            return True
        return bool(self._perilous(self._inner.put_if_absent)(key, data))

    def _meet_the_others(self, key: str) -> None:
        """Publish with the others, if they come: all at once or one after the other, as it falls."""
        arrivals = Path(self._job.journal).with_name(key.rpartition("/")[2])
        with arrivals.open("ab") as file:
            file.write(b".")
        deadline = time.monotonic() + MEETING_SECONDS
        while arrivals.stat().st_size < self._job.num_writers and time.monotonic() < deadline:
            time.sleep(0.002)
        if self._job.num_writers > 1:
            time.sleep(self._random.choice([0.0, self._random.uniform(0, MEETING_SECONDS)]))

    def _perilous(self, operation: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            self._maybe_die()
            with io_errors(self._job.io_error_rate):
                result = operation(*arguments)
            self._maybe_die()
            return result

        return run

    def _maybe_die(self) -> None:
        if self._random.random() < self._job.crash_rate:
            os.kill(os.getpid(), signal.SIGKILL)


def write(job: Job) -> None:
    """Do the job. What the store refuses by name is journalled as an error, anything else as a violation."""
    _end_with(job.owner)
    os.environ.update(job.environment)
    journal = Journal(job.journal)
    try:
        opened = open_patiently(job.uri)
    except StoreError as error:
        journal.add("error", text=str(error))
        return
    store = Store(Perilous(opened.backend, job), opened.cache)
    for seed in job.seeds:
        for step in (commit_and_read, collect) if job.collects else (commit_and_read,):
            try:
                step(store, job, seed, journal)
            except StoreError as error:
                journal.add("error", text=f"{type(error).__name__}: {error}")
            except Exception as error:  # the border of the process: whatever it is, it has no name of the store's
                journal.add("violation", text=f"version {seed}: unnamed error {type(error).__name__}: {error}")


def open_patiently(uri: str) -> Store:
    """The opening itself does not try again, so that a user hears at once; under faults, ask more than once."""
    for _ in range(30):
        try:
            return Store.open(uri)
        except StoreUnavailable as error:
            if error.status == 403:
                raise
            time.sleep(0.05)
    return Store.open(uri)


def commit_and_read(store: Store, job: Job, seed: int, journal: Journal) -> None:
    texts = [f"{seed} by {job.number} row {row}" for row in range(NUM_ROWS)]
    ref = store.commit_rows(derivation(DATASET, seed), completions(list(texts)), metrics={}, cost={})
    journal.add("commit", seed=seed, version=ref.version, content=ref.content_hash)
    read_back(store, ref, seed, journal)
    tag = store.tag(DATASET, TAG, ref.version, by=f"writer {job.number}")
    journal.add("tag", sequence=tag.sequence, version=tag.version)


def read_back(store: Store, ref: DatasetRef, seed: int, journal: Journal) -> None:
    try:
        problem = foreign_rows(store, ref, seed)
    except (Corrupt, NotCommitted) as error:
        problem = f"unreadable after its acknowledgement: {error}"
    if problem:
        journal.add("violation", text=f"version {seed}: {problem}")


def foreign_rows(store: Store, ref: DatasetRef, seed: int) -> str | None:
    """What is wrong with the rows of a version; None where they are one writer's, whole and in order."""
    texts = store.read(ref).column("completion").to_pylist()
    writer = texts[0].split(" row ")[0] if texts else ""
    whole = texts == [f"{writer} row {row}" for row in range(NUM_ROWS)] and writer.startswith(f"{seed} by ")
    return None if whole else f"rows of nobody: {texts[:2]}"


def collect(store: Store, job: Job, seed: int, journal: Journal) -> None:
    collect_garbage(store, Retention(), grace_seconds=0)


@contextmanager
def io_errors(rate: float) -> Iterator[None]:
    """Let reads and writes of files fail at random meanwhile."""
    if not rate:
        yield
        return
    fiu, name = ctypes.CDLL(None), b"posix/io/rw/*"
    fiu.fiu_enable_random(name, 1, None, 0, ctypes.c_float(rate))
    try:
        yield
    finally:
        fiu.fiu_disable(name)


def _end_with(owner: int) -> None:
    """No writer outlives whoever ordered it, however that one ended. (Its parent is the fork server.)"""

    def watch() -> None:
        while Path(f"/proc/{owner}").exists():
            threading.Event().wait(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    if "FAKETIME" in os.environ:  # libfaketime 0.9.10 breaks clock_nanosleep, which time.sleep calls
        time.sleep = lambda seconds: threading.Event().wait(seconds) and None
    order = json.loads(sys.argv[1])
    write(Job(**{**order, "seeds": tuple(order["seeds"])}))
