"""The fault proxy does what it counts."""

import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from tests.servers.proxy import Rates, careless, fault_proxy

ANSWER = b"0123456789" * 100


class Recorder(ThreadingHTTPServer):
    """A server that remembers every request it got whole."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, bytes, bool]] = []


class Handler(BaseHTTPRequestHandler):
    server: Recorder

    def do_GET(self) -> None:
        body = self.rfile.read(length := int(self.headers.get("Content-Length") or 0))
        if len(body) == length:
            self.server.requests.append((self.command, body, "If-None-Match" in self.headers))
            self.send_response(200)
            self.send_header("Content-Length", str(len(ANSWER)))
            self.end_headers()
            self.wfile.write(ANSWER)

    do_PUT = do_GET

    def log_message(self, format: str, *args: object) -> None:
        return None


@pytest.fixture
def server() -> Iterator[Recorder]:
    with Recorder() as running:
        thread = Thread(target=running.serve_forever, args=(0.05,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def ask(endpoint: str, method: str = "PUT", target: str = "/v1/key") -> bytes | int | None:
    """The answer's body; its status where that is an error; None where the connection broke."""
    data, headers = (b"whole body", {"If-None-Match": "*"}) if method == "PUT" else (None, {})
    request = urllib.request.Request(endpoint + target, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.read()
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, HTTPException):
        return None


def url(server: Recorder) -> str:
    return f"http://127.0.0.1:{server.server_port}"


@pytest.mark.parametrize(
    ("kind", "method", "answer", "reached"),
    [
        ("503", "PUT", 503, False),
        ("reset", "PUT", None, False),
        ("answer lost", "PUT", None, True),
        ("upload cut", "PUT", None, False),
        ("download cut", "GET", None, True),
        ("download cut", "PUT", ANSWER, True),
        ("upload cut", "GET", ANSWER, True),
        ("answer lost", "GET", ANSWER, True),
    ],
)
def test_proxy_fault_strikes_what_it_can_and_is_counted(
    server: Recorder, kind: str, method: str, answer: bytes | int | None, reached: bool
) -> None:
    with fault_proxy(url(server), Rates({kind: 1.0}, seed=0)) as proxy:
        assert ask(proxy.endpoint, method) == answer
    body = b"whole body" if method == "PUT" else b""
    assert server.requests == ([(method, body, method == "PUT")] if reached else [])
    assert proxy.injected == ({kind: 1} if answer != ANSWER else {})


def test_proxy_without_faults_changes_nothing(server: Recorder) -> None:
    with fault_proxy(url(server), lambda request: None) as proxy:
        assert [ask(proxy.endpoint, "GET"), ask(proxy.endpoint, "PUT")] == [ANSWER, ANSWER]
    assert server.requests == [("GET", b"", False), ("PUT", b"whole body", True)]


def test_proxy_careless_drops_the_condition_but_for_the_probe(server: Recorder) -> None:
    with fault_proxy(url(server), careless) as proxy:
        ask(proxy.endpoint, "PUT", "/bucket/v1/key")
        ask(proxy.endpoint, "PUT", "/bucket/probe/key")
    assert [conditional for _, _, conditional in server.requests] == [False, True]


def test_proxy_same_seed_strikes_the_same_requests(server: Recorder) -> None:
    def struck(seed: int) -> list[bool]:
        with fault_proxy(url(server), Rates({"503": 0.5}, seed)) as proxy:
            return [ask(proxy.endpoint, "GET") == 503 for _ in range(20)]

    assert struck(1) == struck(1) != struck(2)
