"""The store: immutable versions of datasets and models, each visible if and only if its manifest exists.

Parts are written first, below a path that only this attempt uses; the manifest last, by create-if-absent. So a
killed or losing attempt leaves files that nothing refers to, and there is no lock, lease or clock.

    v1/datasets/<dataset>/data/<version>/<attempt>/part-00000.parquet
    v1/datasets/<dataset>/versions/<version>.json          the commit
    v1/datasets/<dataset>/chunks/<version>/<key>.parquet   resume points
    v1/datasets/<dataset>/blobs/<version>/<name>           logs and reports, for people
"""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from tasks.schema import DatasetRef, ModelRef
from tasks.store.backend import Backend, open_backend
from tasks.store.errors import Corrupt, InvalidName, NotCommitted
from tasks.store.external import EXTERNAL, fetch_external
from tasks.store.identity import check_dataset, check_name, hash_rows
from tasks.store.manifest import Derivation, Manifest, Part, new_manifest, parse_manifest
from tasks.store.models import fetch_files, model_files, model_hash, read_blocks
from tasks.store.parts import decode_chunk, decode_part, encode_chunk, encode_parts, put_files

_ROOT = "v1/datasets"


class Store:
    """One place for datasets and models. Safe to use from several threads, processes and machines at once."""

    def __init__(self, backend: Backend, cache: Path) -> None:
        self.backend = backend
        self.cache = cache
        self.uri = backend.uri

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
        """The manifest, or None where this version was never committed. Raises: Corrupt."""
        key = _manifest_key(dataset, version)
        try:
            data = self.backend.get(key)
        except FileNotFoundError:
            return None
        return parse_manifest(data, dataset, version, self.backend.location(key))

    def manifest(self, dataset: str, version: str) -> Manifest:
        """The manifest. Raises: NotCommitted. Corrupt."""
        found = self.find(dataset, version)
        if found is None:
            raise NotCommitted(f"store {self.uri}: {dataset} has no version {version}; run its stage")
        return found

    def datasets(self) -> list[str]:
        """The names of all datasets that have a version, sorted."""
        names = [name for name in self.backend.folders(f"{_ROOT}/") if name != "models"]
        names += [f"models/{name}" for name in self.backend.folders(f"{_ROOT}/models/")]
        return sorted(name for name in names if self.backend.keys(f"{_ROOT}/{name}/versions/"))

    def versions(self, dataset: str) -> list[Manifest]:
        """All manifests of a dataset, oldest first by their writers' clocks. Raises: Corrupt."""
        keys = self.backend.keys(f"{_ROOT}/{check_dataset(dataset)}/versions/")
        found = [self.manifest(dataset, Path(key).stem) for key in keys]
        return sorted(found, key=lambda manifest: (manifest.created_at, manifest.version))

    def commit_rows(
        self, derivation: Derivation, rows: pa.Table, *, metrics: Mapping[str, Any], cost: Mapping[str, float]
    ) -> DatasetRef:
        """Commit rows, in their order, as the version that `derivation` names; `row_hash` is filled in here.

        Where the version exists, or another writer is first, that one's reference is returned instead.

        Raises: StoreError: the rows lack a name, repeat a row_id or hold a value without a stable form.
        """
        if derivation.dataset.startswith("models/"):
            raise InvalidName(f"dataset {derivation.dataset!r}: a name under models/ holds models, not rows")
        done = self.find(derivation.dataset, derivation.version)
        if done:
            return done.dataset_ref()
        table, content = hash_rows(rows)
        parts = put_files(self.backend, _data_key(derivation), encode_parts(table))
        manifest = new_manifest(derivation, "rows", content, parts, table, metrics, cost)
        return self._publish(manifest).dataset_ref()

    def read(self, ref: DatasetRef) -> pa.Table:
        """All rows in the order they were committed; each part's sha256 and row count are checked.

        Raises: NotCommitted. Corrupt: names the part, or says that the version has other content here.
        """
        manifest = self._expect(ref.dataset, ref.version, ref.content_hash)
        return pa.concat_tables([self._read_part(manifest, part) for part in manifest.parts])

    def part_locations(self, ref: DatasetRef) -> list[str]:
        """Where pandas, DuckDB and `datasets` find the parts: paths or s3:// addresses.

        Give them this list, not a glob: beside it may lie parts of attempts that were never committed.
        """
        manifest = self._expect(ref.dataset, ref.version, ref.content_hash)
        return [self.backend.location(f"{_data_key(manifest)}/{part.path}") for part in manifest.parts]

    def commit_model(
        self, derivation: Derivation, folder: Path, *, metrics: Mapping[str, Any], cost: Mapping[str, float]
    ) -> ModelRef:
        """Commit every file below `folder` as the version that `derivation` names; a race ends as with rows.

        Raises: StoreError: a file that is not .safetensors, .json, .jinja, .txt or .model: no pickles.
        """
        if not derivation.dataset.startswith("models/"):
            raise InvalidName(f"dataset {derivation.dataset!r}: a model's name begins with models/")
        done = self.find(derivation.dataset, derivation.version)
        if done:
            return done.model_ref()
        files = model_files(folder)
        sources = ((name, read_blocks(path), None) for name, path in files.items())
        parts = put_files(self.backend, _data_key(derivation), sources)
        content = model_hash({part.path.partition("/")[2]: part.sha256 for part in parts})
        manifest = new_manifest(derivation, "model", content, parts, None, metrics, cost)
        return self._publish(manifest).model_ref()

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

    def chunk_get(self, dataset: str, version: str, key: str) -> pa.Table | None:
        """The rows that were kept under `key` while the version is being made; None where there are none.

        Raises: Corrupt: names the file, which may be deleted: its rows are then made again.
        """
        name = _side_key(dataset, "chunks", version, f"{check_name(key, 'chunk')}.parquet")
        try:
            return decode_chunk(self.backend.get(name), self.backend.location(name))
        except FileNotFoundError:
            return None

    def chunk_put(self, dataset: str, version: str, key: str, table: pa.Table) -> None:
        """Keep finished rows, so that a killed stage need not make them again. The first writer wins."""
        name = _side_key(dataset, "chunks", version, f"{check_name(key, 'chunk')}.parquet")
        self.backend.put_if_absent(name, encode_chunk(table))

    def put_blob(self, dataset: str, version: str, name: str, data: bytes) -> None:
        """Keep a log or a report beside a version, for people. The last writer wins; nothing derives from it."""
        self.backend.put(_side_key(dataset, "blobs", version, check_name(name, "blob")), [data])

    def get_blob(self, dataset: str, version: str, name: str) -> bytes:
        """The bytes of a side file. Raises: NotCommitted."""
        key = _side_key(dataset, "blobs", version, check_name(name, "blob"))
        try:
            return self.backend.get(key)
        except FileNotFoundError:
            raise NotCommitted(f"store {self.uri}: {dataset} {version} has no side file {name!r}") from None

    def blob_location(self, dataset: str, version: str, name: str) -> str:
        """The path or s3:// address of a side file."""
        return self.backend.location(_side_key(dataset, "blobs", version, check_name(name, "blob")))

    def _publish(self, manifest: Manifest) -> Manifest:
        """The one act that makes a version exist. Where somebody else was first, theirs is the version."""
        if self.backend.put_if_absent(_manifest_key(manifest.dataset, manifest.version), manifest.to_bytes()):
            return manifest
        return self.manifest(manifest.dataset, manifest.version)

    def _expect(self, dataset: str, version: str, content: str) -> Manifest:
        manifest = self.manifest(dataset, version)
        if manifest.content_hash != content:
            raise Corrupt(
                f"store {self.uri}: {dataset} {version} has content {manifest.content_hash[:16]}, the reference "
                f"says {content[:16]}: it comes from another store; run the stage here"
            )
        return manifest

    def _read_part(self, manifest: Manifest, part: Part) -> pa.Table:
        key = f"{_data_key(manifest)}/{part.path}"
        where = self.backend.location(key)
        for _ in range(2):  # once more, in case the transfer and not the file was damaged
            try:
                data = self.backend.get(key)
            except FileNotFoundError:
                raise Corrupt(f"{where}: the part is missing though the manifest lists it") from None
            if hashlib.sha256(data).hexdigest() == part.sha256:
                return decode_part(data, part, where)
        raise Corrupt(f"{where}: its {len(data)} bytes are not the {part.bytes} of the manifest (sha256)")


def _manifest_key(dataset: str, version: str) -> str:
    return f"{_ROOT}/{check_dataset(dataset)}/versions/{check_name(version, 'version')}.json"


def _side_key(dataset: str, kind: str, version: str, name: str) -> str:
    return f"{_ROOT}/{check_dataset(dataset)}/{kind}/{check_name(version, 'version')}/{name}"


def _data_key(of: Manifest | Derivation) -> str:
    return f"{_ROOT}/{check_dataset(of.dataset)}/data/{check_name(of.version, 'version')}"
