"""Faults of the machine under the writers: a full disk, a wrong clock, system calls that fail."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

from infra.debian_tools import Missing, fetch, find_file
from tasks.store import Store, StoreError, StoreUnavailable
from tests.faults.rounds import Outcome, Place, check, open_store
from tests.faults.writer import DATASET, Job, foreign_rows
from tests.small_versions import completions, derivation

ROOT = Path(__file__).resolve().parents[2]
CLOCKS = {"+10m": 600, "+20m": 1200, "-2d": -2 * 86400}
"""libfaketime's words, and what they mean in seconds."""
MAX_SKEW_SECONDS = 900
"""S3's rule: a request whose date is further off is refused."""


def wrong_clock(place: Place, offset: str) -> Outcome:
    """A writer and a collector whose clock is off: success, or a refusal that names the clock; nothing is lost."""
    place, seeds = place.fresh(), range(3)
    open_store(place)  # makes the bucket
    library = find_file(fetch("faketime"), "libfaketimeMT.so.1")
    preload = {"LD_PRELOAD": str(library), "FAKETIME": offset, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    with tempfile.TemporaryDirectory(prefix="solon-journals-") as folder:
        ended = _write(
            Job(place.uri, 0, tuple(seeds), f"{folder}/0.jsonl", dict(place.environment), collects=True), preload
        )
        found = check(place, Path(folder), seeds)
    broken = [] if ended == 0 else [f"the writer ended with exit code {ended}"]
    refused = place.name == "radosgw" and abs(CLOCKS[offset]) > MAX_SKEW_SECONDS
    if refused and "clock is wrong" not in found.first_error:
        broken.append(f"clock {offset}: expected an error that names the clock, found {found.first_error!r}")
    if not refused and found.commits != len(seeds):
        broken.append(f"clock {offset}: {found.commits} of {len(seeds)} were committed: {found.first_error}")
    return replace(found, injected=1, violations=found.violations + tuple(broken))


def io_errors(place: Place, rate: float, random_seed: int) -> Outcome:
    """A writer whose system calls on files fail at random; what it could not commit another one then can."""
    place, seeds = place.fresh(), range(20)
    tool = fetch("fiu")
    libraries = [find_file(tool, name) for name in ("libfiu.so.0", "fiu_run_preload.so", "fiu_posix_preload.so")]
    preload = {"LD_PRELOAD": " ".join(map(str, libraries)), "LD_LIBRARY_PATH": str(libraries[0].parent)}
    with tempfile.TemporaryDirectory(prefix="solon-journals-") as folder:
        job = Job(
            place.uri,
            0,
            tuple(seeds),
            f"{folder}/0.jsonl",
            dict(place.environment),
            collects=True,
            random_seed=random_seed,
        )
        ended = _write(replace(job, io_error_rate=rate), preload)
        found = check(place, Path(folder), seeds)
        broken = () if ended == 0 else (f"the writer ended with exit code {ended}",)
        _write(replace(job, number=1, journal=f"{folder}/1.jsonl"), {})
        after = check(place, Path(folder), seeds)
    if after.commits - found.commits != len(seeds):
        broken += (f"after the faults only {after.commits - found.commits} of {len(seeds)} could be committed",)
    return replace(after, injected=found.errors, violations=after.violations + broken)


def disk_full(kilobytes: int) -> Outcome:
    """Fill a small file system with versions. Raises: Missing: no such file system may be mounted here."""
    script = 'mount -t tmpfs -o "size=$1" none "$2" && shift 2 && exec "$@"'
    with tempfile.TemporaryDirectory(prefix="solon-small-disk-") as folder:
        child = (sys.executable, "-m", "tests.faults.machine", folder)
        shell = ("sh", "-c", script, "sh", f"{kilobytes}k", folder, *child)
        for namespace in (("unshare", "-rm"), ("unshare", "-m")):  # root of its own namespace; else the machine's
            if not shutil.which("unshare"):
                break
            result = subprocess.run(
                [*namespace, *shell], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
            )
            if result.returncode == 0:
                return _outcome(json.loads(result.stdout.splitlines()[-1]))
            if "mount" not in result.stderr and "unshare" not in result.stderr:
                raise RuntimeError(result.stderr)
    raise Missing("disk full: this machine lets us mount no tmpfs in a namespace of our own (unshare)")


def fill_disk(folder: Path) -> dict[str, object]:
    """Commit until the disk is full, free some room, commit again; runs inside the small file system."""
    store, broken, refs = Store.open(str(folder / "store")), [], {}
    filler, errors = folder / "filler", list[str]()
    filler.write_bytes(os.urandom(64 * 1024))
    for seed in range(200):
        texts: list[str | None] = [f"{seed} by 0 row {row}" for row in range(60)]
        try:
            refs[seed] = store.commit_rows(derivation(DATASET, seed), completions(texts), metrics={}, cost={})
        except StoreUnavailable as error:
            errors.append(str(error))
            if "disk is full" not in str(error):
                broken.append(f"expected an error that names the full disk: {error}")
            filler.unlink(missing_ok=True)
        if len(errors) == 3:
            break
    for seed, ref in refs.items():
        try:
            problem = foreign_rows(store, ref, seed)
        except StoreError as error:
            problem = str(error)
        broken += [f"version {seed}: {problem}"] if problem else []
    if len(errors) < 3 or len(refs) < 3 or max(refs) < 1:
        broken.append(f"the disk never filled: {len(refs)} commits, {len(errors)} errors")
    return {"commits": len(refs), "errors": errors, "violations": broken}


def _outcome(report: dict[str, list[str]]) -> Outcome:
    errors, broken = report["errors"], tuple(report["violations"])
    return Outcome(
        commits=int(str(report["commits"])), injected=len(errors), errors=len(errors), violations=broken,
        first_error=errors[0] if errors else "",
    )  # fmt: skip


def _write(job: Job, preload: Mapping[str, str]) -> int:
    """Run the job in a process of its own; its exit code."""
    command = [sys.executable, "-m", "tests.faults.writer", json.dumps(asdict(job))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **preload}
    result = subprocess.run(command, cwd=ROOT, env=environment, timeout=150, stderr=subprocess.PIPE, check=False)
    if result.returncode:
        sys.stderr.buffer.write(result.stderr[-2000:])
    return result.returncode


if __name__ == "__main__":
    print(json.dumps(fill_disk(Path(sys.argv[1]))))
