"""How S3 is reached (endpoint and credentials from `AWS_*` in the environment), and what its answers mean."""

import ipaddress
import os
from typing import Any
from urllib.parse import urlsplit

from tasks.store.errors import StoreError

CHECKSUMS = "when_required"
"""Over TLS botocore would send its checksum behind a body without a length, which Ceph refuses (HTTP 411).
Without it the signature covers the body, which is as good."""
_S3_OPTIONS = {"addressing_style": "path"}
_TRANSIENT_STATUS = (408, 409, 429)  # 409: two conditional writes met on AWS; ask again
_TRANSIENT_CODES = ("RequestTimeout", "BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch")
_WRONG_CREDENTIALS = "the credentials are wrong; check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_REMEDIES = {
    "NoSuchBucket": "there is no such bucket; create it or correct the address",
    "InvalidAccessKeyId": _WRONG_CREDENTIALS,
    "SignatureDoesNotMatch": _WRONG_CREDENTIALS,
    "ExpiredToken": "the credentials have expired; renew them",
    "AccessDenied": "these credentials may not do this; ask for the permission or use others",
    "RequestTimeTooSkewed": "this machine's clock is wrong; set it",
    "NoCredentialsError": "no credentials found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "PartialCredentialsError": "half of the credentials is missing; set both AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY",
}


def endpoint() -> str | None:
    """The configured endpoint; None for AWS itself."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None


def is_loopback(address: str | None) -> bool:
    """Whether an endpoint is on this machine."""
    host = urlsplit(address or "").hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def open_file_system() -> Any:
    """The s3fs file system of one store. It retries nothing by itself: one loop above it does, with a deadline.

    (Retries of botocore, s3fs and the store would multiply: a dead server took minutes to become an error.)
    """
    import s3fs

    files = s3fs.S3FileSystem(
        skip_instance_cache=True,  # a cached one keeps the endpoint and credentials of its first use
        use_listings_cache=False,
        max_concurrency=8,
        endpoint_url=endpoint(),
        config_kwargs={
            "retries": {"total_max_attempts": 1},
            "connect_timeout": 5,
            "read_timeout": 60,
            "s3": _S3_OPTIONS,
            "request_checksum_calculation": CHECKSUMS,
        },
    )
    files.retries = 1
    return files


def open_probe_client() -> Any:
    """A client that tries once and soon gives up: to learn what is wrong before work begins.

    Raises: StoreError: the endpoint is not an address.
    """
    from botocore.config import Config
    from botocore.session import get_session

    retries = {"total_max_attempts": 1}
    config = Config(
        connect_timeout=5, read_timeout=10, retries=retries, s3=_S3_OPTIONS, request_checksum_calculation=CHECKSUMS
    )
    try:
        return get_session().create_client("s3", endpoint_url=endpoint(), config=config)
    except ValueError:  # its message repeats the address, which may hold credentials
        raise StoreError("AWS_ENDPOINT_URL is not an address; expected http(s)://host:port") from None


def download(files: Any, **arguments: str) -> bytes:
    """The body of one GetObject. Not `cat_file`: that asks for size and listing first, and reads `?` in a key."""
    from fsspec.asyn import sync

    async def read() -> bytes:
        answer = await files._call_s3("get_object", **arguments)  # the asynchronous twin of call_s3
        async with answer["Body"] as body:
            return await body.read()

    return sync(files.loop, read)


def answer_of(error: BaseException) -> tuple[str | None, int | None]:
    """Code and HTTP status of the server's answer, which s3fs keeps as the cause; None without an answer."""
    for candidate in (error, error.__cause__):
        response = getattr(candidate, "response", None)
        if isinstance(response, dict):
            metadata = response.get("ResponseMetadata", {})
            return response.get("Error", {}).get("Code"), metadata.get("HTTPStatusCode")
    return None, None


def is_transient(error: Exception) -> bool:
    """Whether the same request may succeed in a moment."""
    from aiohttp import ClientError
    from botocore.exceptions import BotoCoreError
    from botocore.parsers import ResponseParserError

    code, status = answer_of(error)
    if status is None:
        network = BotoCoreError | ClientError | ResponseParserError | ConnectionError | TimeoutError
        return isinstance(error, network) and type(error).__name__ not in _REMEDIES
    return status in _TRANSIENT_STATUS or status >= 500 or code in _TRANSIENT_CODES


def is_request_failure(error: Exception) -> bool:
    """Whether the request, not our code, failed."""
    return answer_of(error)[1] is not None or is_transient(error) or type(error).__name__ in _REMEDIES


def explain(error: Exception) -> str:
    """What happened and what to do, without a word that could be a credential."""
    code, status = answer_of(error)
    name = code or type(error).__name__
    if status is None and name not in _REMEDIES:
        return f"{name}: no answer from {_endpoint_host()}; check AWS_ENDPOINT_URL and that the server runs"
    answer = f"{name}, HTTP {status}" if status else name
    return f"{answer}: {_REMEDIES.get(name, 'try again, or look at the log of the server')}"


def _endpoint_host() -> str:
    parts = urlsplit(endpoint() or "")
    return f"{parts.hostname}:{parts.port}" if parts.hostname else "AWS"  # never what may stand before an @
