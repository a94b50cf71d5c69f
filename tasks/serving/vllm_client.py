"""Sends a batch of requests to a server: bounded concurrency, retries, and a watchdog over the whole."""

import asyncio
import random
import threading
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from tasks.serving.interface import ServingConfig, ServingError, TransientServingError

if TYPE_CHECKING:
    import aiohttp

T = TypeVar("T")
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
        """One request, tried again while the failure may pass, each time after a longer, jittered pause."""
        import aiohttp

        for attempt in range(self.config.num_retries + 1):
            if attempt:
                await asyncio.sleep(min(8.0, 0.25 * 2**attempt) * random.uniform(0.5, 1.0))
            try:
                async with session.post(self.url, json=payload) as response:
                    if response.status == 200:
                        return await _json(response)
                    problem = f"HTTP {response.status}: {(await response.text())[:500]}"
                    if response.status in PERMANENT:
                        return Rejected(problem)
                    if response.status < 500 and response.status not in RETRIED:
                        raise ServingError(f"{self.url}: {problem}")
            except (aiohttp.ClientError, TimeoutError) as error:
                problem = f"{type(error).__name__}: {error}"
                self.check_alive()
        raise TransientServingError(f"{self.url}: gave up after {attempt + 1} attempts, the last: {problem}")


async def _json(response: "aiohttp.ClientResponse") -> dict[str, Any]:
    try:
        answer = await response.json(content_type=None)
    except ValueError as error:
        raise ServingError(f"{response.url}: expected JSON, got {(await response.text())[:200]!r}") from error
    if not isinstance(answer, dict):
        raise ServingError(f"{response.url}: expected a JSON object, got {str(answer)[:200]}")
    return answer
