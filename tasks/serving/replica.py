"""What is known of one of several servers of a model: whether it may be given rows, and how many at once.

No clock is read here and nothing is sent: `now` is an argument, so that each rule can be tested without waiting.
"""

import math
from dataclasses import dataclass, field

from tasks.serving.vllm_client import pause_seconds

MAX_FAILURES = 3
"""Errors in a row, with no answer between them, that are not the rows' fault."""

DOUBTED = "not heard of for a while"


@dataclass(frozen=True)
class Patience:
    """How long a replica is believed or left alone, in seconds."""

    health: float = 5.0
    """One that answered nothing for this long is asked whether it is well; the first pause between checks."""
    ping: float = 10.0
    """How long that question may take. A second one in a row without an answer sets it aside."""
    check: float = 60.0
    """How long the check before its first row may take."""
    longest: float = 30.0
    """The longest pause between checks of one that is set aside."""
    look_up: float = 10.0
    """How often a name is looked up."""


@dataclass(eq=False)
class Replica:
    """One server. It gets rows while `aside` is None; else that says why not."""

    url: str
    most_open: int
    """Requests that it is given at once while it refuses none."""
    aside: str | None = "not checked yet"
    model_name: str = ""
    """Its name for the model, as of its last check."""
    limit: float = 0.0
    """Requests that it is given at once now."""
    heard: float = -math.inf
    """When it answered anything last."""
    quiet_since: float = 0.0
    """When a request of a row ended there last, or the first of those open was sent."""
    waits_until: float = -math.inf
    """It asked for no request before this."""
    next_check: float = -math.inf
    taken_back: float = -math.inf
    strikes: int = 0
    """How often in short time it was set aside or failed a check."""
    num_failures: int = 0
    num_refusals: int = 0
    """How often in a row it refused a request though none of ours was open there."""
    num_missed: int = 0
    num_answered: int = 0
    """Rows that it has done."""
    open: set[int] = field(default_factory=set)
    """Rows that it is at work on."""

    def __post_init__(self) -> None:
        self.limit = float(self.most_open)

    def has_room(self, now: float) -> bool:
        return self.aside is None and now >= self.waits_until and len(self.open) < int(self.limit)

    @property
    def is_counted_on(self) -> bool:
        """Whether nothing is known against it."""
        return self.aside in (None, DOUBTED)

    def sent(self, row: int, now: float) -> None:
        if not self.open:
            self.quiet_since = now
        self.open.add(row)

    def answered(self, now: float) -> None:
        """A row is done: after as many of these as it may have open, it may have one more."""
        self.alive(now)
        self.quiet_since = now
        self.num_failures = self.num_refusals = 0
        self.num_answered += 1
        self.limit = min(self.most_open, self.limit + 1 / self.limit)

    def alive(self, now: float) -> None:
        self.heard, self.num_missed = now, 0

    def refused(self, now: float, retry_after: float | None) -> None:
        """It has too much to do: as many as are open there now are what it can hold. No row is to blame.

        It is asked again when it said so, or when one of those has ended; if it has none, after a growing pause.
        """
        self.alive(now)
        self.limit = max(1.0, min(self.limit, float(len(self.open))))
        self.num_refusals += not self.open
        pause = 0.0 if self.open else pause_seconds(min(self.num_refusals, 8))
        self.waits_until = max(self.waits_until, now + (pause if retry_after is None else retry_after))

    def failed(self, now: float) -> bool:
        """It answered that something broke there: whether it did so too often for that to be a row's fault."""
        self.alive(now)
        self.num_failures += 1
        return self.num_failures >= MAX_FAILURES

    def set_aside(self, now: float, reason: str, patience: Patience) -> None:
        """No more rows until a check is passed: the first at once, the next after a pause that doubles."""
        if self.aside is None and now - self.taken_back > patience.longest:
            self.strikes = 0
        self.aside = reason
        self.strikes += 1
        pause = 0.0 if self.strikes == 1 else patience.health * 2 ** min(self.strikes - 2, 16)
        self.next_check = now + min(pause, patience.longest)

    def doubt(self, now: float) -> None:
        """Nobody heard of it for a while, and it may be another server now: it is checked, and not blamed."""
        self.aside, self.next_check = DOUBTED, now

    def take_back(self, now: float, model_name: str) -> None:
        """It passed its check."""
        self.alive(now)
        self.aside, self.model_name = None, model_name
        self.taken_back = self.quiet_since = now
        self.num_failures = 0

    def state(self, now: float) -> str:
        """For people: what it is doing, or why nothing."""
        if self.aside is not None:
            return self.aside
        waits = f", asked to be left alone for {self.waits_until - now:.0f} s" if self.waits_until > now else ""
        return f"{len(self.open)} requests open, {int(self.limit)} allowed{waits}"
