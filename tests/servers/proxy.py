"""An HTTP proxy before an object server that injects faults, one request a connection, and counts them.

What strikes a request is chosen by a plan: `Rates` for a share of all requests, or any other callable. The `Host`
header passes unchanged, so signatures stay valid.

    an HTTP status        answered by the proxy; the server never sees the request
    "reset"               the connection breaks before the server sees the request
    "answer lost"         the server did it, the client never hears
    "upload cut"          the server gets half of the body, then the connection breaks
    "download cut"        the client gets two thirds of the answer, then the connection breaks
    "condition ignored"   the server gets the request without If-None-Match: it overwrites
"""

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import NamedTuple
from urllib.parse import urlsplit

_CODES = {503: "SlowDown", 500: "InternalError", 409: "ConditionalRequestConflict", 403: "AccessDenied"}
_WRITES = ("PUT", "POST", "DELETE")


class Request(NamedTuple):
    method: str
    target: str
    headers: dict[str, str]
    """Names in lower case."""
    head: list[bytes]
    """The lines as they came, without those of this one connection."""
    body: bytes


Plan = Callable[[Request], str | None]


class Rates:
    """Faults at random: each kind strikes its share (0..1) of the requests that it can strike."""

    def __init__(self, rates: Mapping[str, float], seed: int) -> None:
        self.rates = rates
        self.random = random.Random(seed)

    def __call__(self, request: Request) -> str | None:
        drawn = self.random.random()
        for kind, rate in self.rates.items():
            drawn -= rate
            if drawn < 0:
                return kind if _can_strike(kind, request) else None
        return None


class NextCreates:
    """One fault for the next `left` conditional writes, none for anything else."""

    def __init__(self, kind: str, left: int = 0) -> None:
        self.kind = kind
        self.left = left

    def __call__(self, request: Request) -> str | None:
        if not is_create(request) or self.left <= 0:
            return None
        self.left -= 1
        return self.kind


def careless(request: Request) -> str | None:
    """A server that overwrites what exists; only the store's probe at its opening is answered honestly."""
    return "condition ignored" if is_create(request) and "/v1/" in request.target else None


def is_create(request: Request) -> bool:
    """Whether it is a write that must not overwrite."""
    return request.method == "PUT" and "if-none-match" in request.headers


class FaultProxy:
    """`endpoint` is the proxy's own address; `injected` counts by kind what it did."""

    def __init__(self, endpoint: str, plan: Plan) -> None:
        self._server = urlsplit(endpoint)
        self._plan = plan
        self.endpoint = ""
        self.injected: Counter[str] = Counter()

    async def handle(self, client: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):  # either side may hang up
            await self._pass_on(await _read_request(client, answer), answer)
        with suppress(ConnectionError):
            answer.close()
            await answer.wait_closed()

    async def _pass_on(self, request: Request, answer: asyncio.StreamWriter) -> None:
        fault = self._plan(request)
        if fault:
            self.injected[fault] += 1
        if fault and fault.isdigit():
            answer.write(_refusal(int(fault), request))
        elif fault == "reset":
            answer.transport.abort()
        elif fault == "upload cut":
            await self._send(request, request.body[: len(request.body) // 2], fault)
            answer.transport.abort()
        else:
            reply = await self._send(request, request.body, fault)
            if fault == "download cut":
                answer.write(reply[: len(reply) * 2 // 3])
                await answer.drain()
            if fault in ("answer lost", "download cut"):
                answer.transport.abort()
            answer.write(reply)

    async def _send(self, request: Request, body: bytes, fault: str | None) -> bytes:
        """The server's whole answer; empty where the upload was cut."""
        head = [line for line in request.head if fault != "condition ignored" or not _is(line, b"if-none-match")]
        reader, writer = await asyncio.open_connection(self._server.hostname, self._server.port)
        try:
            writer.write(b"\r\n".join([*head, b"Connection: close", b"", body]))
            await writer.drain()
            if fault == "upload cut":
                return b""
            return await reader.read(-1)
        finally:
            writer.close()


async def _read_request(client: asyncio.StreamReader, answer: asyncio.StreamWriter) -> Request:
    lines = (await client.readuntil(b"\r\n\r\n"))[:-4].split(b"\r\n")
    pairs = [line.decode("latin-1").partition(":") for line in lines[1:]]
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    if headers.get("expect", "").lower() == "100-continue":
        answer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = await _read_chunks(client)
    else:
        body = await client.readexactly(int(headers.get("content-length", 0)))
    method, target, _ = lines[0].decode("latin-1").split(" ", 2)
    head = [line for line in lines if not _is(line, b"expect") and not _is(line, b"connection")]
    return Request(method, target, headers, head, body)


async def _read_chunks(client: asyncio.StreamReader) -> bytes:
    """A chunked body, still chunked."""
    body = b""
    while True:
        size = await client.readuntil(b"\r\n")
        body += size + await client.readexactly(int(size.partition(b";")[0], 16) + 2)
        if int(size.partition(b";")[0], 16) == 0:
            return body


def _can_strike(kind: str, request: Request) -> bool:
    if kind == "upload cut":
        return request.method in _WRITES and len(request.body) > 1
    if kind == "answer lost":
        return request.method in _WRITES
    return kind != "download cut" or request.method == "GET"


def _refusal(status: int, request: Request) -> bytes:
    body = f"<Error><Code>{_CODES.get(status, 'Injected')}</Code><Message>injected</Message></Error>".encode()
    head = f"HTTP/1.1 {status} Injected\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}"
    return f"{head}\r\nConnection: close\r\n\r\n".encode() + (b"" if request.method == "HEAD" else body)


def _is(line: bytes, name: bytes) -> bool:
    return line.partition(b":")[0].strip().lower() == name


@contextmanager
def fault_proxy(endpoint: str, plan: Plan) -> Iterator[FaultProxy]:
    """A running proxy before `endpoint`, in a thread of its own; gone afterwards."""
    proxy, loop = FaultProxy(endpoint, plan), asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(proxy.handle, "127.0.0.1", 0, limit=2**26))
    proxy.endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield proxy
    finally:
        asyncio.run_coroutine_threadsafe(_shut(server), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _shut(server: asyncio.Server) -> None:
    server.close()
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
