"""S3 as a store, through s3fs. What happened is judged by the HTTP status of the answer.

Never by exception type: s3fs makes different ones of the same answer on different servers. Its own retries and its
listing cache are off; every request goes through `_request` below.
"""

import base64
import hashlib
import itertools
import random
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from tasks.store.backend import BLOCK_BYTES, Entry
from tasks.store.errors import ConditionIgnored, StoreUnavailable
from tasks.store.s3_connection import (
    answer_of,
    download,
    endpoint,
    explain,
    is_loopback,
    is_request_failure,
    is_transient,
    open_file_system,
    open_probe_client,
)

T = TypeVar("T")

RETRY_SECONDS = 60.0
"""No request is sent again after this long."""

_PROBE = "probe/create-if-absent"
_CLOCK = "probe/clock"


class S3Backend:
    """Keys are objects below a bucket and prefix."""

    def __init__(self, bucket: str, prefix: str) -> None:
        self.bucket = bucket
        self.root = f"{prefix}/" if prefix else ""
        self.uri = f"s3://{bucket}/{prefix}".rstrip("/")
        self._files = open_file_system()

    @classmethod
    def open(cls, bucket: str, prefix: str) -> "S3Backend":
        """Prove within seconds that the bucket is there, is writable and honours create-if-absent.

        A missing bucket is made on a loopback endpoint (a test server, where a typing error costs nothing)
        and is an error anywhere else.

        Raises: StoreError: names the address, the operation and the remedy.
        """
        backend = cls(bucket, prefix)
        backend._check_bucket()
        first, second = (backend.put_if_absent(_PROBE, data) for data in (b"1", b"2"))
        if first and second:
            raise ConditionIgnored(backend.uri)
        return backend

    def get(self, key: str) -> bytes:
        return self._read(key)

    def stream(self, key: str, size: int) -> Iterator[bytes]:
        for start in range(0, size, BLOCK_BYTES):
            yield self._read(key, Range=f"bytes={start}-{min(start + BLOCK_BYTES, size) - 1}")

    def get_range(self, key: str, start: int, length: int) -> bytes:
        return self._read(key, Range=f"bytes={start}-{start + length - 1}")

    def put(self, key: str, blocks: Iterable[bytes]) -> None:
        iterator = iter(blocks)
        first, second = next(iterator, b""), next(iterator, None)
        if second is None:
            self._call("put_object", key, Body=first, ContentMD5=md5(first))
        else:
            self._put_multipart(key, itertools.chain([first, second], iterator))

    def put_if_absent(self, key: str, data: bytes) -> bool:
        try:
            self._call("put_object", key, Body=data, ContentMD5=md5(data), IfNoneMatch="*")
        except StoreUnavailable as error:
            if error.status != 412:
                raise
            return self._holds(key, data)  # our own request may have been stored and its answer lost
        return True

    def _holds(self, key: str, data: bytes) -> bool:
        """Whether a key holds exactly this; not, where it was deleted meanwhile."""
        try:
            return self.get(key) == data
        except FileNotFoundError:
            return False

    def keys(self, prefix: str) -> list[str]:
        return [entry.key for entry in self.entries(prefix)]

    def entries(self, prefix: str) -> list[Entry]:
        pages = self._list(Prefix=self.root + prefix)
        found = [item for page in pages for item in page.get("Contents", [])]
        cut = len(self.root)
        return sorted(Entry(item["Key"][cut:], item["Size"], item["LastModified"].timestamp()) for item in found)

    def folders(self, prefix: str) -> list[str]:
        pages = self._list(Prefix=self.root + prefix, Delimiter="/")
        found = [entry["Prefix"] for page in pages for entry in page.get("CommonPrefixes", [])]
        return sorted(folder[len(self.root + prefix) : -1] for folder in found)

    def delete(self, key: str) -> None:
        self._call("delete_object", key)

    def now(self) -> float:
        self.put(_CLOCK, [b""])
        answer = self._call("head_object", _CLOCK)
        return float(answer["LastModified"].timestamp())

    def location(self, key: str) -> str:
        return f"s3://{self.bucket}/{self.root}{key}"

    def _read(self, key: str, **arguments: str) -> bytes:
        address = {"Bucket": self.bucket, "Key": self.root + key}
        try:
            return self._request(f"read {key}", lambda: download(self._files, **address, **arguments))
        except StoreUnavailable as error:
            if error.status == 404:
                raise FileNotFoundError(self.location(key)) from None
            raise

    def _put_multipart(self, key: str, blocks: Iterable[bytes]) -> None:
        upload = self._call("create_multipart_upload", key)["UploadId"]
        done = []
        try:
            for number, block in enumerate(blocks, 1):
                part = {"UploadId": upload, "PartNumber": number, "Body": block, "ContentMD5": md5(block)}
                done.append({"PartNumber": number, "ETag": self._call("upload_part", key, **part)["ETag"]})
            self._call("complete_multipart_upload", key, UploadId=upload, MultipartUpload={"Parts": done})
        except BaseException:  # an upload that is not aborted stays stored, and paid for, unseen
            self._call("abort_multipart_upload", key, UploadId=upload)
            raise

    def _list(self, **arguments: str) -> Iterator[dict[str, Any]]:
        while True:
            page = self._call("list_objects_v2", None, **arguments)
            yield page
            if not page.get("IsTruncated"):
                return
            arguments["ContinuationToken"] = page["NextContinuationToken"]

    def _call(self, method: str, key: str | None, **arguments: Any) -> dict[str, Any]:
        address = {"Bucket": self.bucket} | ({"Key": self.root + key} if key else {})
        operation = f"{method.replace('_', ' ')} {key or arguments.get('Prefix')}"
        return self._request(operation, lambda: self._files.call_s3(method, **address, **arguments))

    def _request(self, operation: str, send: Callable[[], T]) -> T:
        """The answer; a transient failure is tried again after a growing random pause."""
        deadline = time.monotonic() + RETRY_SECONDS
        for attempt in itertools.count():
            try:
                return send()
            except Exception as error:  # many types for one answer: is_transient looks at the answer
                if not is_transient(error) or time.monotonic() > deadline:
                    raise self._named(operation, error) from error
            time.sleep(random.uniform(0, min(5.0, 0.1 * 2**attempt)))
        raise AssertionError("unreachable")

    def _named(self, operation: str, error: Exception) -> Exception:
        """The error for the user; one that no server or network made stays itself."""
        if not is_request_failure(error):
            return error
        message = f"store {self.uri}: cannot {operation}: {explain(error)}"
        return StoreUnavailable(message, answer_of(error)[1], is_transient(error))

    def _check_bucket(self) -> None:
        """One request without retries, so that a dead endpoint or a wrong key is an error at once."""
        client = open_probe_client()
        try:
            client.list_objects_v2(Bucket=self.bucket, Prefix=self.root, MaxKeys=1)
        except Exception as error:
            if answer_of(error)[0] != "NoSuchBucket" or not is_loopback(endpoint()):
                raise self._named("open it", error) from error
            self._create_bucket(client)

    def _create_bucket(self, client: Any) -> None:
        try:
            client.create_bucket(Bucket=self.bucket)
        except Exception as error:
            if answer_of(error)[0] not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):  # somebody else did
                raise self._named("create its bucket", error) from error


def md5(data: bytes) -> str:
    """Content-MD5: the one checksum of an upload that every server checks (Ceph Pacific ignores newer ones)."""
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
