"""Will this place keep its promises? Each promise that the store rests on, tried out and reported.

Nothing is raised for what can be reported, and all that is written lies below `probe/` and is removed again.
"""

import contextlib
import shutil
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from tasks.schema import Frozen
from tasks.store.backend import open_backend, split_s3
from tasks.store.errors import StoreError, StoreUnavailable
from tasks.store.folder import FolderBackend
from tasks.store.s3_connection import endpoint, is_loopback

Outcome = Literal["ok", "warning", "broken"]

RACERS = 8
SKEW_WARNING_SECONDS = 5 * 60
SKEW_BROKEN_SECONDS = 15 * 60
"""Signed requests are refused from here on."""

_FREE_BYTES = 2**30


class Finding(Frozen):
    """What trying out one promise showed."""

    check: str
    outcome: Outcome
    """`warning`: the store works, with the limit that `detail` names. `broken`: do not use this place."""
    detail: str
    remedy: str = ""
    """What to do; empty where all is well."""


def examine(uri: str, clock: Callable[[], float] = time.time) -> list[Finding]:
    """Try out a folder or `s3://bucket/prefix` as a store; `clock` is this machine's, in seconds since 1970.

    A folder that is missing is made; so is a bucket on a loopback endpoint, as when a store is opened.
    """
    if uri.strip() and "://" not in uri:
        return examine_folder(uri, clock)
    try:
        if not uri.startswith("s3://"):
            open_backend(uri)  # says what an address looks like
        bucket, prefix = split_s3(uri.removeprefix("s3://"))
    except StoreError as error:
        return [broken("address", error)]
    from tasks.store.doctor_s3 import examine_bucket

    return [_transport(endpoint()), *examine_bucket(bucket, prefix, clock)]


def examine_folder(path: str, clock: Callable[[], float]) -> list[Finding]:
    """The promises of a folder."""
    try:
        backend = FolderBackend.open(path)
    except (StoreUnavailable, ValueError) as error:  # ValueError: a NUL in the path
        return [broken("writable", error)]
    findings = [ok("writable", f"{backend.uri} can be written, linked in and synced to disk")]
    prefix = f"probe/{uuid.uuid4().hex}"
    try:
        findings += [_folder_condition(backend, prefix), _folder_race(backend, prefix), _folder_clock(backend, clock)]
        findings += [_folder_listing(backend, prefix), _free_space(backend.root)]
    except StoreUnavailable as error:
        findings.append(broken("writable", error))
    finally:
        shutil.rmtree(backend.root / prefix, ignore_errors=True)
        with contextlib.suppress(OSError):  # another doctor may be at work
            (backend.root / prefix).parent.rmdir()
    return findings


def ok(check: str, detail: str) -> Finding:
    return Finding(check=check, outcome="ok", detail=detail)


def broken(check: str, error: Exception) -> Finding:
    """A store error as a finding: its message ends with the remedy."""
    detail, _, remedy = str(error).rpartition("; ")
    return Finding(check=check, outcome="broken", detail=detail or remedy, remedy=remedy if detail else "")


def race(create: Callable[[bytes], bool]) -> list[bytes]:
    """Let RACERS threads create one thing at once, each with bytes of its own; the bytes of those told they won."""
    barrier = threading.Barrier(RACERS)

    def attempt(number: int) -> tuple[bytes, bool]:
        data = b"racer %d" % number
        barrier.wait(timeout=60)
        return data, create(data)

    with ThreadPoolExecutor(RACERS) as threads:
        return [data for data, won in threads.map(attempt, range(RACERS)) if won]


def judge_race(winners: list[bytes], kept: bytes, remedy: str) -> Finding:
    """Exactly one may win, and what it wrote must be what is there."""
    if winners == [kept]:
        return ok("race", f"{RACERS} writers of one key at once: one won, and its bytes are there")
    detail = f"{RACERS} writers of one key at once: {len(winners)} were told that they won"
    return Finding(check="race", outcome="broken", detail=detail, remedy=remedy)


def judge_clock(skew_seconds: float, whose: str) -> Finding:
    """How far this machine's clock is ahead of the place's."""
    size = abs(skew_seconds)
    detail = f"this machine's clock is {size:.0f} s {'ahead of' if skew_seconds > 0 else 'behind'} {whose}"
    if size <= SKEW_WARNING_SECONDS:
        return ok("clock", detail)
    outcome: Outcome = "broken" if size > SKEW_BROKEN_SECONDS else "warning"
    return Finding(check="clock", outcome=outcome, detail=detail, remedy="set this machine's clock (NTP)")


def _transport(address: str | None) -> Finding:
    """Whether others on the network can read along; None: AWS itself."""
    if address is None or address.startswith("https://"):
        return ok("transport", "requests are encrypted")
    if is_loopback(address):
        return ok("transport", "requests are not encrypted, and do not leave this machine")
    remedy = "use an https:// endpoint: texts and signatures can be read on the way"
    return Finding(check="transport", outcome="warning", detail="requests are not encrypted", remedy=remedy)


def _folder_condition(backend: FolderBackend, prefix: str) -> Finding:
    key = f"{prefix}/condition"
    answers = [backend.put_if_absent(key, data) for data in (b"1", b"2")]
    if answers == [True, False] and backend.get(key) == b"1":
        return ok("create-if-absent", "a second writer is refused")
    detail = "a second writer of one file is not refused, so two writers would overwrite each other"
    return Finding(check="create-if-absent", outcome="broken", detail=detail, remedy=_OTHER_FOLDER)


def _folder_race(backend: FolderBackend, prefix: str) -> Finding:
    key = f"{prefix}/race"
    winners = race(lambda data: backend.put_if_absent(key, data))
    return judge_race(winners, backend.get(key), _OTHER_FOLDER)


def _folder_listing(backend: FolderBackend, prefix: str) -> Finding:
    key = f"{prefix}/listed"
    backend.put(key, [b"1"])
    shown = backend.keys(f"{prefix}/")
    (backend.root / key).unlink()
    if key in shown and key not in backend.keys(f"{prefix}/"):
        return ok("listing", "a listing shows what was just written, and not what was just deleted")
    detail = "a listing does not show what was just written or deleted"
    return Finding(check="listing", outcome="broken", detail=detail, remedy=_OTHER_FOLDER)


def _folder_clock(backend: FolderBackend, clock: Callable[[], float]) -> Finding:
    """A network file system stamps files by its server's clock."""
    probe = backend.root / f".tmp/clock-{uuid.uuid4().hex}"
    probe.write_bytes(b"")
    stamped = probe.stat().st_mtime
    probe.unlink()
    return judge_clock(clock() - stamped, "the file system's")


def _free_space(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    detail = f"{free / 2**30:.1f} GiB free"
    if free >= _FREE_BYTES:
        return ok("space", detail)
    remedy = "free space, or choose a folder on another disk; a run stops where the disk is full"
    return Finding(check="space", outcome="warning", detail=detail, remedy=remedy)


_OTHER_FOLDER = "choose a folder on another file system (one with atomic hard links)"
