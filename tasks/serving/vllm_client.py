"""Sends a batch of requests to a server: bounded concurrency, retries, and a watchdog over the whole."""

import asyncio
import random
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from tasks.serving.interface import ServingConfig, ServingError, TransientServingError

if TYPE_CHECKING:
    import aiohttp

T = TypeVar("T")
COMPLETIONS = "/v1/completions"
ENDS = ("stop", "length", "content_filter")
"""How a completion ends that nobody interrupted."""
PERMANENT = (400, 413, 422)
"""Statuses that blame the row: it becomes that row's error."""
RETRIED = (408, 425, 429)
"""Statuses below 500 that blame the moment."""


class Endpoint(Protocol):
    """A server: where it is, and why it died if it did."""

    @property
    def url(self) -> str: ...

    def death(self) -> str | None:
        """Why it no longer runs, as far as we can know; None while it does."""
        ...


@dataclass(frozen=True)
class Rejected:
    """The server will never do this request."""

    reason: str


@dataclass(frozen=True)
class Failure:
    """Why a request got no answer this time."""

    problem: str
    status: int | None = None
    """HTTP status; None where the network failed or nobody answered in time."""
    retry_after: float | None = None
    """Seconds that the server asks us to wait."""

    @property
    def may_pass(self) -> bool:
        """False: what answers there is no server of this kind."""
        return self.status is None or self.status >= 500 or self.status in RETRIED


Payload = dict[str, Any]
Answer = dict[str, Any] | Rejected


def post_all(endpoint: Endpoint, path: str, payloads: Sequence[Payload], config: ServingConfig) -> list[Answer]:
    """POST each payload; the decoded JSON of each answer, in the order of the payloads.

    Raises: TransientServingError: the server died, hung, or failed a request too often. ServingError: it
    does not serve this at all.
    """
    return run_to_end(_Batch(endpoint, path, payloads, config).run())


def run_to_end(work: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run`, also where this thread already runs a loop: then in a thread of its own."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    outcome: list[T | BaseException] = []

    def run() -> None:
        try:
            outcome.append(asyncio.run(work))
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run, name="serving")
    thread.start()
    thread.join()
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


class _Batch:
    def __init__(self, endpoint: Endpoint, path: str, payloads: Sequence[Payload], config: ServingConfig) -> None:
        self.endpoint = endpoint
        self.url = endpoint.url + path
        self.config = config
        self.todo = iter(list(enumerate(payloads)))
        self.answers: dict[int, Answer] = {}
        self.num_payloads = len(payloads)
        self.last_end = time.monotonic()

    async def run(self) -> list[Answer]:
        import aiohttp

        concurrency = min(self.config.max_concurrency, self.num_payloads)
        connector = aiohttp.TCPConnector(limit=max(1, concurrency))
        timeout = aiohttp.ClientTimeout(total=self.config.request_seconds)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            workers = [asyncio.create_task(self.work(session)) for _ in range(concurrency)]
            try:
                await self.watch(set(workers))
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)
        return [self.answers[index] for index in range(self.num_payloads)]

    async def work(self, session: "aiohttp.ClientSession") -> None:
        """One of several workers that share the list of what is to do."""
        for index, payload in self.todo:
            self.answers[index] = await self.ask(session, payload)
            self.last_end = time.monotonic()

    async def watch(self, pending: set["asyncio.Task[None]"]) -> None:
        """Wait for the workers; raise at the first error, a dead server, or when nothing ends for too long."""
        tick = min(1.0, self.config.watchdog_seconds / 4)
        while pending:
            done, pending = await asyncio.wait(pending, timeout=tick, return_when=asyncio.FIRST_EXCEPTION)
            for worker in done:
                worker.result()
            if pending:
                self.check_alive()
            if pending and time.monotonic() - self.last_end > self.config.watchdog_seconds:
                raise TransientServingError(
                    f"{self.url}: {self.num_payloads - len(self.answers)} of {self.num_payloads} requests are "
                    f"open and none has ended for {self.config.watchdog_seconds:g} s (watchdog_seconds)"
                )

    def check_alive(self) -> None:
        if death := self.endpoint.death():
            raise TransientServingError(f"{self.url}: the server died during a batch: {death}")

    async def ask(self, session: "aiohttp.ClientSession", payload: Payload) -> Answer:
        return await ask(session, self.url, payload, self.config.num_retries, self.check_alive)


async def ask(
    session: "aiohttp.ClientSession",
    url: str,
    payload: Payload,
    num_retries: int,
    check_alive: Callable[[], None] = lambda: None,
) -> Answer:
    """One request, tried again while the failure may pass, each time after a longer, jittered pause.

    Raises: TransientServingError: it failed too often. ServingError: no server of this kind.
    """
    for attempt in range(num_retries + 1):
        if attempt:
            await asyncio.sleep(pause_seconds(attempt))
        outcome = await post_once(session, url, payload)
        if not isinstance(outcome, Failure):
            return outcome
        if not outcome.may_pass:
            raise ServingError(f"{url}: {outcome.problem}")
        problem = outcome.problem
        if outcome.status is None:
            check_alive()
    raise TransientServingError(f"{url}: gave up after {attempt + 1} attempts, the last: {problem}")


def pause_seconds(attempt: int) -> float:
    """How long to wait before the attempt with this number, the first being 0."""
    return min(8.0, 0.25 * 2**attempt) * random.uniform(0.5, 1.0)


async def post_once(session: "aiohttp.ClientSession", url: str, payload: Payload) -> Answer | Failure:
    """One attempt: the decoded JSON, the row's rejection, or why there is neither."""
    import aiohttp

    try:
        async with session.post(url, json=payload) as response:
            if response.status == 200:
                return await _json(response)
            problem = f"HTTP {response.status}: {(await response.text())[:500]}"
            if response.status in PERMANENT:
                return Rejected(problem)
            return Failure(problem, response.status, _retry_after(response.headers.get("Retry-After", "")))
    except (aiohttp.ClientError, TimeoutError) as error:
        return Failure(f"{type(error).__name__}: {error}")


async def _json(response: "aiohttp.ClientResponse") -> dict[str, Any] | Failure:
    try:
        answer = await response.json(content_type=None)
    except ValueError:
        return Failure(f"expected JSON, got {(await response.text())[:200]!r}", response.status)
    if not isinstance(answer, dict):
        return Failure(f"expected a JSON object, got {str(answer)[:200]}", response.status)
    return answer


def _retry_after(value: str) -> float | None:
    """Seconds; the header's other form, a date, is left aside: clocks differ."""
    return float(value) if value.strip().isdigit() else None
