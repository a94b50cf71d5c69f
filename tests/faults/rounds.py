"""A round: writers race for the same versions at one place while things go wrong; then everything is checked."""

import multiprocessing
import os
import random
import signal
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

from tasks.store import Store
from tests.faults.invariants import read_journals, violations
from tests.faults.writer import Job, open_patiently, write

NUM_WRITERS = 4
LIMIT_SECONDS = 150.0
"""A round that lasts longer is a violation: somebody hangs."""

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["tests.faults.writer"])


class Place(NamedTuple):
    """Where a round happens."""

    name: str
    uri: str
    environment: Mapping[str, str]
    """How to reach it without faults."""

    def fresh(self) -> "Place":
        """An empty store of its own at this place."""
        return self._replace(uri=f"{self.uri}/{uuid.uuid4().hex[:8]}")


@dataclass(frozen=True)
class Outcome:
    """What a round, or several, came to."""

    rounds: int = 1
    killed: int = 0
    injected: int = 0
    commits: int = 0
    """Acknowledged."""
    errors: int = 0
    """Refusals that the store has a name for."""
    violations: tuple[str, ...] = ()
    first_error: str = ""

    def __add__(self, other: "Outcome") -> "Outcome":
        return Outcome(
            self.rounds + other.rounds, self.killed + other.killed, self.injected + other.injected,
            self.commits + other.commits, self.errors + other.errors, self.violations + other.violations,
            self.first_error or other.first_error,
        )  # fmt: skip


def race(
    place: Place,
    randomness: random.Random,
    kills: int = 0,
    endpoint: str | None = None,
    meanwhile: Callable[[], None] = lambda: None,
    num_versions: int = 5,
    unconditional: bool = False,
) -> Outcome:
    """Writers commit the same versions of an empty store; some are killed at random times and at random operations.

    At least `kills` are killed. `endpoint` is what the writers are given instead of the place's own: a proxy.
    `meanwhile` runs beside them. `unconditional`: see Job.
    """
    place, seeds = place.fresh(), range(num_versions)
    open_store(place)  # makes the bucket
    with tempfile.TemporaryDirectory(prefix="solon-journals-") as folder:
        environment = dict(place.environment)
        if endpoint:
            environment["AWS_ENDPOINT_URL"] = endpoint
        jobs = [
            Job(place.uri, number, tuple(seeds), f"{folder}/{number}.jsonl", environment, NUM_WRITERS,
                randomness.getrandbits(32), crash_rate=0.02 if kills else 0.0, collects=number == 0,
                unconditional=unconditional)
            for number in range(NUM_WRITERS)
        ]  # fmt: skip
        with ThreadPoolExecutor(1) as others:
            done = others.submit(meanwhile)
            killed, broken = _run(jobs, kills, randomness)
            done.result()
        found = check(place, Path(folder), seeds)
        return replace(found, killed=killed, violations=found.violations + broken)


def check(place: Place, journals: Path, seeds: range) -> Outcome:
    """The outcome of writers that have ended, seen from the place without faults."""
    entries = read_journals(journals)
    broken = violations(open_store(place), entries, seeds)
    errors = [entry["text"] for entry in entries if entry["kind"] == "error"]
    commits = sum(entry["kind"] == "commit" for entry in entries)
    first = errors[0] if errors else ""
    return Outcome(commits=commits, errors=len(errors), violations=tuple(broken), first_error=first)


def open_store(place: Place) -> Store:
    os.environ.update(place.environment)
    return open_patiently(place.uri)


def _run(jobs: list[Job], kills: int, randomness: random.Random) -> tuple[int, tuple[str, ...]]:
    """Run the jobs to their end; whoever is killed is replaced by another with the same order."""
    running = [(job, _start(job)) for job in jobs]
    deadline = time.monotonic() + LIMIT_SECONDS
    broken: list[str] = []
    strike, killed, number = time.monotonic() + randomness.uniform(0.1, 1.0), 0, len(jobs)
    while running and time.monotonic() < deadline:
        time.sleep(0.02)
        if killed < kills and time.monotonic() > strike:
            randomness.choice(running)[1].kill()
            strike = time.monotonic() + randomness.uniform(0.1, 1.0)
        for job, process in [pair for pair in running if not pair[1].is_alive()]:
            running.remove((job, process))
            if process.exitcode == -signal.SIGKILL:
                killed, number = killed + 1, number + 1
                running.append((successor := _successor(job, number, killed < kills), _start(successor)))
            elif process.exitcode:
                broken.append(f"a writer ended with exit code {process.exitcode}")
    for _, process in running:
        process.kill()
        broken.append(f"a writer had not ended after {LIMIT_SECONDS:.0f} s")
    return killed, tuple(broken)


def _successor(job: Job, number: int, may_die: bool) -> Job:
    """Another writer with other rows; the last ones live, so that every version is committed in the end."""
    journal = str(Path(job.journal).with_name(f"{number}.jsonl"))
    rate = job.crash_rate if may_die else 0.0
    return replace(job, number=number, journal=journal, random_seed=job.random_seed + number, crash_rate=rate)


def _start(job: Job) -> BaseProcess:
    process = _processes.Process(target=write, args=(job,), daemon=True)
    process.start()
    return process
