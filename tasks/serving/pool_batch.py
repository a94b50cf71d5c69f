"""One batch over several servers: each row to the least busy one, and what one does not do is done by another.

A row's answer depends on its request alone (its seed is in it), so that it may be asked anywhere and again. It is kept
once: a request that is given up is cancelled before the row is given to somebody else.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tasks.serving.interface import ServingError, TransientServingError
from tasks.serving.replica import Replica
from tasks.serving.vllm_client import ENDS, Answer, Failure, Payload, pause_seconds, post_once

if TYPE_CHECKING:
    import aiohttp

    from tasks.serving.pool import Pool

OVERLOADED = (425, 429, 503)
"""Statuses by which a server says that it has enough to do."""
TICK_SECONDS = 0.2
"""How often to look around when nothing happens."""

log = logging.getLogger(__name__)
Task = asyncio.Task[Any]
Then = Callable[[Task], None]


@dataclass
class Job:
    """A row that is not done."""

    row: int
    payload: Payload
    num_failed: int = 0
    failed_at: set[str] = field(default_factory=set)
    not_before: float = 0.0


class Batch:
    """Rows in, answers out. All is decided in one loop: what runs beside it only sends and reports."""

    def __init__(self, pool: "Pool", path: str, payloads: Sequence[Payload]) -> None:
        self.pool, self.path, self.patience = pool, path, pool.patience
        self.fresh = deque(Job(row, payload) for row, payload in enumerate(payloads))
        self.again: list[Job] = []
        self.answers: dict[int, Answer] = {}
        self.num_rows = len(payloads)
        self.jobs: dict[Task, tuple[Job, Replica]] = {}
        self.asked: dict[Task, Replica | None] = {}
        """Pings, checks and look-ups; a replica has at most one of them."""
        self.then: dict[Task, Then] = {}
        self.ended: asyncio.Queue[Task] = asyncio.Queue()
        self.last_progress = time.monotonic()

    async def run(self) -> list[Answer]:
        """Raises: TransientServingError."""
        async with self.pool.session() as self.session:
            try:
                while len(self.answers) < self.num_rows:
                    self.turn(time.monotonic())
                    await self.something()
            finally:
                await self.leave()
        return [self.answers[row] for row in range(self.num_rows)]

    def turn(self, now: float) -> None:
        """Look after the replicas, give out rows, and raise where nothing will come of it."""
        if self.pool.has_names and now >= self.pool.next_look_up:
            self.look_up(now)
        for replica in self.pool.replicas:
            self.look_after(replica, now)
        self.hand_out(now)
        if now - self.last_progress > self.pool.config.watchdog_seconds:
            raise TransientServingError(self.why_nothing_ends())

    async def something(self) -> None:
        """Wait until a request ends, for a moment at most, and act on it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(TICK_SECONDS):
                task = await self.ended.get()
            if then := self.then.pop(task, None):  # None: it was given up meanwhile
                self.asked.pop(task, None)
                then(task)

    async def leave(self) -> None:
        running = list(self.then)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        for replica in self.pool.replicas:
            replica.open.clear()

    def start(self, work: Coroutine[Any, Any, Any], then: Then) -> Task:
        task = asyncio.create_task(work)
        self.then[task] = then
        task.add_done_callback(self.ended.put_nowait)
        return task

    # rows

    def hand_out(self, now: float) -> None:
        for job in [job for job in self.again if job.not_before <= now]:
            if replica := self.pool.pick(now, job.failed_at):
                self.again.remove(job)
                self.send(job, replica, now)
        while self.fresh and (replica := self.pool.pick(now)):
            self.send(self.fresh.popleft(), replica, now)

    def send(self, job: Job, replica: Replica, now: float) -> None:
        replica.sent(job.row, now)
        payload = {**job.payload, "model": replica.model_name}
        task = self.start(post_once(self.session, replica.url + self.path, payload), self.came_back)
        self.jobs[task] = (job, replica)

    def came_back(self, task: Task) -> None:
        job, replica = self.jobs.pop(task)
        replica.open.discard(job.row)
        now, outcome = time.monotonic(), task.result()
        if isinstance(outcome, dict) and (reason := interrupted(outcome)):
            outcome = Failure(f"it ended a completion with {reason!r}")
        if not isinstance(outcome, Failure):
            replica.answered(now)
            self.answers[job.row] = outcome
            self.last_progress = now
        elif outcome.status in OVERLOADED:
            replica.refused(now, outcome.retry_after)
            self.again.append(job)
        else:
            self.blame(replica, outcome, now)
            self.try_again(job, replica, outcome.problem, now)

    def blame(self, replica: Replica, failure: Failure, now: float) -> None:
        """An error may be the row's own fault; a broken connection or another kind of server is not."""
        if replica.aside is not None:
            return
        is_error = failure.status is not None and failure.may_pass
        if not is_error or replica.failed(now):
            self.set_aside(replica, failure.problem)

    def try_again(self, job: Job, replica: Replica, problem: str, now: float) -> None:
        """At once elsewhere the first time, then after pauses. Raises: TransientServingError: it failed too often."""
        job.num_failed += 1
        job.failed_at.add(replica.url)
        if job.num_failed > self.pool.config.num_retries:
            raise TransientServingError(
                f"{replica.url}: gave up after {job.num_failed} attempts, the last: {problem}. {self.pool.describe()}"
            )
        job.not_before = now if job.num_failed == 1 else now + pause_seconds(job.num_failed - 1)
        self.again.append(job)

    # replicas

    def look_after(self, replica: Replica, now: float) -> None:
        """See whether it is well, as far as its last answers leave that open."""
        if replica.open and now - replica.quiet_since > self.pool.config.watchdog_seconds:
            self.set_aside(replica, f"no request has ended there for {now - replica.quiet_since:.0f} s")
            self.move(replica, now)
        if replica in self.asked.values():
            return
        unheard = now - replica.heard > self.patience.health
        if unheard and not replica.open and replica.has_room(now) and (self.fresh or self.again):
            replica.doubt(now)  # it would get a row next
        if replica.aside is not None and now >= replica.next_check:
            self.ask(replica, self.pool.checked(self.session, replica.url), self.checked)
        elif replica.aside is None and unheard and replica.open:
            self.ask(replica, ping(self.session, replica.url, self.patience.ping), self.pinged)

    def ask(self, replica: Replica, work: Coroutine[Any, Any, Any], then: Callable[[Replica, Task], None]) -> None:
        self.asked[self.start(work, lambda task: then(replica, task))] = replica

    def checked(self, replica: Replica, task: Task) -> None:
        try:
            self.pool.take_back(replica, task.result())
        except (TransientServingError, ServingError) as error:
            self.set_aside(replica, str(error))

    def pinged(self, replica: Replica, task: Task) -> None:
        now, problem = time.monotonic(), task.result()
        if problem is None:
            replica.alive(now)
        elif replica.aside is None:
            replica.num_missed += 1
            if problem or replica.num_missed > 1:
                self.set_aside(replica, problem or f"hangs: /health is unanswered for {now - replica.heard:.0f} s")
                self.move(replica, now)

    def set_aside(self, replica: Replica, reason: str) -> None:
        """What it has open may still end until its first check; where that fails, or soon after, others do it."""
        self.pool.set_aside(replica, reason)
        self.last_progress = max(self.last_progress, time.monotonic() if replica.open else 0.0)
        if replica.strikes > 1:
            self.move(replica, time.monotonic())

    def move(self, replica: Replica, now: float) -> None:
        """Give up what is open there and let others do it."""
        for task in [task for task, (_, at) in self.jobs.items() if at is replica and not task.done()]:
            job, _ = self.jobs.pop(task)
            del self.then[task]
            task.cancel()
            replica.open.discard(job.row)
            self.try_again(job, replica, replica.aside or "", now)

    def look_up(self, now: float) -> None:
        self.pool.next_look_up = now + self.patience.look_up
        self.start(asyncio.to_thread(self.pool.addresses), self.looked_up)

    def looked_up(self, task: Task) -> None:
        try:
            self.pool.are_at(task.result())
        except OSError as error:  # those that are known stay
            log.warning("%s: a name cannot be looked up now: %s", self.pool.url, error)

    def why_nothing_ends(self) -> str:
        num_open = self.num_rows - len(self.answers)
        seconds = self.pool.config.watchdog_seconds
        if all(replica.aside is not None for replica in self.pool.replicas):
            return f"no server is left for {num_open} of {self.num_rows} requests. {self.pool.describe()}"
        waited = f"{num_open} of {self.num_rows} requests are open and none has ended for {seconds:g} s"
        return f"{waited} (watchdog_seconds). {self.pool.describe()}"


async def ping(session: "aiohttp.ClientSession", url: str, seconds: float) -> str | None:
    """None where it is well, why not where it says so or is gone, empty where it does not answer in time."""
    import aiohttp

    try:
        async with session.get(f"{url}/health", timeout=aiohttp.ClientTimeout(total=seconds)) as response:
            return None if response.status == 200 else f"/health says HTTP {response.status}"
    except TimeoutError:
        return ""
    except aiohttp.ClientError as error:
        return f"{type(error).__name__}: {error}"


def interrupted(answer: dict[str, Any]) -> str | None:
    """How a completion was ended by the server's own trouble, `abort` for one; None where it came to its end."""
    reasons = [choice.get("finish_reason") for choice in answer.get("choices", ())]
    return next((reason for reason in reasons if reason not in ENDS), None)
