"""Pins: written before anything is looked up, rewritten while their process lives, believed for a grace."""

from typing import Any

import pytest

from tasks.store import Corrupt, InvalidName, keys
from tasks.store.pins import BEAT_SECONDS, Pin, Pins, read_pins
from tests.memory_backend import MemoryBackend

VERSION, OTHER = "0" * 32, "1" * 32


def live(place: Any, grace_seconds: float = 10.0) -> set[tuple[str, str]]:
    return set(read_pins(place, place.now(), grace_seconds).holds)


def test_hold_is_written_when_it_returns_and_gone_after_release() -> None:
    place = MemoryBackend()
    pins = Pins(place)
    pins.hold("labels", VERSION, OTHER)
    pins.hold("models/sl", VERSION)
    assert live(place) == {("labels", VERSION), ("labels", OTHER), ("models/sl", VERSION)}
    pins.release()
    assert place.keys(keys.PINS) == []


def test_hold_again_writes_nothing() -> None:
    place = MemoryBackend()
    pins = Pins(place)
    pins.hold("labels", VERSION)
    written = place.keys(keys.PINS)
    pins.hold("labels", VERSION)
    assert place.keys(keys.PINS) == written
    pins.release()


def test_hold_after_release_never_uses_a_key_again() -> None:
    place = MemoryBackend()
    pins = Pins(place)
    seen = set()
    for _ in range(3):
        pins.hold("labels", VERSION)
        seen.update(place.keys(keys.PINS))
        pins.release()
    assert len(seen) == 3


def test_release_leaves_attempts_and_momentary_holds() -> None:
    place = MemoryBackend()
    pins = Pins(place)
    attempt = pins.begin_attempt("labels", VERSION)
    with pins.holding("labels", OTHER):
        pins.release()
        assert live(place) == {("labels", VERSION), ("labels", OTHER)}
        assert read_pins(place, place.now(), 10.0).attempts == {attempt}
    pins.end_attempt(attempt)
    assert place.keys(keys.PINS) == []


def test_renew_rewrites_the_counter_and_nothing_else() -> None:
    place = MemoryBackend()
    pins = Pins(place)
    pins.hold("labels", VERSION)
    key = place.keys(keys.PINS)[0]
    before = Pin.model_validate_json(place.get(key))
    place.clock += 100
    assert live(place) == set()
    pins.renew()
    assert live(place) == {("labels", VERSION)}
    assert Pin.model_validate_json(place.get(key)) == before.model_copy(update={"counter": 1})
    pins.release()


def test_pins_of_a_live_process_are_renewed_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    monkeypatch.setattr("tasks.store.pins.BEAT_SECONDS", 0.01)
    renewed = threading.Event()

    class Watched(MemoryBackend):
        """Notices the second time that a key is written."""

        def put(self, key: str, blocks: Any) -> None:
            if key in self.objects:
                renewed.set()
            super().put(key, blocks)

    others = set(threading.enumerate())
    pins = Pins(Watched())
    pins.hold("labels", VERSION)
    assert renewed.wait(30)
    (heart,) = [thread for thread in threading.enumerate() if thread.name == "solon pins" and thread not in others]
    pins.release()
    heart.join(30)
    assert not heart.is_alive()


def test_read_pins_tells_expired_ones_apart_by_the_places_own_clock() -> None:
    place = MemoryBackend()
    old, new = Pins(place), Pins(place)
    old.hold("labels", VERSION)
    place.clock += 11
    new.hold("labels", OTHER)
    found = read_pins(place, place.now(), 10.0)
    assert (set(found.holds), len(found.expired)) == ({("labels", OTHER)}, 1)
    old.release()
    new.release()


def test_read_pins_damaged_one_is_an_error_not_a_hold_less() -> None:
    place = MemoryBackend()
    place.put(f"{keys.PINS}x.json", [b'{"holds": ['])
    with pytest.raises(Corrupt, match="not a pin"):
        read_pins(place, place.now(), 10.0)


def test_hold_hostile_names_are_refused_before_any_request() -> None:
    place = MemoryBackend()
    for dataset, version in (("..", VERSION), ("labels", "../x"), ("labels", "a.1"), ("a/b", VERSION)):
        with pytest.raises(InvalidName):
            Pins(place).hold(dataset, version)
        with pytest.raises(InvalidName):
            Pins(place).begin_attempt(dataset, version)
    assert not place.objects


def test_beats_fit_into_the_default_grace_many_times() -> None:
    from tasks.store.gc import DEFAULT_GRACE_SECONDS

    assert DEFAULT_GRACE_SECONDS / BEAT_SECONDS > 100
