"""A committed part, read: whole with its sha256, or only some row groups and columns of it.

Parquet has a checksum for each page but none for the footer, which says where the pages are. So the footer of a part
carries its own: a flipped bit there would else show another column's values.
"""

import hashlib
import io
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.store.backend import Backend
from tasks.store.errors import PartDamaged, PartMissing, PartTruncated, StoreError, StoreUnavailable
from tasks.store.manifest import Part

_SEAL, _NO_DIGEST = "solon.footer", "0" * 64
UNSEALED = {_SEAL: _NO_DIGEST}
"""Metadata of a parquet file that `sealed` completes."""

_END_BYTES = 8
"""What follows the footer: its length and the magic `PAR1`."""
_FIRST_READ_BYTES = 64 * 2**10
_RANGE_NOT_SATISFIABLE = 416


def sealed(data: bytes) -> bytes:
    """A parquet file with UNSEALED metadata, in which the digest of its footer takes the zeros' place."""
    start = len(data) - _END_BYTES - int.from_bytes(data[-_END_BYTES:-4], "little")
    footer = data[start:-_END_BYTES]
    at = start + _digest_place(footer)
    seal = hashlib.sha256(footer).hexdigest().encode()
    return b"".join([memoryview(data)[:at], seal, memoryview(data)[at + len(seal) :]])


def _digest_place(footer: bytes) -> int:
    """Where in the footer its digest stands; -1 in a part that was written before footers had one."""
    at = footer.rfind(_SEAL.encode())
    return at if at < 0 else at + len(_SEAL) + 2  # between them two bytes say that a text of 64 bytes follows


def _footer_is_intact(footer: bytes) -> bool:
    at = _digest_place(footer)
    if at < 0:
        return True
    without = footer[:at] + _NO_DIGEST.encode() + footer[at + len(_NO_DIGEST) :]
    return footer[at : at + len(_NO_DIGEST)] == hashlib.sha256(without).hexdigest().encode()


class PartFile:
    """A part opened for some of its row groups or columns: only their bytes are read, with their checksums.

    Raises: PartMissing. PartTruncated. PartDamaged: it is not parquet, or of another number of rows.
    """

    def __init__(self, source: "pa.BufferReader | _RangedFile", end: pa.BufferReader, part: Part, where: str) -> None:
        """`end` holds at least the footer and what follows it, checked."""
        self.where = where
        self._source = source
        try:
            self._metadata = pq.read_metadata(end)
            self._file = pq.ParquetFile(source, metadata=self._metadata, page_checksum_verification=True)
        except (pa.ArrowException, OSError) as error:
            raise PartDamaged(f"{where}: not readable as parquet ({error})") from None
        self.num_groups = self._metadata.num_row_groups
        if self._metadata.num_rows != part.rows:
            raise PartDamaged(f"{where}: {self._metadata.num_rows} rows, the manifest says {part.rows}")

    @classmethod
    def ranged(cls, backend: Backend, key: str, part: Part) -> "PartFile":
        """Read by ranges as they are asked for; the sha256 of the file is not checked."""
        file = _RangedFile(backend, key, part.bytes)
        return cls(file, pa.BufferReader(file.checked_end()), part, file.where)

    @classmethod
    def whole(cls, backend: Backend, key: str, part: Part) -> "PartFile":
        """Read at once, with its sha256."""
        data = _get_part(backend, key, part)
        return cls(pa.BufferReader(data), pa.BufferReader(data), part, backend.location(key))

    def read(self, group: int, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of one row group; None: all columns."""
        if columns is None and isinstance(self._source, _RangedFile):
            self._source.fetch(*_span(self._metadata.row_group(group)))  # one request instead of one a column
        try:
            # no threads: one of Arrow's that still lets go of a Python object while Python ends kills the process
            return self._select(self._file.read_row_group(group, columns, use_threads=False), columns)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise PartDamaged(f"{self.where}: not readable as parquet ({error})") from None

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Its row groups; where it has none, one table without rows, so that the schema is known."""
        for group in range(self.num_groups):
            yield self.read(group, columns)
        if not self.num_groups:
            yield self._select(self._file.schema_arrow.empty_table(), columns)

    def _select(self, table: pa.Table, columns: Sequence[str] | None) -> pa.Table:
        """In the order asked for; parquet leaves out a column that it does not know."""
        unknown = [name for name in columns or [] if name not in table.column_names]
        if unknown:
            raise StoreError(f"{self.where}: no columns {unknown}; there are {self._file.schema_arrow.names}")
        table = table if columns is None else table.select(list(columns))
        return table.replace_schema_metadata(None)


def _span(group: pq.RowGroupMetaData) -> tuple[int, int]:
    """Where a row group begins, and how long it is."""
    chunks = [group.column(number) for number in range(group.num_columns)]
    starts = [min(chunk.data_page_offset, chunk.dictionary_page_offset or chunk.data_page_offset) for chunk in chunks]
    end = max(start + chunk.total_compressed_size for start, chunk in zip(starts, chunks, strict=True))
    return min(starts), end - min(starts)


def _get_part(backend: Backend, key: str, part: Part) -> bytes:
    where = backend.location(key)
    for _ in range(2):  # once more, in case the transfer and not the file was damaged
        try:
            data = backend.get(key)
        except FileNotFoundError:
            raise PartMissing(f"{where}: the part is missing though the manifest lists it") from None
        if hashlib.sha256(data).hexdigest() == part.sha256:
            return data
    if len(data) < part.bytes:
        raise PartTruncated(f"{where}: {len(data)} bytes, the manifest says {part.bytes}")
    raise PartDamaged(f"{where}: its {len(data)} bytes are not the {part.bytes} of the manifest (sha256)")


class _RangedFile(io.RawIOBase):
    """A key of known size as a file to read from, a request a read but for what was fetched before."""

    def __init__(self, backend: Backend, key: str, size: int) -> None:
        self._backend, self._key, self._size, self._at = backend, key, size, 0
        self.where = backend.location(key)
        self._held, self._held_at = b"", 0

    def fetch(self, start: int, length: int) -> None:
        """Bring these bytes at once; reads inside them then cost no request."""
        self._held, self._held_at = self._range(start, length), start

    def checked_end(self) -> bytes:
        """The footer and what follows it. Raises: PartDamaged: the footer is not the one that was written."""
        end = self._last(_FIRST_READ_BYTES)
        length = int.from_bytes(end[-_END_BYTES:-4], "little") + _END_BYTES
        end = end if length <= len(end) else self._last(length)
        if length > len(end) or not _footer_is_intact(end[-length:-_END_BYTES]):
            raise PartDamaged(f"{self.where}: its footer is not the one that was written")
        return end[-length:]

    def _last(self, length: int) -> bytes:
        self.seek(max(0, self._size - length))
        return self.read()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._size - self._at)
        length = left if size is None or size < 0 else min(size, left)
        start = self._at - self._held_at
        if 0 <= start <= start + length <= len(self._held):
            data = self._held[start : start + length]
        else:
            data = self._range(self._at, length)
        self._at += len(data)
        return data

    def _range(self, start: int, length: int) -> bytes:
        try:
            data = self._backend.get_range(self._key, start, length) if length else b""
        except FileNotFoundError:
            raise PartMissing(f"{self.where}: the part is missing though the manifest lists it") from None
        except StoreUnavailable as error:
            if error.status != _RANGE_NOT_SATISFIABLE:
                raise
            data = b""
        if len(data) < length:
            raise PartTruncated(f"{self.where}: it ends at {start + len(data)} of the manifest's {self._size} bytes")
        return data
