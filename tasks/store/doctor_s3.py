"""The promises of a bucket, each tried out with one request that is not sent again, and judged by its answer."""

import email.utils
import itertools
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from tasks.store.doctor import Finding, broken, judge_clock, judge_race, ok, race
from tasks.store.errors import ConditionIgnored, StoreError
from tasks.store.s3 import md5
from tasks.store.s3_connection import answer_of, endpoint, explain, is_loopback, is_request_failure, open_probe_client

_CREDENTIAL_CODES = (
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
    "NoCredentialsError",
    "PartialCredentialsError",
)
_CONFLICT_TRIES = 5


def examine_bucket(bucket: str, prefix: str, clock: Callable[[], float]) -> list[Finding]:
    """The promises of `s3://bucket/prefix`; the first that makes the others pointless ends the list."""
    try:
        patient = _Patient(open_probe_client(), bucket, f"{prefix}/" if prefix else "", clock)
    except StoreError as error:
        return [broken("reachable", error)]
    findings = list(patient.admission())
    if any(finding.outcome == "broken" for finding in findings):
        return findings
    try:
        for check in patient.checks():
            findings.append(patient.tried(*check))
    finally:
        findings += patient.clean_up()
    return findings


class _Patient:
    """A bucket under examination."""

    def __init__(self, client: Any, bucket: str, root: str, clock: Callable[[], float]) -> None:
        self.client, self.bucket, self.root, self.clock = client, bucket, root, clock
        self.uri = f"s3://{bucket}/{root}".rstrip("/")
        self.prefix = f"{root}probe/{uuid.uuid4().hex}/"
        self.versioning: str | None = None
        """`Enabled`, `Suspended` or `Disabled`; None where the server does not say."""

    def admission(self) -> Iterator[Finding]:
        """Reachable, credentials, bucket and clock, from the answer to one listing."""
        started = self.clock()
        try:
            answer = self._list(self.root, 1)
        except Exception as error:  # botocore raises many types: what is not a request's failure goes on
            if not is_request_failure(error):
                raise
            yield from self._refused(error, started)
            return
        yield ok("reachable", f"{self.uri} answers")
        yield ok("credentials", "accepted, as far as this server checks them")
        yield ok("bucket", f"{self.bucket} is there and may be listed")
        yield from _clock_of(answer["ResponseMetadata"], (started + self.clock()) / 2)

    def _refused(self, error: Exception, started: float) -> Iterator[Finding]:
        code, status = answer_of(error)
        name = code or type(error).__name__
        if name in _CREDENTIAL_CODES:
            yield self._failed("credentials", error)
        elif status is None:
            yield self._failed("reachable", error)
        elif name == "NoSuchBucket" and is_loopback(endpoint()):
            yield from self._bucket_made()
        elif name == "NoSuchBucket":
            yield self._failed("bucket", error)
        elif name != "RequestTimeTooSkewed":
            yield self._failed("access", error)
        judged = list(_clock_of(getattr(error, "response", {}).get("ResponseMetadata", {}), started))
        if name == "RequestTimeTooSkewed" and not any(clock.outcome == "broken" for clock in judged):
            judged = [self._failed("clock", error)]  # the server's word counts
        yield from judged

    def _bucket_made(self) -> Iterator[Finding]:
        """As opening a store does on a test server."""
        try:
            self.client.create_bucket(Bucket=self.bucket)
        except Exception as error:
            if not is_request_failure(error):
                raise
            yield self._failed("bucket", error)
        else:
            yield ok("bucket", f"{self.bucket} was not there; made, as on any loopback endpoint")

    def checks(self) -> Iterator[tuple[str, Callable[[], Finding]]]:
        """Every further check by name. The versioning state comes first: it explains a condition that is ignored."""
        yield "versioning", self.versioning_state
        yield "create-if-absent", self.condition
        yield "race", self.race
        yield "listing", self.listing
        yield "checksum", self.checksum
        yield "delete", self.deletion

    def tried(self, name: str, check: Callable[[], Finding]) -> Finding:
        """What the check found, or how the server failed in it."""
        try:
            return check()
        except Exception as error:
            if not is_request_failure(error):
                raise
            return self._failed(name, error)

    def versioning_state(self) -> Finding:
        try:
            answer = self.client.get_bucket_versioning(Bucket=self.bucket)
        except Exception as error:
            if answer_of(error)[1] is None:
                raise
            detail = f"the server does not say whether the bucket is versioned ({explain(error)})"
            return Finding(check="versioning", outcome="warning", detail=detail, remedy="allow GetBucketVersioning")
        self.versioning = answer.get("Status") or "Disabled"
        detail = f"bucket versioning is {self.versioning.lower()}"
        if self.versioning == "Enabled":
            detail += ": what gc deletes stays stored, and paid for, until a lifecycle rule removes old versions"
        return ok("versioning", detail)

    def condition(self) -> Finding:
        """Twice the same key: the second must be refused, with the bucket as it is."""
        key = f"{self.prefix}condition"
        try:
            answers = [self._create(key, data) for data in (b"1", b"2")]
        except Exception as error:
            if answer_of(error)[1] != 501:
                raise
            detail = "the server does not know If-None-Match"
            return Finding(check="create-if-absent", outcome="broken", detail=detail, remedy=ConditionIgnored.REMEDY)
        if answers == [True, False] and self._get(key) == b"1":
            return ok("create-if-absent", "a second writer is refused")
        detail = ConditionIgnored.WHAT if answers[0] else "creating a new key is refused as if it existed"
        remedy = ConditionIgnored.REMEDY
        if self.versioning == "Enabled":
            detail += " (bucket versioning is enabled, with which some servers do so)"
            remedy = f"suspend the bucket's versioning and examine it again, or {remedy}"
        return Finding(check="create-if-absent", outcome="broken", detail=detail, remedy=remedy)

    def race(self) -> Finding:
        key = f"{self.prefix}race"
        winners = race(lambda data: self._create(key, data))
        return judge_race(winners, self._get(key), ConditionIgnored.REMEDY)

    def listing(self) -> Finding:
        key = f"{self.prefix}listed"
        self._put(key, b"1")
        shown = [entry["Key"] for entry in self._list(key, 1).get("Contents", [])]
        if shown == [key] and self._get(key) == b"1":
            return ok("listing", "a listing shows what was just written")
        remedy = "use a server with strong read-after-write consistency"
        detail = "a listing does not show what was just written"
        return Finding(check="listing", outcome="broken", detail=detail, remedy=remedy)

    def checksum(self) -> Finding:
        """An upload whose bytes are not those that its Content-MD5 names."""
        try:
            self._put(f"{self.prefix}damaged", b"damaged", ContentMD5=md5(b"whole"))
        except Exception as error:
            if (answer_of(error)[1] or 0) // 100 != 4:
                raise
            return ok("checksum", "a damaged upload is refused (Content-MD5)")
        remedy = "run `datasets verify` now and then: damage is found when a version is read, not when it is written"
        detail = "the server takes a damaged upload (it does not check Content-MD5)"
        return Finding(check="checksum", outcome="warning", detail=detail, remedy=remedy)

    def deletion(self) -> Finding:
        key = f"{self.prefix}condition"
        try:
            self.client.delete_object(Bucket=self.bucket, Key=key)
        except Exception as error:
            if answer_of(error)[1] is None:
                raise
            detail = f"objects may not be deleted ({explain(error)})"
            return Finding(
                check="delete", outcome="warning", detail=detail, remedy="only gc needs to; run gc elsewhere"
            )
        if self._list(key, 1).get("Contents"):
            remedy = "use a server with strong consistency"
            detail = "a listing still shows what was just deleted"
            return Finding(check="delete", outcome="broken", detail=detail, remedy=remedy)
        return ok("delete", "objects may be deleted, and are then gone from listings")

    def clean_up(self) -> list[Finding]:
        """Remove every probe; what stays is named."""
        try:
            for probe in self._probes():
                self.client.delete_object(Bucket=self.bucket, **probe)
        except Exception as error:
            if not is_request_failure(error):
                raise
            detail = f"probes stay behind below {self.uri}/{self.prefix[len(self.root) :]} ({explain(error)})"
            remedy = "delete them with other credentials"
            return [Finding(check="clean-up", outcome="warning", detail=detail, remedy=remedy)]
        return []

    def _probes(self) -> list[dict[str, str]]:
        """What to delete; in a bucket that has been versioned each version, or it would stay below a marker."""
        if self.versioning in (None, "Disabled"):
            return [{"Key": entry["Key"]} for entry in self._list(self.prefix, 1000).get("Contents", [])]
        listed = self.client.list_object_versions(Bucket=self.bucket, Prefix=self.prefix)
        found = [*listed.get("Versions", []), *listed.get("DeleteMarkers", [])]
        return [{"Key": entry["Key"], "VersionId": entry["VersionId"]} for entry in found]

    def _failed(self, check: str, error: Exception) -> Finding:
        detail, _, remedy = explain(error).partition(": ")
        return Finding(check=check, outcome="broken", detail=f"{self.uri}: {detail}", remedy=remedy)

    def _create(self, key: str, data: bytes) -> bool:
        """Create-if-absent: whether the server says that it was done. 409 means that two met: ask again."""
        for attempt in itertools.count(1):
            try:
                self._put(key, data, IfNoneMatch="*", ContentMD5=md5(data))
            except Exception as error:
                status = answer_of(error)[1]
                if status == 412:
                    return False
                if status != 409 or attempt == _CONFLICT_TRIES:
                    raise
                time.sleep(0.05 * attempt)
            else:
                return True
        raise AssertionError("unreachable")

    def _put(self, key: str, data: bytes, **arguments: str) -> None:
        self.client.put_object(Bucket=self.bucket, Key=key, Body=data, **arguments)

    def _get(self, key: str) -> bytes:
        data: bytes = self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        return data

    def _list(self, prefix: str, limit: int) -> dict[str, Any]:
        found: dict[str, Any] = self.client.list_objects_v2(Bucket=self.bucket, Prefix=prefix, MaxKeys=limit)
        return found


def _clock_of(metadata: dict[str, Any], now: float) -> Iterator[Finding]:
    """The server's clock by the Date of its answer, in whole seconds; nothing where it sends none."""
    date = metadata.get("HTTPHeaders", {}).get("date")
    if date:
        parsed: datetime = email.utils.parsedate_to_datetime(date)
        yield judge_clock(now - parsed.timestamp(), "the server's")
