"""The store: immutable versions of datasets and models, each visible if and only if its manifest is there.

Parts are written first, below a path that only this attempt uses; the manifest last, by create-if-absent. So a
killed or losing attempt leaves files that nothing refers to. There is no lock and no lease, and no clock decides what
is true: clocks only tell gc how soon garbage may go. `keys.py` shows where everything stands.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from tasks.schema import DatasetRef, ModelRef
from tasks.store import fates, keys, tags
from tasks.store.backend import Backend, open_backend
from tasks.store.errors import Corrupt, InvalidName, NotCommitted, StoreError
from tasks.store.external import EXTERNAL, fetch_external, fetch_external_files
from tasks.store.fates import Tombstone
from tasks.store.identity import check_dataset, digest
from tasks.store.manifest import Derivation, Manifest, new_manifest
from tasks.store.models import SMALL_SUFFIXES, fetch_files, model_files, model_hash, read_blocks
from tasks.store.parts import put_files, read_part
from tasks.store.pins import Pins
from tasks.store.rows import RowsWriter
from tasks.store.side import SideFiles
from tasks.store.tags import Tag


class Store(SideFiles):
    """One place for datasets and models. Safe to use from several threads, processes and machines at once."""

    def __init__(self, backend: Backend, cache: Path) -> None:
        super().__init__(backend)
        self.cache = cache
        self.pins = Pins(backend)

    @classmethod
    def open(cls, uri: str, cache: Path | None = None) -> "Store":
        """A store in a folder (made if need be) or at `s3://bucket/prefix`; `cache` is for copies of models.

        Raises: StoreError: read-only, unreachable or impossible; names the address, operation and remedy.
        """
        return cls(open_backend(uri), (cache or Path(".solon/cache")).absolute())

    def __repr__(self) -> str:
        return f"Store({self.uri!r})"

    def __reduce__(self) -> tuple[Callable[..., "Store"], tuple[str, Path]]:
        return Store.open, (self.uri, self.cache)  # a file system object would carry its credentials along

    def find(self, dataset: str, version: str) -> Manifest | None:
        """The manifest, or None where this version does not exist (any more). Raises: Corrupt.

        What is found stays while it is held: hold first, then find.
        """
        return fates.read_manifest(self.backend, dataset, version, fates.settle(self.backend, dataset, version))

    def manifest(self, dataset: str, version: str) -> Manifest:
        """The manifest. Raises: NotCommitted. Corrupt."""
        found = self.find(dataset, version)
        if found is None:
            raise NotCommitted(f"store {self.uri}: {dataset} has no version {version}; run its stage")
        return found

    def datasets(self) -> list[str]:
        """The names of all datasets that have a version, sorted."""
        return [name for name in keys.dataset_names(self.backend) if fates.live_versions(self.backend, name)]

    def versions(self, dataset: str) -> list[Manifest]:
        """All manifests of a dataset, oldest first by their writers' clocks. Raises: Corrupt."""
        live = fates.live_versions(self.backend, dataset).items()
        found = [fates.read_manifest(self.backend, dataset, version, generation) for version, generation in live]
        there = [manifest for manifest in found if manifest]  # gc may take one meanwhile
        return sorted(there, key=lambda manifest: (manifest.created_at, manifest.version))

    def versions_in_work(self, dataset: str) -> list[str]:
        """Versions that are not committed but have finished chunks, sorted."""
        live = fates.live_versions(self.backend, dataset)
        return [name for name in self.backend.folders(keys.folder(dataset, "chunks")) if name not in live]

    def tombstones(self, dataset: str) -> list[Tombstone]:
        """What gc removed, oldest first. Raises: Corrupt."""
        return fates.tombstones(self.backend, dataset)

    def hold(self, dataset: str, *versions: str) -> None:
        """Keep versions, found or yet to be made, from being removed until `release` or the end of this process."""
        self.pins.hold(dataset, *versions)

    def release(self) -> None:
        """Let go of all that `hold` kept."""
        self.pins.release()

    def tag(self, dataset: str, tag: str, version: str, by: str = "") -> Tag:
        """Move a tag to a version, which gc keeps from then on. The log of its moves is never rewritten.

        Raises: InvalidName. NotCommitted: there is no such version.
        """
        tags.check_tag(tag)
        with self.pins.holding(dataset, version):
            self.manifest(dataset, version)
            entry = tags.append(self.backend, dataset, tag, version, by)
            self.manifest(dataset, version)  # again: a process that stood still for longer than gc's grace held nothing
        return entry

    def tag_after(self, dataset: str, tag: str, version: str, by: str, sequence: int) -> Tag:
        """Move a tag as `tag` does, but only as the next move after `sequence`; 0: as its first.

        Raises: InvalidName. NotCommitted. TagMoved: somebody else moved it meanwhile.
        """
        tags.check_tag(tag)
        with self.pins.holding(dataset, version):
            self.manifest(dataset, version)
            entry = tags.append_after(self.backend, dataset, tag, version, by, sequence)
            self.manifest(dataset, version)  # again, as in `tag`
        return entry

    def tags(self, dataset: str) -> dict[str, Tag]:
        """Where each tag stands, by name. Raises: Corrupt."""
        return tags.heads(self.backend, dataset)

    def tag_history(self, dataset: str, tag: str) -> list[Tag]:
        """Every move of a tag, newest first. Raises: Corrupt."""
        return tags.history(self.backend, dataset, tag)

    def resolve(self, dataset: str, name: str) -> Manifest:
        """The version that a tag, a version id or its first six digits or more name.

        Raises: InvalidName. NotCommitted: no version, or several; lists what there is.
        """
        tagged = tags.newest(self.backend, dataset, name) if tags.is_tag(name) else None
        if tagged:
            return self.manifest(dataset, tagged.version)
        return self.manifest(dataset, tags.complete(name, list(fates.live_versions(self.backend, dataset)), dataset))

    def commit_rows(
        self, derivation: Derivation, rows: pa.Table, *, metrics: Mapping[str, Any], cost: Mapping[str, float]
    ) -> DatasetRef:
        """Commit rows, in their order, as the version that `derivation` names; `row_hash` is filled in here.

        Where the version exists, or another writer is first, that one's reference is returned instead.

        Raises: StoreError: the rows lack a name, repeat a row_id or hold a value without a stable form.
        """
        with self.writer(derivation) as writer:
            writer.append(rows)
            return writer.commit(metrics=metrics, cost=cost)

    def writer(self, derivation: Derivation) -> RowsWriter:
        """For rows that come piece by piece; use it in `with`, and end with its `commit`. Raises: InvalidName."""
        if derivation.dataset.startswith("models/"):
            raise InvalidName(f"dataset {derivation.dataset!r}: a name under models/ holds models, not rows")
        return RowsWriter(self, derivation)

    def read(self, ref: DatasetRef) -> pa.Table:
        """All rows in the order they were committed; each part's sha256 and row count are checked.

        Raises: NotCommitted. Corrupt: names the part, or says that the version has other content here.
        """
        return pa.concat_tables(self.read_tables(ref))

    def read_tables(self, ref: DatasetRef, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The rows in the order they were committed, in tables of some megabytes: memory holds one part at most.

        All columns (None): each part's sha256 and row count are checked before its first row comes out. Some columns:
        only their bytes are read, and checked by the checksums of each page and of each part's footer.

        Raises: NotCommitted. Corrupt: names the part, or says that the version has other content here.
        """
        manifest = self.manifest_of(ref)
        parts = zip(self.part_keys(manifest), manifest.parts, strict=True)
        return (table for key, part in parts for table in read_part(self.backend, key, part, columns))

    def manifest_of(self, ref: DatasetRef) -> Manifest:
        """The manifest of the version that is meant. Raises: NotCommitted. Corrupt: it has other content here."""
        return self._expect(ref.dataset, ref.version, ref.content_hash)

    def part_keys(self, manifest: Manifest) -> list[str]:
        """The backend's key of each part, in order."""
        return [f"{_data_key(manifest)}/{part.path}" for part in manifest.parts]

    def part_locations(self, ref: DatasetRef) -> list[str]:
        """Where pandas, DuckDB and `datasets` find the parts: paths or s3:// addresses.

        Give them this list, not a glob: beside it may lie parts of attempts that were never committed.
        """
        return [self.backend.location(key) for key in self.part_keys(self.manifest_of(ref))]

    def commit_model(
        self, derivation: Derivation, folder: Path, *, metrics: Mapping[str, Any], cost: Mapping[str, float]
    ) -> ModelRef:
        """Commit every file below `folder` as the version that `derivation` names; a race ends as with rows.

        Raises: StoreError: a file that is not .safetensors, .json, .jinja, .txt or .model: no pickles.
        """
        if not check_dataset(derivation.dataset).startswith("models/"):
            raise InvalidName(f"dataset {derivation.dataset!r}: a model's name begins with models/")
        files = model_files(folder)
        done = self.find(derivation.dataset, derivation.version)
        if done:
            return done.model_ref()
        sources = ((name, read_blocks(path), None) for name, path in files.items())
        attempt = self.pins.begin_attempt(derivation.dataset, derivation.version)
        try:
            parts = put_files(self.backend, _data_key(derivation), attempt, sources)
            content = model_hash({part.path.partition("/")[2]: part.sha256 for part in parts})
            manifest = new_manifest(derivation, "model", content, parts, metrics, cost, rows=0)
            return self._publish(manifest, attempt).model_ref()
        finally:
            self.pins.end_attempt(attempt)

    def fetch_model(self, ref: ModelRef) -> Path:
        """A local folder with exactly the files of the model, each verified by its sha256.

        Treat it as read-only. An outside model's own folder is returned once its content is checked.

        Raises: NotCommitted. Corrupt. StoreUnavailable.
        """
        if ref.model == EXTERNAL:
            return fetch_external(ref)
        manifest = self._expect(ref.model, ref.version, ref.content_hash)
        folder = self.cache / "models" / manifest.content_hash
        return fetch_files(self.backend, _data_key(manifest), manifest.parts, folder)

    def fetch_model_files(self, ref: ModelRef, suffixes: Sequence[str] = SMALL_SUFFIXES) -> Path:
        """A local folder with those files of the model that end so, verified; by default all but its weights.

        Treat it as read-only: an outside model's own folder is returned as it is, unchecked, with all that it holds.

        Raises: NotCommitted. Corrupt. StoreUnavailable.
        """
        if ref.model == EXTERNAL:
            return fetch_external_files(ref, suffixes)
        manifest = self._expect(ref.model, ref.version, ref.content_hash)
        parts = tuple(part for part in manifest.parts if part.path.endswith(tuple(suffixes)))
        folder = self.cache / "model_files" / f"{manifest.content_hash}-{digest(sorted(suffixes))[:8]}"
        return fetch_files(self.backend, _data_key(manifest), parts, folder)

    def _publish(self, manifest: Manifest, attempt: str) -> Manifest:
        """The one act that makes a version exist. Where somebody else was first, theirs is the version.

        Raises: StoreError: this process stood still for longer than gc's grace, and gc took it for dead.
        """
        dataset, version = manifest.dataset, manifest.version
        generation = fates.settle(self.backend, dataset, version)
        fates.may_publish(self.backend, attempt, generation)
        data = manifest.model_copy(update={"generation": generation}).to_bytes()
        self.backend.put_if_absent(keys.manifest_key(dataset, version, generation), data)
        found = self.find(dataset, version)  # a late manifest may stand under a generation that was removed meanwhile
        fates.forget(self.backend, attempt)
        if found is None:
            raise StoreError(f"store {self.uri}: {dataset} {version} was removed by gc while it was made; run it again")
        return found

    def _expect(self, dataset: str, version: str, content: str) -> Manifest:
        manifest = self.manifest(dataset, version)
        if manifest.content_hash != content:
            raise Corrupt(
                f"store {self.uri}: {dataset} {version} has content {manifest.content_hash[:16]}, the reference "
                f"says {content[:16]}: it comes from another store; run the stage here"
            )
        return manifest


def _data_key(of: Manifest | Derivation) -> str:
    return keys.data_key(of.dataset, of.version)
