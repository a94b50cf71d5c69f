"""The files of a version: parts and chunks of tables as plain parquet, files of models as they are."""

import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.store.backend import Backend
from tasks.store.errors import Corrupt
from tasks.store.identity import digest
from tasks.store.manifest import Part
from tasks.store.part_file import UNSEALED, PartFile, sealed

PART_BYTES = 32 * 2**20
"""A part is closed when its file is this large: small enough for one request, large enough to be few."""

EncodedFile = tuple[str, Iterable[bytes], int | None]
"""File name, blocks, rows (None for a file of a model)."""

_GROUP_BYTES = 8 * 2**20
_MAX_GROUP_ROWS = 100_000
_DIGEST = b"solon.digest"


class PartsEncoder:
    """Turns tables of one schema, one after the other, into parts. Holds one row group and one part at most."""

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema.remove_metadata()
        self.num_parts = 0
        self._waiting: list[pa.Table] = []
        self._waiting_bytes = 0
        self._open_part()

    def add(self, table: pa.Table) -> Iterator[EncodedFile]:
        """The parts that are full with these rows; to be used up before the next call."""
        self._waiting.append(table.replace_schema_metadata(None))
        self._waiting_bytes += table.nbytes
        if self._waiting_bytes >= _GROUP_BYTES:
            waiting, group_rows = self._taken()
            whole_groups = waiting.num_rows // group_rows * group_rows
            yield from self._encode(waiting.slice(0, whole_groups), group_rows)
            rest = waiting.slice(whole_groups)
            self._waiting, self._waiting_bytes = [rest], rest.nbytes

    def finish(self) -> Iterator[EncodedFile]:
        """What is left. No rows at all are one part, so that their schema is kept."""
        yield from self._encode(*self._taken())
        if self._rows or not self.num_parts:
            yield self._close_part()

    def _taken(self) -> tuple[pa.Table, int]:
        """All that waits, and how many of such rows make a row group."""
        table = pa.concat_tables(self._waiting) if self._waiting else self.schema.empty_table()
        rows = _GROUP_BYTES * table.num_rows // max(1, self._waiting_bytes)
        self._waiting, self._waiting_bytes = [], 0
        return table, max(1, min(_MAX_GROUP_ROWS, rows))

    def _encode(self, table: pa.Table, group_rows: int) -> Iterator[EncodedFile]:
        for start in range(0, table.num_rows, group_rows):
            group = table.slice(start, group_rows)
            self._writer.write_table(group, row_group_size=group_rows)
            self._rows += group.num_rows
            if self._buffer.tell() >= PART_BYTES:
                yield self._close_part()

    def _open_part(self) -> None:
        self._buffer, self._rows = io.BytesIO(), 0
        self._writer = pq.ParquetWriter(
            self._buffer,
            self.schema,
            compression="zstd",
            write_page_checksum=True,
            write_statistics=["row_id"],  # the least and greatest of long texts would swell the footer
        )

    def _close_part(self) -> EncodedFile:
        self._writer.add_key_value_metadata(UNSEALED)
        self._writer.close()
        done = f"part-{self.num_parts:05d}.parquet", [sealed(self._buffer.getvalue())], self._rows
        self.num_parts += 1
        self._open_part()
        return done


def put_files(backend: Backend, base: str, attempt: str, files: Iterable[EncodedFile]) -> tuple[Part, ...]:
    """Write files below a path of this attempt's own, where a retry or a rival never meets them."""
    return tuple(put_file(backend, base, attempt, file) for file in files)


def put_file(backend: Backend, base: str, attempt: str, file: EncodedFile) -> Part:
    """Write one file of an attempt."""
    (name, blocks, rows), sha256, size = file, hashlib.sha256(), 0

    def counted() -> Iterator[bytes]:
        nonlocal size
        for block in blocks:
            sha256.update(block)
            size += len(block)
            yield block

    path = f"{attempt}/{name}"
    backend.put(f"{base}/{path}", counted())
    return Part(path=path, sha256=sha256.hexdigest(), bytes=size, rows=rows)


def read_part(backend: Backend, key: str, part: Part, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The rows of a part, a row group at a time.

    All columns (None): the whole file is fetched and its sha256 checked before a row comes out. Some columns: only
    the footer and their pages are fetched, each with its own checksum.

    Raises: PartMissing. PartTruncated. PartDamaged: each names the file.
    """
    file = PartFile.whole(backend, key, part) if columns is None else PartFile.ranged(backend, key, part)
    yield from file.tables(columns)


def encode_chunk(table: pa.Table) -> bytes:
    """A chunk as one parquet file that carries the digest of its rows: no manifest vouches for it."""
    signed = table.replace_schema_metadata({_DIGEST: digest(table.to_pylist())})
    buffer = io.BytesIO()
    pq.write_table(signed, buffer, compression="zstd", write_page_checksum=True)
    return buffer.getvalue()


def decode_chunk(data: bytes, where: str) -> pa.Table:
    """Raises: Corrupt: the rows are not those that were written."""
    remedy = "delete this file; its rows are then made again"
    try:
        table = _read(data, where)
        claimed = (table.schema.metadata or {}).get(_DIGEST, b"").decode()
        intact = claimed == digest(table.to_pylist())
    except (ValueError, TypeError) as error:
        raise Corrupt(f"{where}: not a readable chunk ({error}); {remedy}") from None
    if not intact:
        raise Corrupt(f"{where}: the rows are not those that were written; {remedy}")
    return table.replace_schema_metadata(None)


def _read(data: bytes, where: str) -> pa.Table:
    try:
        return pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True).read(use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise Corrupt(f"{where}: not readable as parquet ({error})") from None
