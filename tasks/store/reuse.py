"""Which earlier row has this reuse key? Every key of every version with the same recipe, at 16 bytes a key.

Rows stay where they are until they are asked for; then their whole row group is read, since neighbours are asked for
together.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.store.errors import PartMissing, RowsDiffer
from tasks.store.identity import row_hashes
from tasks.store.manifest import Manifest, Part
from tasks.store.parts import PartFile
from tasks.store.rows import name_hashes
from tasks.store.store import Store

CACHE_BYTES = 128 * 2**20
"""Decoded row groups that are kept at hand."""

REUSABLE = ("ok", "refused", "skipped")
"""Statuses that would come out the same again; the others are worth another try."""

Found = dict[str, tuple[str, dict[str, Any]]]
"""Reuse key -> where the row came from (`<version>` or `chunks/<version>`) and its column values."""


class ReuseIndex:
    """Finds rows by reuse key. Of several rows with one key it knows the first, so every run takes the same.

    For one thread at a time. Memory: 16 bytes a key, CACHE_BYTES of rows, and what was asked for.
    """

    def __init__(self, store: Store, schema: pa.Schema) -> None:
        self.store = store
        self.columns = _columns_of(schema)
        self._groups: list[_RowGroup | _Chunk] = []
        self._hashes = np.empty(0, np.int64)
        self._places = np.empty(0, _PLACE)
        self._tables: OrderedDict[int, pa.Table] = OrderedDict()
        self._table_bytes = 0

    @classmethod
    def build(cls, store: Store, dataset: str, recipe: str, schema: pa.Schema) -> "ReuseIndex":
        """Every version whose rows were made by this recipe, oldest first, then the chunks of versions in work.

        Only keys and statuses are read. What it cites is held in the store first, so that gc leaves it alone until
        `store.release()`. Versions with other columns than `schema` are passed over.

        Raises: Corrupt: a manifest, part or chunk is damaged. StoreUnavailable.
        """
        index = cls(store, schema)
        in_work = store.versions_in_work(dataset)  # before the versions: one committed meanwhile is among those
        for manifest in _held_versions(store, dataset, recipe):
            if {(column.name, column.type) for column in manifest.columns} == index.columns:
                index._add(_version_rows(store, manifest))
        index._add(_chunk_rows(store, dataset, recipe, in_work, index.columns))
        return index

    @property
    def num_keys(self) -> int:
        """Different keys that it knows."""
        return len(self._hashes)

    def find(self, keys: Sequence[str]) -> Found:
        """The rows there are; a key that is missing has none. Ask for neighbours together.

        Raises: RowsDiffer: a row is not what its `row_hash` names. Corrupt. StoreUnavailable.
        """
        found: Found = {}
        for number, wanted in self._by_group(keys).items():
            group, table = self._groups[number], self._table(number)
            rows = table.take(pa.array([row for row, _ in wanted]))
            group.check(self.store, rows)
            for (_, key), values in zip(wanted, rows.to_pylist(), strict=True):
                if values["reuse_key"] == key:  # the index knows only its hash
                    found[key] = group.source, values
        return found

    def _by_group(self, keys: Sequence[str]) -> dict[int, list[tuple[int, str]]]:
        """Row group -> rows in it and the keys they should have."""
        at, known = self._known(np.fromiter(map(hash, keys), np.int64, len(keys)))
        groups: dict[int, list[tuple[int, str]]] = defaultdict(list)
        for position in np.flatnonzero(known).tolist():
            group, row = self._places[at[position]].tolist()
            groups[group].append((row, keys[position]))
        return groups

    def _table(self, number: int) -> pa.Table:
        """A decoded row group; the ones used longest ago make room for it."""
        if number not in self._tables:
            self._tables[number] = self._groups[number].read(self.store)
            self._table_bytes += self._tables[number].nbytes
            while self._table_bytes > CACHE_BYTES and len(self._tables) > 1:
                self._table_bytes -= self._tables.popitem(last=False)[1].nbytes
        self._tables.move_to_end(number)
        return self._tables[number]

    def _known(self, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each hash its place in the index, and whether it is there."""
        if not self.num_keys:
            return np.zeros(len(hashes), np.int64), np.zeros(len(hashes), bool)
        at = np.minimum(np.searchsorted(self._hashes, hashes), self.num_keys - 1)
        return at, self._hashes[at] == hashes

    def _add(self, groups: Iterator[tuple["_RowGroup | _Chunk", pa.Table]]) -> None:
        """Take in the keys that are new.

        A key whose 64-bit hash another key has already is left out, and so made again: of 10**6 keys that happens to
        one pair in 10**7 runs.
        """
        hashes, places = [self._hashes], [self._places]
        for group, table in groups:
            names = name_hashes(table.column("reuse_key"))
            good = pc.is_in(table.column("status"), value_set=pa.array(REUSABLE)).to_numpy()
            rows = np.flatnonzero(good & ~self._known(names)[1])
            place = np.empty(len(rows), _PLACE)
            place["group"], place["row"] = len(self._groups), rows
            hashes.append(names[rows])
            places.append(place)
            self._groups.append(group)
        self._hashes, first = np.unique(np.concatenate(hashes), return_index=True)
        self._places = np.concatenate(places)[first]


_PLACE = np.dtype([("group", np.uint32), ("row", np.uint32)])


class _RowGroup(NamedTuple):
    """A row group of a committed part."""

    source: str
    key: str
    part: Part
    number: int

    def read(self, store: Store) -> pa.Table:
        return PartFile.ranged(store.backend, self.key, self.part).read(self.number)

    def check(self, store: Store, rows: pa.Table) -> None:
        """Only these rows' bytes were read, so the file's sha256 says nothing: each row's own hash must."""
        for row_id, stored, actual in zip(*(rows.column(n).to_pylist() for n in _NAMES), row_hashes(rows), strict=True):
            if stored != actual:
                raise RowsDiffer(
                    f"{store.backend.location(self.key)}: row {row_id!r} has not the content that its row_hash names; "
                    "see `./solon datasets verify`"
                )


class _Chunk(NamedTuple):
    """A resume point of a version in work; it carries the digest of its rows, which reading it checks."""

    source: str
    dataset: str
    version: str
    key: str

    def read(self, store: Store) -> pa.Table:
        table = store.chunk_get(self.dataset, self.version, self.key)
        if table is None:
            raise PartMissing(f"store {store.uri}: {self.dataset} chunk {self.version}/{self.key} is gone; run again")
        return table

    def check(self, store: Store, rows: pa.Table) -> None:
        return None


_NAMES = ("row_id", "row_hash")


def _held_versions(store: Store, dataset: str, recipe: str) -> list[Manifest]:
    """Versions of this recipe, oldest first, held: first pinned, then looked for, since gc may be at work."""
    versions = [manifest.version for manifest in store.versions(dataset) if manifest.reuse == recipe]
    store.hold(dataset, *versions)
    found = (store.find(dataset, version) for version in versions)
    return [manifest for manifest in found if manifest]


def _version_rows(store: Store, manifest: Manifest) -> Iterator[tuple[_RowGroup, pa.Table]]:
    """Each row group with the keys and statuses of its rows."""
    for key, part in zip(store.part_keys(manifest), manifest.parts, strict=True):
        file = PartFile.ranged(store.backend, key, part)
        for number in range(file.num_groups):
            yield _RowGroup(manifest.version, key, part, number), file.read(number, ["reuse_key", "status"])


def _chunk_rows(
    store: Store, dataset: str, recipe: str, versions: Sequence[str], columns: set[tuple[str, str]]
) -> Iterator[tuple[_Chunk, pa.Table]]:
    """Each chunk of this recipe with its rows, held like the versions."""
    prefix = f"{recipe[:12]}-"
    own = [v for v in versions if any(key.startswith(prefix) for key in store.chunk_keys(dataset, v))]
    store.hold(dataset, *own)
    for version in own:
        for key in store.chunk_keys(dataset, version):
            table = store.chunk_get(dataset, version, key) if key.startswith(prefix) else None
            if table is not None and _columns_of(table.schema) == columns:
                yield _Chunk(f"chunks/{version}", dataset, version, key), table


def _columns_of(schema: pa.Schema) -> set[tuple[str, str]]:
    """Names and types, as a manifest has them: list items, `item` in memory, are `element` in parquet."""
    return {(field.name, str(field.type).replace("<element: ", "<item: ")) for field in schema}
