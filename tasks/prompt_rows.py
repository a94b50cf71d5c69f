"""Prompts, and rows of other datasets beside their prompts, one at a time: every dataset keeps the prompts' order."""

from collections.abc import Iterator
from typing import TypeVar

import pyarrow.compute as pc

from tasks.schema import DatasetRef, Kind, Prompt, Row, Split
from tasks.stage import StageFailed
from tasks.store import Store
from tasks.store.identity import table_to_rows

RowT = TypeVar("RowT", bound=Row)


def read_rows(store: Store, ref: DatasetRef, row_type: type[RowT]) -> Iterator[RowT]:
    """The rows of a dataset in order, a batch of them in memory."""
    for table in store.read_tables(ref):
        for batch in table.to_batches(max_chunksize=1024):
            yield from table_to_rows(batch, row_type)


def read_prompts(store: Store, ref: DatasetRef, split: Split, *kinds: Kind) -> Iterator[Prompt]:
    """The prompts of a split, of these kinds or of all, in order."""
    return (p for p in read_rows(store, ref, Prompt) if p.split == split and (not kinds or p.kind in kinds))


def count_prompts(store: Store, ref: DatasetRef, split: Split, kind: Kind | None = None) -> int:
    """How many prompts there are of a split and kind, whatever their status."""
    total = 0
    for table in store.read_tables(ref, columns=["split", "kind"]):
        chosen = pc.equal(table.column("split"), split)
        if kind is not None:
            chosen = pc.and_(chosen, pc.equal(table.column("kind"), kind))
        total += pc.sum(chosen).as_py() or 0
    return total


def beside_prompts(prompts: Iterator[Prompt], rows: Iterator[RowT]) -> Iterator[tuple[Prompt, RowT]]:
    """Each row with its prompt. `rows` have a `prompt_id` and come in the order of the prompts.

    Raises: StageFailed: a row whose prompt does not follow; it is of another version of the prompts.
    """
    prompt = next(prompts, None)
    for row in rows:
        wanted = getattr(row, "prompt_id")  # noqa: B009 - a column of every row model that comes here
        while prompt is not None and prompt.prompt_id != wanted:
            prompt = next(prompts, None)
        if prompt is None:
            raise StageFailed(f"row {row.row_id!r}: no prompt {wanted!r} follows in the prompts of this run")
        yield prompt, row
