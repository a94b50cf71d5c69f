"""Servers that stand in for replicas of a model: what they answer, and what befalls them, is the test's to say."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web

from tasks.processes import free_port
from tasks.serving import ServingError
from tasks.serving.attach import get_models

MODEL = "the model"


@dataclass
class FakeReplica:
    """Answers `{"echo": n}` to `{"n": n}` while it is well. `plan` says what befalls it at its k-th row."""

    loop: asyncio.AbstractEventLoop
    plan: dict[int, Callable[["FakeReplica"], None]] = field(default_factory=dict)
    refuses: dict[int, int] = field(default_factory=dict)
    """Status of these rows here, whatever the mode."""
    mode: str | int = "ok"
    """`ok`, `hang` (nothing is answered any more), `wedge` (only /health is), `reset`, `html`, `abort`, or a status."""
    headers: dict[str, str] = field(default_factory=dict)
    model: str = MODEL
    weights: str = "ours"
    """Others answer all the same: only a check tells."""
    latency: float = 0.0
    capacity: int = 10**6
    """Rows at once; further ones are refused with 503."""
    port: int = field(default_factory=free_port)
    seen: list[str | int] = field(default_factory=list)
    """What came, in order: `check`, or a row that was answered."""
    num_rows: int = 0
    most_open: int = 0
    num_refused: int = 0

    def __post_init__(self) -> None:
        self.thawed = asyncio.Event()
        self.open: set[asyncio.Transport] = set()
        self.runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def rows(self) -> list[int]:
        return [each for each in self.seen if isinstance(each, int)]

    async def start(self, host: str = "127.0.0.1") -> None:
        app = web.Application()
        app.add_routes([web.get("/health", self.health), web.get("/v1/models", self.models)])
        app.add_routes([web.post("/v1/completions", self.completion)])
        self.runner, self.thawed = web.AppRunner(app, shutdown_timeout=0), asyncio.Event()
        await self.runner.setup()
        await web.TCPSite(self.runner, host, self.port).start()

    async def end(self) -> None:
        runner, self.runner = self.runner, None
        for transport in list(self.open):
            transport.abort()
        self.thawed.set()
        if runner:
            await runner.cleanup()

    def die(self) -> None:
        """Inside its loop: every connection breaks, and nobody listens."""
        self.later = self.loop.create_task(self.end())

    def come_back(self) -> None:
        self.later = self.loop.create_task(self.start())

    async def health(self, _: web.Request) -> web.Response:
        if self.mode == "hang":
            await self.thawed.wait()
        return web.Response()

    async def models(self, _: web.Request) -> web.Response:
        self.seen.append("check")
        return web.json_response({"data": [{"id": self.model, "weights": self.weights}]})

    async def completion(self, request: web.Request) -> web.StreamResponse:
        body, transport = await request.json(), request.transport
        if transport is None or self.runner is None:
            raise ConnectionResetError
        self.open.add(transport)
        try:
            return await self.act(body, transport)
        finally:
            self.open.discard(transport)

    async def act(self, body: dict[str, Any], transport: asyncio.Transport) -> web.StreamResponse:
        self.num_rows += 1
        if befalls := self.plan.get(self.num_rows):
            befalls(self)
        if len(self.open) > self.capacity:
            self.num_refused += 1
            return web.json_response({"error": "queue full"}, status=503, headers=self.headers)
        self.most_open = max(self.most_open, len(self.open))
        if self.mode in ("hang", "wedge"):
            await self.thawed.wait()
        await asyncio.sleep(self.latency)
        step = self.refuses.get(body["n"], self.mode)
        if step == "reset":
            transport.abort()
        return self.answer(body, step)

    def answer(self, body: dict[str, Any], step: str | int) -> web.StreamResponse:
        if isinstance(step, int):
            return web.json_response({"error": f"because {body['n']}"}, status=step, headers=self.headers)
        if step == "html":
            return web.Response(text="<html>proxy</html>")
        if step == "abort":
            return web.json_response({"choices": [{"finish_reason": "abort"}]})
        if body["model"] != self.model:
            return web.json_response({"error": f"no model {body['model']}"}, status=404)
        if self.runner and step != "reset":
            self.seen.append(body["n"])
        return web.json_response({"echo": body["n"]})


@dataclass
class FakeReplicas:
    """A thread with a loop in which replicas live."""

    loop: asyncio.AbstractEventLoop
    all: list[FakeReplica] = field(default_factory=list)

    def start(self, count: int = 3, **fields: Any) -> list[FakeReplica]:
        made = [FakeReplica(self.loop, **fields) for _ in range(count)]
        for replica in made:
            self.do(replica.start())
        self.all += made
        return made

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20)


@contextmanager
def fake_replicas() -> Iterator[FakeReplicas]:
    replicas = FakeReplicas(asyncio.new_event_loop())
    thread = threading.Thread(target=replicas.loop.run_forever, daemon=True)
    thread.start()
    try:
        yield replicas
    finally:
        for replica in replicas.all:
            replicas.do(replica.end())
        replicas.loop.call_soon_threadsafe(replicas.loop.stop)
        thread.join(20)
        replicas.loop.close()


async def check(session: aiohttp.ClientSession, url: str) -> str:
    """The real check weighs probes; this one asks. Raises: as the real one."""
    models: Any = await get_models(session, url)
    (served,) = models["data"]
    if served["weights"] != "ours":
        raise ServingError(f"{url} serves another model: {served['weights']}")
    return str(served["id"])
