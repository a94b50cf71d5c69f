"""What only an object server can do wrong, and what the store then does."""

import os
import pickle
import socket
import time
import urllib.request
from pathlib import Path

import pytest

from tasks.store import Store, StoreError, StoreUnavailable
from tests.servers.proxy import NextCreates, fault_proxy
from tests.small_versions import commit, completions

VERSION = "0" * 32


def test_s3_credentials_are_in_no_manifest_representation_or_pickle(s3_uri: str, tmp_path: Path) -> None:
    store = Store.open(s3_uri, cache=tmp_path)
    ref = commit(store, completions(["a"]))
    written = b"".join(store.backend.get(key) for key in store.backend.keys("v1/"))
    seen = written + repr(store).encode() + pickle.dumps(store) + repr(vars(store)).encode()
    assert b"solon-test-secret" not in seen and b"solon-test-key" not in seen
    assert pickle.loads(pickle.dumps(store)).read(ref).num_rows == 1  # noqa: S301


def test_s3_large_files_go_up_and_come_down_in_blocks(object_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = Store.open(object_uri).backend
    blocks = [os.urandom(6_000_000), os.urandom(1_000_000)]
    backend.put("v1/large", blocks)
    monkeypatch.setattr("tasks.store.s3.BLOCK_BYTES", 2_000_000)
    assert [len(block) for block in backend.stream("v1/large", 7_000_000)] == [2_000_000] * 3 + [1_000_000]
    assert b"".join(backend.stream("v1/large", 7_000_000)) == b"".join(blocks)


def test_s3_listings_of_several_pages_are_whole(s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "4")
    backend = Store.open(s3_uri).backend
    for number in range(10):
        backend.put(f"v1/many/{number}/x", [b""])
    assert backend.keys("v1/many/") == [f"v1/many/{number}/x" for number in range(10)]
    assert backend.folders("v1/many/") == [str(number) for number in range(10)]


def test_s3_missing_bucket_elsewhere_than_on_loopback_is_an_error(
    s3_uri: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 0.0.0.0 reaches the same server and is not a loopback address
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint.replace("127.0.0.1", "0.0.0.0"))
    with pytest.raises(StoreUnavailable, match=r"(?s)solon-.*NoSuchBucket.*create it"):
        Store.open(s3_uri)


def test_s3_dead_endpoint_is_an_error_within_seconds(s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://user:hidden@127.0.0.1:{port}")
    started = time.monotonic()
    with pytest.raises(StoreUnavailable, match=f"127.0.0.1:{port}.*AWS_ENDPOINT_URL") as error:
        Store.open(s3_uri)
    assert time.monotonic() - started < 5
    assert "hidden" not in str(error.value) and error.value.is_transient


def test_s3_endpoint_that_is_no_address_is_an_error(s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "not an address")
    with pytest.raises(StoreError, match="AWS_ENDPOINT_URL"):
        Store.open(s3_uri)


def test_s3_no_credentials_is_an_error(s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StoreUnavailable, match="AWS_ACCESS_KEY_ID"):
        Store.open(s3_uri)


def test_s3_wrong_secret_is_an_error(radosgw_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    with pytest.raises(StoreUnavailable, match=r"SignatureDoesNotMatch.*credentials are wrong") as error:
        Store.open(radosgw_uri)
    assert "not-the-secret" not in str(error.value) and not error.value.is_transient


def test_s3_wrong_credentials_are_an_error(s3_uri: str, s3_endpoint: str) -> None:
    Store.open(s3_uri)
    check_credentials(s3_endpoint, b"0")
    try:
        with pytest.raises(StoreUnavailable, match=r"InvalidAccessKeyId.*credentials are wrong"):
            Store.open(s3_uri)
    finally:
        check_credentials(s3_endpoint, b"inf")


def check_credentials(endpoint: str, after_requests: bytes) -> None:
    headers = {"Content-Type": "text/plain"}
    request = urllib.request.Request(f"{endpoint}/moto-api/reset-auth", after_requests, headers, method="POST")
    urllib.request.urlopen(request, timeout=10).close()


@pytest.mark.parametrize(
    "uri", ["s3://", "s3://Bad_Bucket/x", "s3://bucket/../x", "s3://bucket/a?versionId=1", "gs://bucket/x", " "]
)
def test_open_address_that_is_none_is_an_error(uri: str) -> None:
    with pytest.raises(StoreError, match="store"):
        Store.open(uri)


def test_open_address_with_credentials_is_refused_without_repeating_them() -> None:
    with pytest.raises(StoreError, match="AWS_SECRET_ACCESS_KEY") as error:
        Store.open("s3://key:hidden@bucket/x")
    assert "hidden" not in str(error.value)


@pytest.mark.parametrize("kind", ["409", "429", "503", "500", "reset", "answer lost", "upload cut"])
def test_s3_commit_through_transient_failures_succeeds_once(
    object_uri: str, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    plan = NextCreates(kind)
    with fault_proxy(os.environ["AWS_ENDPOINT_URL"], plan) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        store = Store.open(object_uri)
        plan.left = 2
        ref = commit(store, completions(["mine"]))
        assert store.read(ref).column("completion").to_pylist() == ["mine"]
    assert proxy.injected == {kind: 2}


def test_s3_failure_that_is_not_transient_is_an_error_at_once(
    s3_uri: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = NextCreates("403")
    with fault_proxy(s3_endpoint, plan) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        store = Store.open(s3_uri)
        plan.left = 1
        with pytest.raises(StoreUnavailable, match="HTTP 403"):
            commit(store, completions(["mine"]))


def test_s3_server_that_ignores_the_condition_is_refused(
    s3_uri: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fault_proxy(s3_endpoint, NextCreates("condition ignored", left=100)) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        with pytest.raises(StoreError, match="ignores If-None-Match"):
            Store.open(s3_uri)


def test_s3_server_that_dies_is_an_error_that_names_it(
    s3_uri: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.store.s3.RETRY_SECONDS", 0.0)
    with fault_proxy(s3_endpoint, lambda request: None) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        store = Store.open(s3_uri)
    with pytest.raises(StoreUnavailable, match="no answer from"):
        store.find("completions", VERSION)
