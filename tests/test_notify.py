"""The flow `notify` with a real receiver on loopback, and with none."""

import json
import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_SERVER_DATABASE_CONNECTION_URL

from flows import notify as module
from flows.notify import ADDRESS, MAX_CHARACTERS, Notice, NotifyFailed, notify, send
from tasks.processes import free_port

SECRET = "hook-9f3a7c51e0b2"

pytestmark = pytest.mark.usefixtures("prefect_home")


class Receiver(HTTPServer):
    """Keeps what it is sent; answers each request with the next of `answers`, and with 200 after the last."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.answers: list[int] = []
        self.received: list[tuple[str, str, str]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/{SECRET}"

    def texts(self) -> list[str]:
        return [json.loads(body)["text"] for _, _, body in self.received]


class Answer(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.received.append((self.path, self.headers["Content-Type"], body))
        self.send_response(self.server.answers.pop(0) if self.server.answers else 200)
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """A test's output is no place for it."""


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv(ADDRESS, server.address)
    monkeypatch.setattr(module, "post", module.post.with_options(retry_delay_seconds=0))
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def failed_run() -> FlowRun:
    """A run of another flow that ended badly."""

    @flow(name="unlucky")
    def unlucky() -> None:
        raise ValueError("out of luck")

    run = unlucky(return_state=True).state_details.flow_run_id
    assert run is not None
    return read_run(run)


def notice_of(run: FlowRun, message: str = "out of luck") -> Notice:
    return Notice(name=run.name, state="Failed", message=message, run_id=run.id, url="http://127.0.0.1/runs/1")


def read_run(run_id: uuid.UUID) -> FlowRun:
    with get_client(sync_client=True) as client:
        return client.read_flow_run(run_id)


def everything_prefect_knows(run: FlowRun, home: Path) -> bytes:
    """Prefect's database, where runs, states, parameters, logs, artifacts and events are, and the run as it is read."""
    APILogWorker.drain_all(timeout=10)
    database = Path(PREFECT_SERVER_DATABASE_CONNECTION_URL.value().removeprefix("sqlite+aiosqlite:///"))
    places = [path for folder in (database.parent, home) for path in folder.rglob("*") if path.is_file()]
    files = b"".join(path.read_bytes() for path in places)
    assert str(run.name).encode() in files  # it is the place to look
    return files + read_run(run.id).model_dump_json().encode()


def run_of(notice: Notice) -> FlowRun:
    """The run of `notify` that was told the notice."""
    run = notify(notice, return_state=True).state_details.flow_run_id
    assert run is not None
    return read_run(run)


def test_notify_posts_name_state_message_and_address_of_the_run(receiver: Receiver, failed_run: FlowRun) -> None:
    assert run_of(notice_of(failed_run)).state_name == "Completed"
    assert receiver.texts() == [f"{failed_run.name}: Failed\nout of luck\nhttp://127.0.0.1/runs/1"]
    assert receiver.received[0][:2] == (f"/{SECRET}", "application/json")


def test_notify_message_is_bounded(receiver: Receiver, failed_run: FlowRun) -> None:
    notify(notice_of(failed_run, "x" * 100_000))
    assert len(receiver.texts()[0]) < MAX_CHARACTERS + 200


def test_notify_tries_a_failed_post_again(receiver: Receiver, failed_run: FlowRun) -> None:
    receiver.answers = [503, 503, 200]
    assert run_of(notice_of(failed_run)).state_name == "Completed"
    assert len(receiver.received) == 3


def test_notify_that_cannot_reach_anybody_fails_and_shows_no_address(
    receiver: Receiver, failed_run: FlowRun, prefect_home: Path
) -> None:
    receiver.answers = [500] * 10
    run = run_of(notice_of(failed_run, "planted-and-shown-4c1d"))
    assert run.state is not None and run.state.is_failed() and "the server answered 500" in str(run.state.message)
    assert len(receiver.received) == 4
    known = everything_prefect_knows(run, prefect_home)
    assert b"planted-and-shown-4c1d" in known and SECRET.encode() not in known


def test_notify_about_a_notification_posts_nothing(
    receiver: Receiver, failed_run: FlowRun, capsys: pytest.CaptureFixture[str]
) -> None:
    receiver.answers = [500] * 10
    own = run_of(notice_of(failed_run))
    assert own.state_name == "Failed"
    receiver.received.clear()
    assert run_of(notice_of(own)).state_name == "Completed"
    assert receiver.received == []


def test_notify_about_a_run_that_was_deleted_is_posted(receiver: Receiver, failed_run: FlowRun) -> None:
    with get_client(sync_client=True) as client:
        client.delete_flow_run(failed_run.id)
    notify(notice_of(failed_run))
    assert len(receiver.received) == 1


def test_notify_without_an_address_keeps_the_notice_as_an_artifact(
    failed_run: FlowRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ADDRESS, raising=False)
    run = run_of(notice_of(failed_run, "# no heading\n<script>"))
    with get_client(sync_client=True) as client:
        found = [a for a in client.read_artifacts(limit=200) if a.flow_run_id == run.id]
    lines = str(found[0].data).splitlines()
    assert len(found) == 1 and "    # no heading" in lines and all(line.startswith("    ") for line in lines)


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        (f"file:///{SECRET}", "http://"),
        (SECRET, "http://"),
        (f"http://127.0.0.1:port/{SECRET}", "InvalidURL"),
        (f"http://[{SECRET}", "ValueError"),
        (f"http://127.0.0.1/{SECRET} with a space", "InvalidURL"),
    ],
)
def test_send_bad_address_is_an_error_that_names_the_variable_only(address: str, problem: str) -> None:
    with pytest.raises(NotifyFailed, match=f"{ADDRESS}.*{problem}") as error:
        send(address, "text")
    assert SECRET not in str(error.value)


def test_send_to_nobody_says_why(receiver: Receiver) -> None:
    with pytest.raises(NotifyFailed, match="ConnectionRefusedError"):
        send(f"http://127.0.0.1:{free_port()}/{SECRET}", "text")


def test_send_follows_no_redirect(receiver: Receiver) -> None:
    receiver.answers = [302]
    with pytest.raises(NotifyFailed, match="302"):
        send(receiver.address, "text")
