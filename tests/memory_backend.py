"""A place in memory, and actors who use it one operation at a time: whoever runs them decides the order."""

import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from tasks.store import Store
from tasks.store.backend import Entry
from tasks.store.pins import Pins


class MemoryBackend:
    """Keys in a dictionary, under a clock that moves only when it is told to."""

    uri = "memory"

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, float]] = {}
        self.clock = 1000.0

    def get(self, key: str) -> bytes:
        if key not in self.objects:
            raise FileNotFoundError(key)
        return self.objects[key][0]

    def stream(self, key: str, size: int) -> Iterator[bytes]:
        yield self.get(key)

    def get_range(self, key: str, start: int, length: int) -> bytes:
        return self.get(key)[start : start + length]

    def put(self, key: str, blocks: Iterable[bytes]) -> None:
        self.objects[key] = (b"".join(blocks), self.clock)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        return self.objects.setdefault(key, (data, self.clock))[0] == data

    def keys(self, prefix: str) -> list[str]:
        return sorted(key for key in self.objects if key.startswith(prefix))

    def entries(self, prefix: str) -> list[Entry]:
        return [Entry(key, len(self.objects[key][0]), self.objects[key][1]) for key in self.keys(prefix)]

    def folders(self, prefix: str) -> list[str]:
        return sorted({key[len(prefix) :].partition("/")[0] for key in self.keys(prefix) if "/" in key[len(prefix) :]})

    def delete(self, key: str) -> None:
        self.objects.pop(key, None)

    def now(self) -> float:
        return self.clock

    def location(self, key: str) -> str:
        return f"memory/{key}"


class Killed(BaseException):
    """What an actor meets instead of its next operation: kill -9, as far as the store can see."""


class Steps:
    """A backend that stands still before each operation until it is told to go on."""

    METHODS = ("get", "get_range", "put", "put_if_absent", "keys", "entries", "folders", "delete", "now")

    def __init__(self, place: Any) -> None:
        self.place = place
        self.uri = place.uri
        self.pins: set[str] = set()
        """Keys of pins that were written through here."""
        self.killed = ""
        """`before` or `after`: the next operation is the last, and does not happen or does; then `dead`."""
        self.turn = threading.Semaphore(0)
        self.waiting = threading.Semaphore(0)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name not in self.METHODS:
            raise AttributeError(name)
        return lambda *arguments: self._operation(name, arguments)

    def stream(self, key: str, size: int) -> Iterator[bytes]:
        yield self._operation("get", (key,))

    def location(self, key: str) -> str:
        return str(self.place.location(key))

    def _operation(self, name: str, arguments: tuple[Any, ...]) -> Any:
        if self.killed == "dead":
            raise Killed
        if name == "put":
            arguments = (arguments[0], list(arguments[1]))
        self.waiting.release()
        self.turn.acquire()
        killed, self.killed = self.killed, "dead" if self.killed else ""
        if killed == "before":
            raise Killed
        result = getattr(self.place, name)(*arguments)
        if name == "put" and arguments[0].startswith("v1/pins/"):
            self.pins.add(arguments[0])
        if killed == "after":
            raise Killed
        return result


class PinsByHand(Pins):
    """Pins without a thread: whoever runs the actors renews them."""

    def _write(self, key: str, pin: Any) -> None:
        self._backend.put(key, [pin.model_dump_json().encode()])
        self._pins[key] = pin


class Actor:
    """One process at work on a store. `outcome` is what its work returned, `error` what ended it."""

    def __init__(self, place: Any, work: Callable[[Store], Any]) -> None:
        self.backend = Steps(place)
        store = Store(self.backend, Path("unused"))  # type: ignore[arg-type]
        store.pins = PinsByHand(self.backend)  # type: ignore[arg-type]
        self.outcome: Any = None
        self.error: BaseException | None = None
        self.finished = False
        self.thread = threading.Thread(target=self._run, args=(work, store), daemon=True)
        self.thread.start()
        self.backend.waiting.acquire()

    def _run(self, work: Callable[[Store], Any], store: Store) -> None:
        try:
            self.outcome = work(store)
        except BaseException as error:  # every end of an actor is looked at by whoever runs it
            self.error = error
        self.finished = True
        self.backend.waiting.release()

    def step(self, operations: int = 1) -> None:
        """Let it do some operations, fewer if it ends before that."""
        for _ in range(operations):
            if self.finished:
                return
            self.backend.turn.release()
            self.backend.waiting.acquire()

    def kill(self, when: str) -> None:
        """Its next operation is its last: it happens (`after`) or not (`before`)."""
        if not self.finished:
            self.backend.killed = when
            self.step()
            assert self.finished
        self.thread.join()

    def renew_pins(self) -> None:
        """What the thread of a live process does from time to time."""
        place = self.backend.place
        for key in self.backend.pins & place.objects.keys():
            place.objects[key] = (place.objects[key][0], place.clock)
