"""gc on a folder of 50 versions and 5 tags while readers, a writer, a long attempt and a second gc are at work."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest

from tasks.schema import DatasetRef
from tasks.store import InputRef, NotCommitted, Store, keys
from tasks.store.gc import GcReport, collect_garbage
from tasks.store.retention import Retention
from tests.small_versions import completions, derivation

DATASET = "completions"
GRACE_SECONDS = 120.0
"""Nothing live is silent for so long; what shall be older is set back by an hour."""
RETENTION = Retention(newest=3, days=0, reuse_days=0)
READER = """
import select, sys
import tasks.store.pins
tasks.store.pins.BEAT_SECONDS = 1
from tasks.store import Store
store = Store.open(sys.argv[1])
store.hold("completions", sys.argv[2])
ref = store.manifest("completions", sys.argv[2]).dataset_ref()
print("holding", flush=True)
reads = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    store.read(ref)
    reads += 1
print(reads)
"""
KILLED = """
import os, sys
from pathlib import Path
import tasks.store.parts
tasks.store.parts._GROUP_BYTES = tasks.store.parts.PART_BYTES = 1000
from tasks.store import Store
from tests.integration.test_gc_live import table
from tests.small_versions import derivation
with Store.open(sys.argv[1]).writer(derivation(seed=2000)) as writer:
    writer.append(table(2000))
    os.kill(os.getpid(), 9)
"""


def table(seed: int) -> pa.Table:
    return completions([f"{seed} {number} " + os.urandom(100).hex() for number in range(100)])


def commit(store: Store, seed: int, made_from: DatasetRef | None = None) -> DatasetRef:
    inputs = {"it": InputRef(version=made_from.version, content_hash=made_from.content_hash)} if made_from else {}
    made_by = derivation(seed=seed).model_copy(update={"inputs": inputs})
    return store.commit_rows(made_by, table(seed), metrics={}, cost={})


def set_back(root: Path, pattern: str) -> None:
    """Let files be an hour older, in the same order."""
    for path in root.glob(pattern):
        if path.is_file():
            stat = path.stat()
            os.utime(path, (stat.st_atime - 3600, stat.st_mtime - 3600))


@contextmanager
def running(*works: Callable[[threading.Event], None]) -> Iterator[list[BaseException]]:
    """Threads that work until the block ends, and what they met."""
    stop, errors = threading.Event(), list[BaseException]()

    def run(work: Callable[[threading.Event], None]) -> None:
        try:
            work(stop)
        except BaseException as error:  # handed to the test
            errors.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    try:
        yield errors
    finally:
        stop.set()
        for thread in threads:
            thread.join(120)


def test_gc_beside_live_work_removes_garbage_and_nothing_that_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.store.pins.BEAT_SECONDS", 1)
    monkeypatch.setattr("tasks.store.parts._GROUP_BYTES", 1000)
    monkeypatch.setattr("tasks.store.parts.PART_BYTES", 1000)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    root = tmp_path / "store"
    store, uri = Store.open(str(root), cache=tmp_path / "cache"), str(root)
    refs = [commit(store, seed) for seed in range(10)]
    for seed in range(10, 50):  # ten chains of five
        refs.append(commit(store, seed, refs[seed - 10]))
    tagged = [refs[number] for number in (3, 14, 25, 36, 40)]
    for number, ref in enumerate(tagged):
        store.tag(DATASET, f"tag-{number}", ref.version)
    ancestors = [refs[n] for n in (4, 5, 15, 6, 16, 26, 0, 10, 20, 30)]
    held_by_thread, held_by_process = refs[7], refs[18]
    newest = [refs[n] for n in range(50) if n % 10 in (7, 8, 9)]  # and what they came from: until others are newer
    assert subprocess.run([sys.executable, "-c", KILLED, uri], check=False).returncode == -9
    long_attempt = store.writer(derivation(seed=1000))
    long_attempt.__enter__()
    long_attempt.append(table(1000))
    set_back(root, "v1/datasets/**/*")
    set_back(root, "v1/pins/*")
    store.pins.renew()
    before = size_of(root)

    def read_what_is_held(stop: threading.Event) -> None:
        mine = Store.open(uri)
        mine.hold(DATASET, held_by_thread.version)
        ref = mine.manifest(DATASET, held_by_thread.version).dataset_ref()
        holding.set()
        while not stop.is_set():
            assert mine.read(ref).num_rows == 100
        mine.release()

    def read_anything(stop: threading.Event) -> None:
        mine = Store.open(uri)
        while not stop.is_set():
            for ref in refs:
                try:
                    assert mine.read(ref).num_rows == 100
                except NotCommitted:  # removed before it was looked up; what was found can be read to its end
                    continue

    def write(stop: threading.Event) -> None:
        mine = Store.open(uri)
        while not stop.is_set() and len(written) < 6:
            last = written[-1] if written else refs[9]
            mine.hold(DATASET, last.version)
            assert mine.find(DATASET, last.version)
            writing.set()
            written.append(commit(mine, 3000 + len(written), last))
            mine.hold(DATASET, written[-1].version)
        all_written.set()
        stop.wait()
        mine.release()

    def collect(stop: threading.Event) -> None:
        reports.append(collect_garbage(Store.open(uri), RETENTION, GRACE_SECONDS))

    written: list[DatasetRef] = []
    reports: list[GcReport] = []
    holding, writing, all_written = threading.Event(), threading.Event(), threading.Event()
    reader = subprocess.Popen(
        [sys.executable, "-c", READER, uri, held_by_process.version], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert reader.stdin and reader.stdout and reader.stdout.readline() == "holding\n"
    try:
        with running(read_what_is_held, read_anything, write) as errors:
            assert holding.wait(60) and writing.wait(60)
            with running(collect) as gc_errors:
                reports.append(collect_garbage(store, RETENTION, GRACE_SECONDS))
            set_back(root, "v1/datasets/*/fates/**/*.json")
            reports.append(collect_garbage(store, RETENTION, GRACE_SECONDS))
            ref = long_attempt.commit(metrics={}, cost={})
            store.tag(DATASET, "long", ref.version)
            assert all_written.wait(120)
            for _ in range(
                20
            ):  # what one removes, the next one frees; what is looked up meanwhile, a later one removes
                reports.append(collect_garbage(store, RETENTION, GRACE_SECONDS))
                set_back(root, "v1/datasets/*/fates/**/*.json")
                waiting = any("looked up meanwhile" in judged.reason for judged in reports[-1].kept)
                if not (reports[-1].removed or reports[-1].objects or waiting):
                    break
        assert not errors and not gc_errors
    finally:
        long_attempt.__exit__(None, None, None)
        reader.stdin.close()
        reads = reader.stdout.read()
        assert reader.wait(60) == 0 and int(reads) > 0

    needed = [*tagged, *ancestors, held_by_thread, held_by_process, refs[8], refs[9], *written, ref]
    for one in needed:
        assert store.read(one).num_rows == 100
    live = {manifest.version for manifest in store.versions(DATASET)}
    assert {one.version for one in needed} <= live <= {one.version for one in [*needed, *newest]}
    freed, removed = sum(report.bytes for report in reports), {r.version for report in reports for r in report.removed}
    assert removed == {one.version for one in refs} - live
    assert len(store.tombstones(DATASET)) == len(removed)
    wanted = sum(part.bytes for manifest in store.versions(DATASET) for part in manifest.parts)
    data = sum(entry.size for entry in store.backend.entries(keys.folder(DATASET, "data")))
    assert data == wanted, "files of what was removed, or of the killed attempt, are left"
    print(
        f"\n50 versions, 5 tags, {before} bytes: {len(removed)} versions removed, {len(live)} kept; "
        f"{sum(report.objects for report in reports)} files with {freed} bytes freed by {len(reports)} runs; "
        f"{len(written)} versions written and {int(reads)} whole reads by another process meanwhile"
    )
    assert freed > 0


def size_of(root: Path) -> int:
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
