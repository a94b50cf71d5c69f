"""What the store needs of a place that keeps bytes: the one interface of a local folder and of S3."""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

from tasks.store.errors import StoreError

BLOCK_BYTES = 64 * 2**20
"""Files move in blocks of this size, so that a model of many gigabytes needs no more memory."""

TEMPORARY = ".tmp/"
"""Where a folder keeps files that are not whole yet; a killed writer leaves some. No listing of `v1/` shows them."""

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")


class Entry(NamedTuple):
    """One key of a listing."""

    key: str
    size: int
    """Bytes."""
    modified: float
    """Seconds since 1970 by the place's own clock."""


class Backend(Protocol):
    """Bytes by key. Keys are `/`-separated names that the store has checked.

    Every method raises StoreUnavailable where the place refuses, fails or does not answer.
    """

    uri: str
    """The place, without credentials."""

    def get(self, key: str) -> bytes:
        """Raises: FileNotFoundError: there is no such key."""

    def stream(self, key: str, size: int) -> Iterator[bytes]:
        """The `size` bytes of a key in blocks. Raises: FileNotFoundError."""

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Up to `length` bytes from `start` on, fewer at the key's end. Raises: FileNotFoundError."""

    def put(self, key: str, blocks: Iterable[bytes]) -> None:
        """Write a key that nobody else writes; visible only when whole.

        All blocks but the last are of BLOCK_BYTES.
        """

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Create a key atomically. False: it exists with other bytes. True: it holds exactly `data`."""

    def keys(self, prefix: str) -> list[str]:
        """All keys below a prefix that ends in `/`, sorted."""

    def entries(self, prefix: str) -> list[Entry]:
        """All keys below a prefix that ends in `/`, sorted, with sizes and times. What was there before is in it."""

    def folders(self, prefix: str) -> list[str]:
        """The names of the folders directly below a prefix that ends in `/`, sorted."""

    def delete(self, key: str) -> None:
        """Remove a key. No error where there is none."""

    def now(self) -> float:
        """The time on the clock that `Entry.modified` is told by, from a file that is written for it."""

    def location(self, key: str) -> str:
        """Where other programs find the key: a path or an `s3://` address."""


def open_backend(uri: str) -> Backend:
    """The backend of a folder path or `s3://bucket/prefix`, checked to be there and writable.

    Raises: StoreError.
    """
    if not uri.strip():
        raise StoreError("store: the address is empty; expected a folder or s3://bucket/prefix")
    scheme, separator, rest = uri.partition("://")
    if not separator:
        from tasks.store.folder import FolderBackend

        return FolderBackend.open(uri)
    if scheme != "s3":
        raise StoreError(f"store {scheme}://...: expected a folder or s3://bucket/prefix")
    from tasks.store.s3 import S3Backend

    return S3Backend.open(*split_s3(rest))


def split_s3(rest: str) -> tuple[str, str]:
    bucket, _, prefix = rest.partition("/")
    prefix = prefix.strip("/")
    if "@" in bucket:  # the message must not repeat what stands there
        raise StoreError(
            "store s3://: an address must not hold credentials; put them in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if not _BUCKET.fullmatch(bucket) or (prefix and not _PREFIX.fullmatch(prefix)) or ".." in rest:
        raise StoreError(f"store {'s3://' + rest!r:.140}: expected s3://bucket/prefix of A-Z a-z 0-9 . _ -")
    return bucket, prefix
