"""What stands beside a version: chunks and resume points while it is being made, and files for people.

Nothing derives from any of them.
"""

import pyarrow as pa

from tasks.store import keys
from tasks.store.backend import Backend
from tasks.store.checkpoint_files import CheckpointFiles
from tasks.store.errors import NotCommitted
from tasks.store.identity import check_name
from tasks.store.parts import decode_chunk, encode_chunk


class SideFiles(CheckpointFiles):
    """Chunks, resume points and blobs of one place."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.uri = backend.uri

    def chunk_get(self, dataset: str, version: str, key: str) -> pa.Table | None:
        """The rows that were kept under `key` while the version is being made; None where there are none.

        Raises: Corrupt: names the file, which may be deleted: its rows are then made again.
        """
        name = _chunk_key(dataset, version, key)
        try:
            return decode_chunk(self.backend.get(name), self.backend.location(name))
        except FileNotFoundError:
            return None

    def chunk_put(self, dataset: str, version: str, key: str, table: pa.Table) -> None:
        """Keep finished rows, so that a killed stage need not make them again. The first writer wins."""
        self.backend.put_if_absent(_chunk_key(dataset, version, key), encode_chunk(table))

    def chunk_keys(self, dataset: str, version: str) -> list[str]:
        """The keys of the chunks that were kept, sorted. gc may take one before it is read, unless it is held."""
        found = self.backend.keys(f"{keys.folder(dataset, 'chunks')}{keys.check_version(version)}/")
        return [key.rpartition("/")[2].removesuffix(".parquet") for key in found]

    def put_blob(self, dataset: str, version: str, name: str, data: bytes) -> None:
        """Keep a log or a report beside a version, for people. The last writer wins; nothing derives from it."""
        self.backend.put(keys.side_key(dataset, "blobs", version, name), [data])

    def get_blob(self, dataset: str, version: str, name: str) -> bytes:
        """The bytes of a side file. Raises: NotCommitted."""
        data = keys.get_or_none(self.backend, keys.side_key(dataset, "blobs", version, name))
        if data is None:
            raise NotCommitted(f"store {self.uri}: {dataset} {version} has no side file {name!r}")
        return data

    def blob_location(self, dataset: str, version: str, name: str) -> str:
        """The path or s3:// address of a side file."""
        return self.backend.location(keys.side_key(dataset, "blobs", version, name))


def _chunk_key(dataset: str, version: str, key: str) -> str:
    return f"{keys.folder(dataset, 'chunks')}{keys.check_version(version)}/{check_name(key, 'chunk')}.parquet"
