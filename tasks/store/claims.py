"""Advisory claims: who is making a version now, so that two runs do not spend GPU hours on the same one.

Nothing is decided by a claim but who waits: two holders at once cost duplicate work and never a wrong result, since
the manifest alone says which result counts. A claim lives while its counter moves. Whoever waits for it judges that
by a clock of its own, so no two machines need agree on the time.

    v1/claims/<dataset>/<version>/<n>.json     the n-th claim, made by create-if-absent
    v1/claims/<dataset>/<version>/<n>.beat     its counter, rewritten by its holder
"""

import json
import threading
import time
import uuid
from collections.abc import Callable
from types import TracebackType
from typing import Self

from tasks.store import keys
from tasks.store.backend import Backend
from tasks.store.errors import StoreUnavailable
from tasks.store.identity import canonical_json, check_dataset
from tasks.store.store import Store

BEAT_SECONDS = 15.0
PATIENCE_SECONDS = 90.0
"""A claim whose counter stands still this long is taken over: six beats, in case requests are tried again."""


def no_waiting(holder: str) -> None:
    """Shows nothing."""


class Claim:
    """A claim that was won. Inside `with` it beats in a thread of its own; leaving ends it."""

    def __init__(self, backend: Backend, base: str, number: int, data: bytes, beat_seconds: float) -> None:
        self.number = number
        self._backend, self._base, self._data = backend, base, data
        self._beat_seconds, self._count = beat_seconds, 0
        self._ended = threading.Event()
        self._heart = threading.Thread(target=self._live, name=f"claim {base}{number}", daemon=True)

    def __enter__(self) -> Self:
        self._heart.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def beat(self) -> None:
        """Show that the holder lives. The first part keeps two holders of one number from looking alike."""
        self._count += 1
        self._backend.put(f"{self._base}{self.number}.beat", [self._data + b" %d" % self._count])

    def end(self) -> None:
        """Let others go on at once. A place that does not answer delays them by their patience, no more."""
        self._ended.set()
        if self._heart.is_alive():
            self._heart.join()
        try:
            for key in (f"{self._base}{self.number}.json", f"{self._base}{self.number}.beat"):
                data = keys.get_or_none(self._backend, key)
                if data and data.startswith(self._data):  # else it was taken over, and its number used again
                    self._backend.delete(key)
        except StoreUnavailable:
            return

    def _live(self) -> None:
        while not self._ended.wait(self._beat_seconds):
            try:
                self.beat()
            except StoreUnavailable:  # a missed beat is what patience is for; the work itself will say what is wrong
                continue


def claim(
    store: Store,
    dataset: str,
    version: str,
    holder: str,
    *,
    patience_seconds: float = PATIENCE_SECONDS,
    poll_seconds: float = 5.0,
    beat_seconds: float = BEAT_SECONDS,
    sleep: Callable[[float], None] = time.sleep,
    monotonic: Callable[[], float] = time.monotonic,
    waiting: Callable[[str], None] = no_waiting,
) -> Claim | None:
    """A claim to make the version; None once it is committed, by whomever.

    Waits while somebody else's claim beats, calling `waiting(their holder)` before each pause.

    Raises: InvalidName. StoreUnavailable. Corrupt: the version's manifest is damaged.
    """
    base = f"{keys.CLAIMS}{check_dataset(dataset)}/{keys.check_version(version)}/"
    seen: tuple[int, bytes | None] = (0, None)
    since = monotonic()
    while store.find(dataset, version) is None:
        number = _newest(store.backend, base)
        state = (number, keys.get_or_none(store.backend, f"{base}{number}.beat"))
        if state != seen:
            seen, since = state, monotonic()
        if number == 0 or monotonic() - since >= patience_seconds:
            won = _create(store.backend, base, number + 1, holder, beat_seconds)
            if won:
                return _unless_committed(store, dataset, version, won)
            continue
        waiting(_holder(keys.get_or_none(store.backend, f"{base}{number}.json")))
        sleep(poll_seconds)
    return None


def _unless_committed(store: Store, dataset: str, version: str, won: Claim) -> Claim | None:
    """A holder commits, then ends its claim: both may have happened since we last looked for the version."""
    if store.find(dataset, version) is None:
        return won
    won.end()
    return None


def _create(backend: Backend, base: str, number: int, holder: str, beat_seconds: float) -> Claim | None:
    """The claim, if nobody else took this number; it clears away the ones that it takes over."""
    data = canonical_json({"holder": holder, "claim": uuid.uuid4().hex})
    if not backend.put_if_absent(f"{base}{number}.json", data):
        return None
    for key in backend.keys(base):
        if _number(key) < number:
            backend.delete(key)
    return Claim(backend, base, number, data, beat_seconds)


def _newest(backend: Backend, base: str) -> int:
    """The number of the newest claim; 0 where there is none. One whose record gc took for old still beats."""
    return max(map(_number, backend.keys(base)), default=0)


def _number(key: str) -> int:
    digits = key.rpartition("/")[2].partition(".")[0]
    return int(digits) if digits.isascii() and digits.isdigit() else 0


def _holder(data: bytes | None) -> str:
    """Who holds a claim, for people."""
    try:
        return str(json.loads(data or b"{}").get("holder") or "somebody")
    except (ValueError, AttributeError):
        return "somebody"
