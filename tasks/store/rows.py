"""Write a version's rows as they come: memory holds a row group, a part, and eight bytes of every row's name."""

from collections import Counter
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa

from tasks.schema import DatasetRef
from tasks.store import keys
from tasks.store.errors import StoreError
from tasks.store.identity import content_hash, hash_rows
from tasks.store.manifest import Derivation, Part, columns_of, count_statuses, new_manifest
from tasks.store.parts import EncodedFile, PartsEncoder, put_file, read_part

if TYPE_CHECKING:
    from tasks.store.store import Store


class RowsWriter:
    """Makes one version, in `with`: `append` any number of times, then `commit` once.

    Leaving without `commit` publishes nothing; what was uploaded is garbage that gc removes. Where the version is
    committed already, nothing is hashed or uploaded, and `commit` returns what there is.
    """

    def __init__(self, store: "Store", derivation: Derivation) -> None:
        self.derivation = derivation
        self.done = store.find(derivation.dataset, derivation.version)
        self.num_rows = 0
        self._store, self._base = store, keys.data_key(derivation.dataset, derivation.version)
        self._attempt = ""
        self._committed = False
        self._encoder: PartsEncoder | None = None
        self._parts: list[Part] = []
        self._content = content_hash([])
        self._statuses: Counter[str] = Counter()
        self._id_hashes: list[np.ndarray] = []

    def __enter__(self) -> Self:
        if not self.done:
            self._attempt = self._store.pins.begin_attempt(self.derivation.dataset, self.derivation.version)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._attempt:
            self._store.pins.end_attempt(self._attempt)

    def append(self, table: pa.Table) -> None:
        """Add rows behind those that are there; `row_hash` is filled in here. The first table sets the columns.

        Raises: StoreError: the rows lack a name, repeat a row_id, hold a value without a stable form, or have
        other columns than the first ones. StoreUnavailable.
        """
        assert not self._committed, "append after commit"
        if self.done:
            return
        rows, content = hash_rows(table.replace_schema_metadata(None))
        if self._encoder is None:
            self._encoder = PartsEncoder(rows.schema)
        if rows.schema != self._encoder.schema:
            raise StoreError(
                f"{self.derivation.dataset}: rows {self.num_rows} and on have other columns than those before them: "
                f"{_differences(self._encoder.schema, rows.schema)}"
            )
        self.num_rows += rows.num_rows
        self._content = content_hash([self._content, content])
        self._statuses.update(count_statuses(rows))
        self._id_hashes.append(name_hashes(rows.column("row_id")))
        self._put(self._encoder.add(rows))

    def commit(
        self,
        *,
        metrics: Mapping[str, Any],
        cost: Mapping[str, float],
        reuse: str | None = None,
        sources: Mapping[str, int] | None = None,
    ) -> DatasetRef:
        """Publish what was appended; where another writer was first, theirs is returned.

        `reuse` is the recipe digest under which later versions may take these rows; `sources` says how many of them
        were themselves taken, by where from.

        Raises: StoreError: nothing was appended (an empty table is enough), or a row_id comes twice.
        """
        if self.done:
            return self.done.dataset_ref()
        if self._encoder is None:
            raise StoreError(
                f"{self.derivation.dataset}: nothing was appended; a version without rows takes an empty table, "
                "which says what its columns are"
            )
        self._put(self._encoder.finish())
        self._check_row_ids()
        manifest = new_manifest(
            self.derivation,
            "rows",
            self._content,
            tuple(self._parts),
            metrics,
            cost,
            rows=self.num_rows,
            columns=columns_of(self._encoder.schema),
            statuses=dict(self._statuses),
            reuse=reuse,
            sources=dict(sources or {}),
        )
        self.done = self._store._publish(manifest, self._attempt)
        return self.done.dataset_ref()

    def _put(self, files: Iterable[EncodedFile]) -> None:
        assert self._attempt, "a writer works inside `with` only: its files are pinned there"
        for file in files:
            self._parts.append(put_file(self._store.backend, self._base, self._attempt, file))

    def _check_row_ids(self) -> None:
        """Names with equal hashes are looked at in the parts: they may yet differ."""
        hashes = np.sort(np.concatenate(self._id_hashes))
        repeated = hashes[1:][hashes[1:] == hashes[:-1]]
        counts: Counter[str] = Counter()
        for part in self._parts if len(repeated) else []:
            for table in read_part(self._store.backend, f"{self._base}/{part.path}", part, ["row_id"]):
                ids = table.column("row_id")
                counts.update(ids.filter(pa.array(np.isin(name_hashes(ids), repeated))).to_pylist())
        for row_id, count in counts.most_common(1):
            if count > 1:
                raise StoreError(f"row_id {row_id!r} comes {count} times; it must name one row")


def name_hashes(names: pa.ChunkedArray) -> np.ndarray:
    """Python's own hash of each name: 64 bits, good for this process only."""
    return np.fromiter(map(hash, names.to_pylist()), np.int64, len(names))


def _differences(first: pa.Schema, other: pa.Schema) -> str:
    """What stands in one schema only, for people."""
    missing, new = ([f"{f.name}: {f.type}" for f in a if f not in list(b)] for a, b in ((first, other), (other, first)))
    return f"missing {missing}, new {new}" if missing or new else "the same in another order"
