"""The files of a version: parts and chunks of tables as plain parquet, files of models as they are."""

import hashlib
import io
import uuid
from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.store.backend import Backend
from tasks.store.errors import Corrupt
from tasks.store.identity import digest
from tasks.store.manifest import Part

PART_BYTES = 32 * 2**20
"""A part is closed when its file is this large: small enough for one request, large enough to be few."""

EncodedFile = tuple[str, Iterable[bytes], int | None]
"""File name, blocks, rows (None for a file of a model)."""

_GROUP_BYTES = 8 * 2**20
_MAX_GROUP_ROWS = 100_000
_DIGEST = b"solon.digest"


def encode_parts(table: pa.Table) -> Iterator[EncodedFile]:
    """The table's parts, in order; an empty table is one part, so that its schema is kept."""
    table = table.replace_schema_metadata(None)
    group_rows = max(1, min(_MAX_GROUP_ROWS, _GROUP_BYTES * table.num_rows // max(1, table.nbytes)))
    start, number = 0, 0
    while start < table.num_rows or number == 0:
        data, rows = _encode_part(table, start, group_rows)
        yield f"part-{number:05d}.parquet", [data], rows
        start, number = start + rows, number + 1


def _encode_part(table: pa.Table, start: int, group_rows: int) -> tuple[bytes, int]:
    """One part from row `start` on, row groups until the file is large enough; and its row count."""
    buffer, rows = io.BytesIO(), 0
    with pq.ParquetWriter(buffer, table.schema, compression="zstd", write_page_checksum=True) as writer:
        while start + rows < table.num_rows and buffer.tell() < PART_BYTES:
            group = table.slice(start + rows, group_rows)
            writer.write_table(group, row_group_size=group_rows)
            rows += group.num_rows
    return buffer.getvalue(), rows


def put_files(backend: Backend, base: str, files: Iterable[EncodedFile]) -> tuple[Part, ...]:
    """Write files below a path of this attempt's own, where a retry or a rival never meets them."""
    attempt = uuid.uuid4().hex
    return tuple(_put_file(backend, base, f"{attempt}/{name}", blocks, rows) for name, blocks, rows in files)


def _put_file(backend: Backend, base: str, path: str, blocks: Iterable[bytes], rows: int | None) -> Part:
    sha256, size = hashlib.sha256(), 0

    def counted() -> Iterator[bytes]:
        nonlocal size
        for block in blocks:
            sha256.update(block)
            size += len(block)
            yield block

    backend.put(f"{base}/{path}", counted())
    return Part(path=path, sha256=sha256.hexdigest(), bytes=size, rows=rows)


def decode_part(data: bytes, part: Part, where: str) -> pa.Table:
    """The rows of a part whose sha256 was checked. Raises: Corrupt."""
    table = _read(data, where)
    if table.num_rows != part.rows:
        raise Corrupt(f"{where}: {table.num_rows} rows, the manifest says {part.rows}")
    return table


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
        return pq.read_table(io.BytesIO(data), page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise Corrupt(f"{where}: not readable as parquet ({error})") from None
