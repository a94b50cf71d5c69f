"""Work through many rows in chunks, each a Prefect task and a resume point in the store.

A chunk is written as it finishes, so that a killed stage loses at most the one in flight; when all are there the
version is committed. How the work is cut is not part of its identity.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from tasks.schema import DatasetRef, Row
from tasks.stage import Session, Stage, check_failed_fraction
from tasks.store.identity import digest, rows_to_table, table_to_rows

Item = TypeVar("Item")


def make_in_chunks(
    stage: Stage,
    session: Session,
    items: Sequence[Item],
    key: Callable[[Item], str],
    work: Callable[[Sequence[Item]], Sequence[Row]],
    row_type: type[Row],
) -> DatasetRef:
    """Commit the rows that `work` makes of `items`, chunk by chunk and in order.

    `key` names an item; a chunk found in the store under the same items is not made again.

    Raises: StageFailed: too many rows are not ok.
    """
    derivation = stage.derivation(session.store)
    size = stage.run.chunk_rows
    chunks = [items[i : i + size] for i in range(0, len(items), size)]
    rows: list[Row] = []
    counts = {"chunks_made": 0, "chunks_resumed": 0, "rows_made": 0}
    started = time.monotonic()
    for index, chunk in enumerate(chunks):
        name = f"{index:05d}-{digest([key(item) for item in chunk])[:16]}"
        table = session.store.chunk_get(derivation.dataset, derivation.version, name)
        if table is None:
            made = session.call(f"{stage.stage} chunk {index + 1}/{len(chunks)}", bind(work, chunk))
            table = rows_to_table(list(made), row_type)
            session.store.chunk_put(derivation.dataset, derivation.version, name, table)
            counts["chunks_made"] += 1
            counts["rows_made"] += table.num_rows
        else:
            counts["chunks_resumed"] += 1
        rows += table_to_rows(table, row_type)
        session.progress.update(index + 1, len(chunks), progress_note(counts["rows_made"], len(rows), started))
    check_failed_fraction(stage.stage, rows, stage.run.max_failed_fraction)
    cost = {"seconds": time.monotonic() - started, **counts, "num_tokens": count_tokens(rows)}
    return session.store.commit_rows(derivation, rows_to_table(rows, row_type), metrics={}, cost=cost)


def bind(work: Callable[[Sequence[Item]], Any], chunk: Sequence[Item]) -> Callable[[], Any]:
    return lambda: work(chunk)


def progress_note(made: int, rows: int, started: float) -> str:
    rate = made / max(time.monotonic() - started, 1e-6)
    return f"{rows} rows, {rate:.1f} rows/s"


def count_tokens(rows: Sequence[Row]) -> int:
    return sum(getattr(row, "num_tokens", 0) for row in rows)
