"""Several servers of one model: who they are, what is known of each, and who gets the next row."""

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import TYPE_CHECKING

from tasks.serving.addresses import LookUp, expand, look_up, stands_for_several
from tasks.serving.interface import ServingConfig, ServingError, TransientServingError
from tasks.serving.replica import Patience, Replica
from tasks.serving.vllm_client import Answer, Payload, run_to_end

if TYPE_CHECKING:
    import aiohttp

Check = Callable[["aiohttp.ClientSession", str], Awaitable[str]]
"""Makes sure that the server at a URL serves the model; gives its name for it there. Raises: TransientServingError:
it does not answer as it should, now. ServingError: it serves something else."""
CONNECT_SECONDS = 10.0
IDLE_SECONDS = 3.0
"""Connections are closed after so long without use: uvicorn closes them after 5, in the middle of a request's way."""

PATIENCE = Patience()
log = logging.getLogger(__name__)


class Pool:
    """The replicas of a model. What is known of them lasts from batch to batch; one batch is at work at a time."""

    model_name = ""  # each replica has its own

    def __init__(
        self,
        config: ServingConfig,
        check: Check,
        patience: Patience = PATIENCE,
        look_up: LookUp = look_up,
    ) -> None:
        self.url = config.url or ""
        self.config = config
        self.check = check
        self.patience = patience
        self.has_names = any(map(stands_for_several, config.urls))
        self.next_look_up = time.monotonic() + patience.look_up
        self._look_up = look_up
        self._lock = threading.Lock()
        try:
            self.replicas = [Replica(url, config.max_concurrency) for url in self.addresses()]
        except OSError as error:
            raise ServingError(f"url: {self.url}: a name has no address: {error}") from error

    def death(self) -> str | None:
        """Never known for good: they may come back."""
        return None

    def stop(self) -> None:
        """They are not ours to stop."""

    def post_all(self, path: str, payloads: Sequence[Payload]) -> list[Answer]:
        """POST each payload to one of the replicas; the answers, in the order of the payloads.

        Raises: TransientServingError: none is left, none answers, or a request failed too often.
        """
        from tasks.serving.pool_batch import Batch

        with self._lock:
            return run_to_end(Batch(self, path, payloads).run())

    def open(self) -> None:
        """Check all of them before the first row. Those that do not answer yet are taken when they do.

        Raises: ServingError: one serves another model, or none answers.
        """
        run_to_end(self._check_all())
        if all(replica.aside is not None for replica in self.replicas):
            raise ServingError(f"url: no healthy vLLM server. {self.describe()}")

    async def _check_all(self) -> None:
        async with self.session() as session:
            checks = [self.checked(session, replica.url) for replica in self.replicas]
            found = await asyncio.gather(*checks, return_exceptions=True)
        for replica, name in zip(self.replicas, found, strict=True):
            if isinstance(name, str):
                self.take_back(replica, name)
            elif isinstance(name, TransientServingError):
                self.set_aside(replica, str(name))
            else:
                raise name

    async def checked(self, session: "aiohttp.ClientSession", url: str) -> str:
        """The name under which the model is served there. Raises: as `Check`."""
        try:
            return await asyncio.wait_for(self.check(session, url), self.patience.check)
        except TimeoutError as error:
            raise TransientServingError(f"no answer to a check within {self.patience.check:g} s") from error

    def session(self) -> "aiohttp.ClientSession":
        """For one batch. How many requests are open is decided by each replica's limit."""
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=self.config.request_seconds, sock_connect=CONNECT_SECONDS)
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_SECONDS)
        return aiohttp.ClientSession(connector=connector, timeout=timeout)

    def addresses(self) -> list[str]:
        """Where the servers are now. Raises: OSError: a name cannot be looked up."""
        return expand(self.config.urls, self._look_up)

    def are_at(self, urls: Collection[str]) -> None:
        """Take in replicas at new addresses; forget those that are set aside and whose address is gone."""
        known = {replica.url for replica in self.replicas}
        kept = [each for each in self.replicas if each.aside is None or each.open or each.url in urls]
        self.replicas = kept + [Replica(url, self.config.max_concurrency) for url in urls if url not in known]

    def pick(self, now: float, avoiding: Collection[str] = ()) -> Replica | None:
        """Who gets the next row: the one with the fewest open of those with room; one of `avoiding` if all are."""
        well = [replica for replica in self.replicas if replica.is_counted_on]
        wanted = [replica for replica in well if replica.url not in avoiding] or well
        free = [replica for replica in wanted if replica.has_room(now)]
        return min(free, key=lambda replica: (len(replica.open), replica.num_answered), default=None)

    def set_aside(self, replica: Replica, reason: str) -> None:
        if replica.aside is None:
            log.warning("%s gets no more rows for now: %s", replica.url, reason)
        replica.set_aside(time.monotonic(), reason, self.patience)

    def take_back(self, replica: Replica, model_name: str) -> None:
        if replica.strikes and not replica.is_counted_on:
            log.warning("%s gets rows again", replica.url)
        replica.take_back(time.monotonic(), model_name)

    def describe(self) -> str:
        """Each replica and how it is."""
        now = time.monotonic()
        return "; ".join(f"{replica.url}: {replica.state(now)}" for replica in self.replicas)
