"""Pins: what a live process needs, written down before it is looked up, so that gc leaves it alone.

Each pin is a file of its own whose contents never change but for a counter: a write that arrives late, or twice, says
nothing that was not true. A thread rewrites the files of a process; gc believes a pin that was written within its
grace, so what a killed process held is let go after that.
"""

import os
import socket
import threading
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from tasks.schema import Frozen
from tasks.store import keys
from tasks.store.backend import Backend, Entry
from tasks.store.errors import Corrupt, StoreUnavailable
from tasks.store.identity import check_dataset

BEAT_SECONDS = 60.0
"""How often a live process rewrites its pins; gc's grace is many of these."""


class Pin(Frozen):
    """One pin."""

    counter: int = 0
    """How often it was rewritten."""
    holder: str
    """Host and process, for people."""
    holds: tuple[tuple[str, str], ...]
    """(dataset, version) of each version that is needed."""
    attempts: tuple[str, ...] = ()
    """Attempts whose files are being written."""


class Pins:
    """The pins of one process on one store. Safe to use from several threads."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._lock = threading.Lock()
        self._pins: dict[str, Pin] = {}
        self._held: set[str] = set()
        self._heart: Heart | None = None

    def hold(self, dataset: str, *versions: str) -> None:
        """Keep versions from being removed until `release`; they need not exist yet.

        On return the pin is written. A version that is looked up after that stays, if it is found.
        """
        wanted = {(check_dataset(dataset), keys.check_version(version)) for version in versions}
        with self._lock:
            new = wanted - {hold for key in self._held for hold in self._pins[key].holds}
            if new:
                key = _new_key()
                self._write(key, Pin(holder=_holder(), holds=tuple(sorted(new))))
                self._held.add(key)

    def release(self) -> None:
        """Let go of all that was held. Attempts, and what is held for a moment, stay pinned until they end."""
        with self._lock:
            held, self._held = self._held, set()
        self._drop(held)

    @contextmanager
    def holding(self, dataset: str, version: str) -> Iterator[None]:
        """Hold one version for a moment, whatever else is held or released."""
        key, hold = _new_key(), (check_dataset(dataset), keys.check_version(version))
        with self._lock:
            self._write(key, Pin(holder=_holder(), holds=(hold,)))
        try:
            yield
        finally:
            self._drop([key])

    def begin_attempt(self, dataset: str, version: str) -> str:
        """A new attempt's name, pinned together with its version; its files may be written from now on."""
        attempt, hold = uuid.uuid4().hex, (check_dataset(dataset), keys.check_version(version))
        with self._lock:
            self._write(_attempt_pin(attempt), Pin(holder=_holder(), holds=(hold,), attempts=(attempt,)))
        return attempt

    def end_attempt(self, attempt: str) -> None:
        """Unpin an attempt, whether it published or not."""
        self._drop([_attempt_pin(attempt)])

    def renew(self) -> None:
        """Show that the process lives. Raises: StoreUnavailable."""
        for key in list(self._pins):
            with self._lock:
                pin = self._pins.get(key)
                if pin:
                    self._write(key, pin.model_copy(update={"counter": pin.counter + 1}))

    def _write(self, key: str, pin: Pin) -> None:
        self._backend.put(key, [pin.model_dump_json().encode()])
        self._pins[key] = pin
        if self._heart is None or not self._heart.is_alive():  # not alive: in a process that was forked off
            self._heart = Heart(self)
            self._heart.start()

    def _drop(self, dropped: Iterable[str]) -> None:
        for key in dropped:
            with self._lock:
                self._pins.pop(key, None)
                try:
                    self._backend.delete(key)
                except StoreUnavailable:  # a pin that stays goes out by itself; what was done under it is done
                    continue
        with self._lock:
            if self._heart and not self._pins:
                self._heart.stopped.set()
                self._heart = None


class Heart(threading.Thread):
    """Renews pins until there are none."""

    def __init__(self, pins: Pins) -> None:
        super().__init__(name="solon pins", daemon=True)
        self.stopped = threading.Event()
        self._pins_of_process = pins

    def run(self) -> None:
        while not self.stopped.wait(BEAT_SECONDS):
            try:
                self._pins_of_process.renew()
            except StoreUnavailable:  # the grace is there for missed beats
                continue


class LivePins(NamedTuple):
    """What all live processes need, as gc sees it."""

    holds: dict[tuple[str, str], str]
    """(dataset, version) -> one of its holders."""
    attempts: frozenset[str]
    expired: tuple[Entry, ...]
    """Pins that are no longer believed."""


def read_pins(backend: Backend, now: float, grace_seconds: float) -> LivePins:
    """Every pin; live is what was written within the grace before `now`, by the place's own clock."""
    holds: dict[tuple[str, str], str] = {}
    attempts: set[str] = set()
    expired: list[Entry] = []
    for entry in backend.entries(keys.PINS):
        if entry.modified < now - grace_seconds:
            expired.append(entry)
            continue
        data = keys.get_or_none(backend, entry.key)
        if data is not None:  # else its owner has just let go
            pin = _parse(data, backend.location(entry.key))
            holds.update(dict.fromkeys(pin.holds, pin.holder))
            attempts.update(pin.attempts)
    return LivePins(holds, frozenset(attempts), tuple(expired))


def _parse(data: bytes, where: str) -> Pin:
    try:
        return Pin.model_validate_json(data)
    except ValueError as error:
        raise Corrupt(f"{where}: not a pin ({error}); delete it if no run is live") from None


def _new_key() -> str:
    return f"{keys.PINS}{uuid.uuid4().hex}.json"  # no key is used again: a late delete would hit a new pin


def _attempt_pin(attempt: str) -> str:
    return f"{keys.PINS}attempt-{attempt}.json"


def _holder() -> str:
    return f"{socket.gethostname()} process {os.getpid()}"
