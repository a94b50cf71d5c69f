"""What differs between two versions of a dataset, row by row, joined on `row_id`.

Only names and hashes are read of all rows, and texts of the few that are compared: two versions of a million rows
take about 400 MiB, however long their texts.
"""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from tasks.schema import DatasetRef, Frozen
from tasks.store.identity import ROW_NAMES
from tasks.store.manifest import Part
from tasks.store.parts import PartFile
from tasks.store.store import Store

MAX_COMPARED = 1000
"""Changed rows whose columns are compared: all of a small change, the first ones of a large one."""


class RowDiff(Frozen):
    """One row that differs."""

    row_id: str
    columns: dict[str, tuple[str | None, str | None]]
    """Column -> its text in the old and the new version, where they differ; None: null, or no such row or column.
    What is not text is given as JSON."""


class VersionDiff(Frozen):
    """How a newer version of a dataset differs from an older one, in rows."""

    old: DatasetRef
    new: DatasetRef
    added: int
    """Rows that only the new version has."""
    removed: int
    """Rows that only the old version has."""
    changed: int
    """Rows of both whose content differs."""
    same: int
    """Rows of both with equal content."""
    num_compared: int = Field(0, ge=0)
    """Changed rows whose columns were compared: all, or the first MAX_COMPARED in the order of the new version."""
    changed_columns: dict[str, int] = Field(default_factory=dict)
    """Of these: in how many a column differs, most first."""
    examples: tuple[RowDiff, ...] = ()
    """The first changed rows, in the order of the new version."""
    added_examples: tuple[RowDiff, ...] = ()
    removed_examples: tuple[RowDiff, ...] = ()


def diff_versions(store: Store, old: DatasetRef, new: DatasetRef, num_examples: int = 5) -> VersionDiff:
    """Compare two versions of a dataset, or of two with the same kind of rows.

    Equal means an equal `row_hash`: content, not the reuse key, which says only how a row was made.

    Raises: NotCommitted. Corrupt.
    """
    before, after = _Side(store, old), _Side(store, new)
    partner = pc.index_in(after.ids, value_set=before.ids)  # its number in the old version; null: it is new
    kept, added = (_numbers(pc.indices_nonzero(where)) for where in (pc.is_valid(partner), pc.is_null(partner)))
    partners = _numbers(partner.drop_null())
    removed = np.setdiff1d(np.arange(len(before.ids)), partners, assume_unique=True)
    differs = pc.not_equal(before.hashes.take(partners), after.hashes.take(kept)).to_numpy()
    compared = _compared(before, after, partners[differs][:MAX_COMPARED], kept[differs][:MAX_COMPARED])
    counts = Counter(name for row in compared for name in row.columns)
    return VersionDiff(
        old=old,
        new=new,
        added=len(added),
        removed=len(removed),
        changed=int(differs.sum()),
        same=int((~differs).sum()),
        num_compared=len(compared),
        changed_columns=dict(counts.most_common()),
        examples=tuple(compared[:num_examples]),
        added_examples=tuple(_row_diff(dict.fromkeys(row), row) for row in after.rows(added[:num_examples])),
        removed_examples=tuple(_row_diff(row, dict.fromkeys(row)) for row in before.rows(removed[:num_examples])),
    )


class _Side:
    """One of the two versions: the names and hashes of all its rows, and where each row stands."""

    def __init__(self, store: Store, ref: DatasetRef) -> None:
        self.store = store
        manifest = store.manifest_of(ref)
        self.groups: list[tuple[str, Part, int]] = []
        self.starts: list[int] = []
        """Number of each row group's first row."""
        tables, rows = [], 0
        for key, part in zip(store.part_keys(manifest), manifest.parts, strict=True):
            file = PartFile.ranged(store.backend, key, part)
            for number in range(file.num_groups):
                tables.append(file.read(number, ["row_id", "row_hash"]))
                self.groups.append((key, part, number))
                self.starts.append(rows)
                rows += tables[-1].num_rows
        table = pa.concat_tables(tables).combine_chunks() if tables else _NO_ROWS
        self.ids, self.hashes = table.column("row_id"), table.column("row_hash")

    def rows(self, numbers: np.ndarray) -> list[dict[str, Any]]:
        """These rows as column values, in the order asked for; each row group is read once."""
        groups = np.searchsorted(self.starts, numbers, side="right") - 1
        found: dict[int, dict[str, Any]] = {}
        for group in np.unique(groups).tolist():
            key, part, number = self.groups[group]
            wanted = np.unique(numbers[groups == group])
            table = PartFile.ranged(self.store.backend, key, part).read(number)
            rows = table.take(pa.array(wanted - self.starts[group])).to_pylist()
            found.update(zip(wanted.tolist(), rows, strict=True))
        return [found[number] for number in numbers.tolist()]


_NO_ROWS = pa.table({"row_id": pa.array([], pa.string()), "row_hash": pa.array([], pa.string())})


def _compared(before: _Side, after: _Side, old: np.ndarray, new: np.ndarray) -> list[RowDiff]:
    """Pairs of rows, column by column."""
    return [_row_diff(*pair) for pair in zip(before.rows(old), after.rows(new), strict=True)]


def _row_diff(old: Mapping[str, Any], new: Mapping[str, Any]) -> RowDiff:
    names = [name for name in {**new, **old} if name not in ROW_NAMES]
    differ = [name for name in names if old.get(name, _NO_COLUMN) != new.get(name, _NO_COLUMN)]
    columns = {name: (_text(old.get(name)), _text(new.get(name))) for name in differ}
    return RowDiff(row_id=new["row_id"] or old["row_id"], columns=columns)


_NO_COLUMN = object()


def _text(value: Any) -> str | None:
    """A value for people."""
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _numbers(places: pa.ChunkedArray | pa.Array) -> np.ndarray:
    return places.to_numpy().astype(np.int64)
