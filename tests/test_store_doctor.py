"""The doctor: each promise of a place, on places that keep it and on places made to break it."""

import errno
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.store import Store, StoreError
from tasks.store.doctor import Finding, examine
from tasks.store.errors import ConditionIgnored

Application = Callable[[dict[str, Any], Any], Any]


def outcomes(findings: list[Finding]) -> dict[str, str]:
    return {finding.check: finding.outcome for finding in findings}


def finding(findings: list[Finding], check: str) -> Finding:
    return next(found for found in findings if found.check == check)


def test_examine_folder_keeps_every_promise_and_is_left_empty(tmp_path: Path) -> None:
    found = examine(str(tmp_path / "store"))
    assert set(outcomes(found)) == {"writable", "create-if-absent", "race", "clock", "listing", "space"}
    assert outcomes(found) | {"space": "ok"} == dict.fromkeys(outcomes(found), "ok")
    assert [path for path in (tmp_path / "store").rglob("*") if path.name != ".tmp"] == []


def test_examine_folder_without_hard_links_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    [only] = examine(str(tmp_path))
    assert (only.check, only.outcome) == ("writable", "broken")
    assert "hard links" in only.remedy


def test_examine_folder_whose_links_overwrite_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", lambda source, target: shutil.copyfile(source, target))
    found = outcomes(examine(str(tmp_path)))
    assert (found["create-if-absent"], found["race"]) == ("broken", "broken")


def test_examine_folder_with_little_space_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.store.doctor._FREE_BYTES", 2**62)
    assert finding(examine(str(tmp_path)), "space").outcome == "warning"


@pytest.mark.parametrize(("ahead", "outcome"), [(250, "ok"), (-400, "warning"), (400, "warning"), (-1000, "broken")])
def test_examine_folder_clock_is_judged_by_its_distance(tmp_path: Path, ahead: float, outcome: str) -> None:
    assert finding(examine(str(tmp_path), clock=lambda: time.time() + ahead), "clock").outcome == outcome


@pytest.mark.parametrize(
    "uri", ["", " ", "gs://bucket/x", "s3://", "s3://B/x", "s3://bucket/../x", "s3://a:geheim@b/x"]
)
def test_examine_bad_address_is_one_finding_that_repeats_no_credential(uri: str) -> None:
    [only] = examine(uri)
    assert (only.check, only.outcome) == ("address", "broken")
    assert "geheim" not in only.detail + only.remedy


@pytest.mark.parametrize("below", ["file", "file/below", "nul\0byte"])
def test_examine_impossible_folder_is_a_finding(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("")
    [only] = examine(str(tmp_path / below))
    assert (only.check, only.outcome) == ("writable", "broken")


def test_examine_s3_keeps_its_promises_and_leaves_no_probe(s3_uri: str) -> None:
    found = examine(s3_uri)
    kept = ("transport", "bucket", "versioning", "create-if-absent", "race", "listing", "delete")
    assert {check: outcomes(found)[check] for check in kept} == dict.fromkeys(kept, "ok")
    assert outcomes(found)["checksum"] == "warning"  # moto takes a damaged upload
    store = Store.open(s3_uri)
    assert [key for key in store.backend.keys("probe/") if "create-if-absent" not in key] == []
    assert outcomes(examine(s3_uri)) == outcomes(found) | {"reachable": "ok", "credentials": "ok", "clock": "ok"}


def test_examine_s3_dead_endpoint_is_not_reachable(s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://user:geheim@127.0.0.1:9")
    found = examine(s3_uri)
    assert outcomes(found) == {"transport": "ok", "reachable": "broken"}
    assert "geheim" not in repr(found)


def test_examine_s3_endpoint_that_is_no_address_is_a_finding(s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "geheim")
    found = examine(s3_uri)
    assert outcomes(found)["reachable"] == "broken"
    assert "geheim" not in repr(found)


def test_examine_s3_without_credentials_says_so(s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    found = finding(examine(s3_uri), "credentials")
    assert found.outcome == "broken"
    assert "AWS_ACCESS_KEY_ID" in found.remedy


class Server:
    """Moto behind a front that breaks promises: `front(environ)` may change a request, or answer it."""

    def __init__(self) -> None:
        from moto.server import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import WSGIRequestHandler, make_server

        class Handler(WSGIRequestHandler):
            def date_time_string(handler, timestamp: float | None = None) -> str:
                return self.date or super().date_time_string(timestamp)

        self.application: Application = DomainDispatcherApplication(create_backend_app)
        self.front: Callable[[dict[str, Any]], tuple[str, bytes] | None] = lambda environ: None
        self.date: str | None = None
        self.server = make_server("127.0.0.1", 0, self, threaded=True, request_handler=Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        answer = self.front(environ)
        if answer is None:
            return self.application(environ, start_response)
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        start_response(answer[0], [("Content-Type", "application/xml"), ("Content-Length", str(len(answer[1])))])
        return [answer[1]]

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def server(s3_environment: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    server = Server()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server.server_port}")
    yield server
    server.stop()


@pytest.fixture
def uri(server: Server) -> str:
    """A store address in a bucket that is there."""
    from tasks.store.s3_connection import open_probe_client

    bucket = f"solon-{uuid.uuid4().hex[:12]}"
    open_probe_client().create_bucket(Bucket=bucket)
    return f"s3://{bucket}/lab"


def refusal(status: str, code: str) -> tuple[str, bytes]:
    return status, f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>".encode()


def ignore_condition(environ: dict[str, Any]) -> None:
    environ.pop("HTTP_IF_NONE_MATCH", None)


def test_examine_s3_that_ignores_the_condition_is_broken_as_opening_it_says(server: Server, uri: str) -> None:
    server.front = ignore_condition
    found = examine(uri)
    assert finding(found, "create-if-absent").outcome == "broken"
    assert finding(found, "create-if-absent").detail == ConditionIgnored.WHAT
    assert finding(found, "race").outcome == "broken"
    with pytest.raises(StoreError, match=ConditionIgnored.WHAT):
        Store.open(uri)


def test_examine_s3_versioned_bucket_that_ignores_the_condition_names_the_versioning(server: Server, uri: str) -> None:
    from tasks.store.s3_connection import open_probe_client

    bucket = uri.split("/")[2]
    open_probe_client().put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    assert outcomes(examine(uri))["create-if-absent"] == "ok"  # as AWS does
    assert "Versions" not in open_probe_client().list_object_versions(Bucket=bucket)  # not even below a marker
    server.front = ignore_condition
    found = finding(examine(uri), "create-if-absent")
    assert found.outcome == "broken"
    assert "versioning" in found.detail
    assert "suspend" in found.remedy


def test_examine_s3_that_does_not_know_the_condition_is_broken(server: Server, uri: str) -> None:
    server.front = lambda environ: (
        refusal("501 Not Implemented", "NotImplemented") if "HTTP_IF_NONE_MATCH" in environ else None
    )
    assert outcomes(examine(uri))["create-if-absent"] == "broken"


def test_examine_s3_that_lets_two_racers_win_is_broken(server: Server, uri: str) -> None:
    """It refuses a second writer who comes later, which a probe without a race would believe."""

    def front(environ: dict[str, Any]) -> None:
        if environ["PATH_INFO"].endswith("/race"):
            ignore_condition(environ)

    server.front = front
    found = outcomes(examine(uri))
    assert (found["create-if-absent"], found["race"]) == ("ok", "broken")


@pytest.mark.parametrize("code", ["InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"])
def test_examine_s3_wrong_credentials_are_explained_and_not_repeated(server: Server, uri: str, code: str) -> None:
    server.front = lambda environ: refusal("403 Forbidden", code)
    found = examine(uri)
    assert outcomes(found)["credentials"] == "broken"
    assert "condition" not in repr(found)
    assert not any(secret in repr(found) for secret in ("solon-test-key", "solon-test-secret"))


def test_examine_s3_skewed_request_is_a_broken_clock_not_a_wrong_key(server: Server, uri: str) -> None:
    server.front = lambda environ: refusal("403 Forbidden", "RequestTimeTooSkewed")
    assert {"clock": "broken"}.items() <= outcomes(examine(uri)).items()
    assert "credentials" not in outcomes(examine(uri))


@pytest.mark.parametrize(("ahead", "outcome"), [(250, "ok"), (-400, "warning"), (1000, "broken")])
def test_examine_s3_clock_is_compared_with_the_date_of_the_answer(
    server: Server, uri: str, ahead: float, outcome: str
) -> None:
    server.date = "Mon, 01 Jan 2024 00:00:00 GMT"
    assert outcomes(examine(uri, clock=lambda: 1704067200.0 + ahead))["clock"] == outcome


def test_examine_s3_missing_bucket_elsewhere_is_broken(
    server: Server, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("doctor", "doctor_s3"):
        monkeypatch.setattr(f"tasks.store.{module}.is_loopback", lambda address: False)
    found = outcomes(examine(f"s3://solon-{uuid.uuid4().hex[:12]}"))
    assert (found["bucket"], found["transport"]) == ("broken", "warning")


def test_examine_s3_credentials_that_may_not_delete_are_a_warning_that_names_what_stays(
    server: Server, uri: str
) -> None:
    server.front = lambda environ: (
        refusal("403 Forbidden", "AccessDenied") if environ["REQUEST_METHOD"] == "DELETE" else None
    )
    found = examine(uri)
    assert (outcomes(found)["delete"], outcomes(found)["clean-up"]) == ("warning", "warning")
    assert f"{uri}/probe/" in finding(found, "clean-up").detail


def test_examine_s3_read_only_credentials_are_broken(server: Server, uri: str) -> None:
    server.front = lambda environ: (
        refusal("403 Forbidden", "AccessDenied") if environ["REQUEST_METHOD"] == "PUT" else None
    )
    assert outcomes(examine(uri))["create-if-absent"] == "broken"


def test_examine_s3_that_refuses_a_damaged_upload_is_ok(server: Server, uri: str) -> None:
    server.front = lambda environ: (
        refusal("400 Bad Request", "BadDigest") if environ["PATH_INFO"].endswith("/damaged") else None
    )
    assert outcomes(examine(uri))["checksum"] == "ok"


def test_examine_s3_stale_listing_is_broken(server: Server, uri: str) -> None:
    empty = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
    server.front = lambda environ: ("200 OK", empty) if "listed" in environ["QUERY_STRING"] else None
    assert outcomes(examine(uri))["listing"] == "broken"
