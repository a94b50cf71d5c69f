"""The operations that `benchmarks.store` measures, one a process: ours, and the nearest thing that others have.

delta-rs and `datasets` keep no hashes of rows. Their diff compares all columns of two whole tables, joined by row_id
in Arrow; their look-up joins by reuse key in Arrow and checks nothing; their verify reads all rows and computes the
hashes that a manifest of ours would have. A look-up of ours gives Python values whose hashes were computed again.
"""

import hashlib
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.schema import Completion, DatasetRef
from tasks.store import Derivation, Store
from tasks.store.diff import diff_versions
from tasks.store.identity import arrow_schema, row_hashes
from tasks.store.reuse import ReuseIndex
from tasks.store.verify import verify_version

BATCH_ROWS = 8192
LOOKUP_ROWS = 1024
"""Keys asked for at once, as a stage does."""
CHANGED_EVERY = 16
TEXT_CHARS = 1000
DATASET, RECIPE = "completions", hashlib.sha256(b"benchmark").hexdigest()
SCHEMA = arrow_schema(Completion)


def make_input(folder: Path, num_rows: int, seed: int) -> str:
    """Rows whose texts are cut from 16 MB of random words, as one Arrow stream that all operations read."""
    rng = np.random.default_rng(seed)
    letters = rng.integers(ord("a"), ord("z"), (5000, 9), dtype=np.uint8, endpoint=True)
    words = [bytes(row[:length]).decode() for row, length in zip(letters, rng.integers(2, 10, 5000), strict=True)]
    corpus = " ".join(words[i] for i in (rng.random(2_500_000) ** 2 * 5000).astype(int).tolist())
    with pa.OSFile(str(folder / "input.arrow"), "wb") as file, pa.ipc.new_stream(file, SCHEMA) as writer:
        for start in range(0, num_rows, BATCH_ROWS):
            numbers = range(start, min(start + BATCH_ROWS, num_rows))
            at = rng.integers(0, len(corpus) - TEXT_CHARS, len(numbers)).tolist()
            writer.write_batch(_batch(numbers, [corpus[a : a + TEXT_CHARS] for a in at]))
    return f"{TEXT_CHARS} characters of text each, {(folder / 'input.arrow').stat().st_size / 1e6:,.0f} MB in Arrow"


def _batch(numbers: range, texts: list[str]) -> pa.RecordBatch:
    size = len(numbers)
    columns: dict[str, Any] = {
        "row_id": [f"train/{i:020d}/0/0" for i in numbers],
        "reuse_key": [hashlib.sha256(str(i).encode()).hexdigest() for i in numbers],
        "row_hash": [""] * size,
        "status": ["ok"] * size,
        "reason": [None] * size,
        "prompt_id": [f"{i:020d}" for i in numbers],
        "sample": [0] * size,
        "completion": [f"{i} {text}" for i, text in zip(numbers, texts, strict=True)],
        "finish_reason": ["stop"] * size,
        "num_tokens": [TEXT_CHARS // 4] * size,
    }
    return pa.RecordBatch.from_pydict(columns, schema=SCHEMA)


def batches(folder: Path) -> Iterator[pa.RecordBatch]:
    with pa.OSFile(str(folder / "input.arrow")) as file, pa.ipc.open_stream(file) as reader:
        yield from reader


def changed_batches(folder: Path) -> Iterator[pa.RecordBatch]:
    """The same rows, of which every 16th has another text and another key."""
    for batch in batches(folder):
        changed = pa.array(np.arange(batch.num_rows) % CHANGED_EVERY == 3)
        for name in ("completion", "reuse_key"):
            values = batch.column(name)
            others = pc.replace_with_mask(values, changed, pc.utf8_reverse(values.filter(changed)))
            batch = batch.set_column(SCHEMA.get_field_index(name), name, others)
        yield batch


def derivation(seed: int) -> Derivation:
    return Derivation(
        stage="benchmark", dataset=DATASET, code_version=1, config={}, inputs={}, constitution=None, models={},
        seed=seed, force=None,
    )  # fmt: skip


def open_store(folder: Path) -> Store:
    return Store.open(str(folder / "store"), cache=folder / "cache")


def reference(store: Store, seed: int) -> DatasetRef:
    return store.manifest(DATASET, derivation(seed).version).dataset_ref()


def _commit(folder: Path, rows: Iterator[pa.RecordBatch], seed: int) -> str:
    store = open_store(folder)
    with store.writer(derivation(seed)) as writer:
        for batch in rows:
            writer.append(pa.Table.from_batches([batch]))
        ref = writer.commit(metrics={}, cost={}, reuse=RECIPE)
    parts = store.manifest(DATASET, ref.version).parts
    return f"{len(parts)} parts, {sum(part.bytes for part in parts) / 1e6:,.0f} MB"


def commit(folder: Path, num_rows: int, seed: int) -> str:
    return _commit(folder, batches(folder), 0)


def commit_changed(folder: Path, num_rows: int, seed: int) -> str:
    return _commit(folder, changed_batches(folder), 1)


def reuse(folder: Path, num_rows: int, seed: int) -> str:
    started = time.perf_counter()
    index = ReuseIndex.build(open_store(folder), DATASET, RECIPE, SCHEMA)
    built, found = time.perf_counter() - started, 0
    for batch in changed_batches(folder):
        keys = batch.column("reuse_key").to_pylist()
        for start in range(0, len(keys), LOOKUP_ROWS):
            found += len(index.find(keys[start : start + LOOKUP_ROWS]))
    assert found == num_rows - num_changed(num_rows)
    return f"index {built:.1f} s, {found:,} of {num_rows:,} rows taken"


def diff(folder: Path, num_rows: int, seed: int) -> str:
    store = open_store(folder)
    found = diff_versions(store, reference(store, 0), reference(store, 1))
    assert (found.changed, found.added, found.removed) == (num_changed(num_rows), 0, 0)
    assert found.changed_columns == {"completion": found.num_compared}
    return f"{found.changed:,} changed, {found.num_compared:,} of them compared by column"


def verify(folder: Path, num_rows: int, seed: int) -> str:
    check = verify_version(open_store(folder), DATASET, derivation(0).version)
    assert check.intact
    assert check.rows == num_rows
    return f"{check.rows:,} rows, {check.bytes / 1e6:,.0f} MB"


def num_changed(num_rows: int) -> int:
    return len(range(3, num_rows, CHANGED_EVERY))  # BATCH_ROWS is a multiple of CHANGED_EVERY


def _delta_write(folder: Path, rows: Iterator[pa.RecordBatch]) -> str:
    from deltalake import write_deltalake

    reader = pa.RecordBatchReader.from_batches(SCHEMA, rows)
    write_deltalake(str(folder / "delta"), reader, mode="overwrite")
    return ""


def delta_commit(folder: Path, num_rows: int, seed: int) -> str:
    return _delta_write(folder, batches(folder))


def delta_commit_changed(folder: Path, num_rows: int, seed: int) -> str:
    return _delta_write(folder, changed_batches(folder))


def _delta_table(folder: Path, version: int) -> pa.Table:
    from deltalake import DeltaTable

    return DeltaTable(str(folder / "delta"), version=version).to_pyarrow_table()


def delta_reuse(folder: Path, num_rows: int, seed: int) -> str:
    table = _delta_table(folder, 0)
    keys = pa.chunked_array([batch.column("reuse_key") for batch in changed_batches(folder)])
    found = table.take(pc.drop_null(pc.index_in(keys, value_set=table.column("reuse_key"))))
    assert found.num_rows == num_rows - num_changed(num_rows)
    return ""


def delta_diff(folder: Path, num_rows: int, seed: int) -> str:
    old, new = _delta_table(folder, 0), _delta_table(folder, 1)
    old = old.take(pc.index_in(new.column("row_id"), value_set=old.column("row_id")))
    differs = pa.array(np.zeros(num_rows, bool))
    for name in (n for n in SCHEMA.names if n not in ("row_id", "reuse_key", "row_hash")):
        differs = pc.or_(differs, pc.fill_null(pc.not_equal(old.column(name), new.column(name)), False))
    assert pc.sum(differs).as_py() == num_changed(num_rows)
    return ""


def delta_verify(folder: Path, num_rows: int, seed: int) -> str:
    from deltalake import DeltaTable

    found = DeltaTable(str(folder / "delta"), version=0).to_pyarrow_dataset().to_batches(batch_size=BATCH_ROWS)
    assert sum(len(row_hashes(batch)) for batch in found) == num_rows
    return ""


def disk_commit(folder: Path, num_rows: int, seed: int) -> str:
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    Dataset(pa.Table.from_batches(list(batches(folder)))).save_to_disk(str(folder / "disk"))
    return ""


def disk_verify(folder: Path, num_rows: int, seed: int) -> str:
    from datasets import load_from_disk

    table = load_from_disk(str(folder / "disk")).data.table
    assert sum(len(row_hashes(batch)) for batch in table.to_batches(max_chunksize=BATCH_ROWS)) == num_rows
    return ""


ALL: tuple[Callable[[Path, int, int], str], ...] = (
    make_input, commit, commit_changed, reuse, diff, verify,
    delta_commit, delta_commit_changed, delta_reuse, delta_diff, delta_verify, disk_commit, disk_verify,
)  # fmt: skip


def main(name: str, folder: str, num_rows: str, seed: str) -> None:
    """Run one operation and print what it took as JSON."""
    operation = {function.__name__: function for function in ALL}[name]
    started = time.perf_counter()
    note = operation(Path(folder), int(num_rows), int(seed))
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # KiB on Linux
    print(json.dumps({"seconds": seconds, "peak_mib": peak, "note": note}))


if __name__ == "__main__":
    main(*sys.argv[1:])
