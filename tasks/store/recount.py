"""The rows of a version counted again, row group by row group, as its manifest should have them."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from tasks.store.errors import StoreError
from tasks.store.identity import content_hash, hash_rows
from tasks.store.manifest import Column, Manifest, count_statuses
from tasks.store.models import model_hash

_MAX_DIFFERENT = 3
"""Rows of one row group that are named when their hashes do not fit; the content hash speaks for all."""


class Sums:
    """What the parts hold together, added up part by part."""

    def __init__(self) -> None:
        self.content, self.rows, self.files = content_hash([]), 0, dict[str, str]()
        self.statuses: dict[str, int] = {}
        self.columns: set[tuple[Column, ...]] = set()

    def add(self, table: pa.Table) -> Iterator[str]:
        """Add rows; yields what is wrong with single ones."""
        try:
            hashed, content = hash_rows(table)
        except StoreError as error:
            yield str(error)
            return
        self.content = content_hash([self.content, content])  # a sum of digests: parts add up to the whole
        self.rows += table.num_rows
        self.columns.add(tuple(Column(name=f.name, type=str(f.type)) for f in table.schema))
        for status, count in count_statuses(table).items():
            self.statuses[status] = self.statuses.get(status, 0) + count
        yield from _different_rows(table, hashed)

    def differences(self, manifest: Manifest) -> Iterator[str]:
        """What the manifest says otherwise. Equal sums mean the same rows: the hash is over (row_id, row_hash)."""
        if manifest.kind == "model":
            self.content = model_hash(self.files)
        said = {"content_hash": manifest.content_hash, "rows": manifest.rows, "statuses": manifest.statuses}
        found = {"content_hash": self.content, "rows": self.rows, "statuses": self.statuses}
        for name, value in found.items():
            if value != said[name]:
                yield f"{name} of what is stored is {value}, the manifest says {said[name]}"
        if self.columns - {manifest.columns}:
            yield f"columns of what is stored are not the {[c.name for c in manifest.columns]} of the manifest"


def _different_rows(table: pa.Table, hashed: pa.Table) -> Iterator[str]:
    """The first rows whose stored hash is not that of their content."""
    if "row_hash" not in table.column_names:
        yield "the rows have no row_hash"
        return
    differs = pc.fill_null(pc.not_equal(table.column("row_hash"), hashed.column("row_hash")), True)
    for row_id in table.filter(differs).column("row_id").slice(0, _MAX_DIFFERENT).to_pylist():
        yield f"row {row_id!r} has not the content that its row_hash names"
