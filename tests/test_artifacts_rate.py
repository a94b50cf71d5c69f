"""How far, how fast and how long: a rate meter with a clock of its own, and its words."""

import pytest

from flows.artifacts.rate import RateMeter, describe, in_time


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def counted(*counts: tuple[float, int], window: float = 60.0) -> RateMeter:
    """A meter after these counts, each (seconds since the start, done)."""
    clock = Clock()
    meter = RateMeter(window, clock)
    for at, done in counts:
        clock.now = 1000.0 + at
        meter.count(done)
    return meter


def test_rate_says_percent_speed_and_time_left_in_words():
    meter = counted((0, 0), (2, 50), (4, 120))
    assert describe(120, 400, "rows", meter) == "120 of 400 rows, 30 rows/s, about 9 s left"


def test_rate_of_one_count_is_not_known():
    meter = counted((7, 64))
    assert meter.per_second() is None and meter.seconds_left(400) is None
    assert describe(64, 400, "rows", meter) == "64 of 400 rows"


def test_rate_leaves_out_what_was_there_at_the_start():
    """500 steps of a resume point were not made in this second."""
    assert counted((0, 500), (10, 520)).per_second() == 2.0


def test_rate_is_that_of_the_window_and_not_of_the_whole_stage():
    slow_then_fast = counted((0, 0), (1000, 10), (1010, 110), (1020, 210), window=15)
    assert slow_then_fast.per_second() == 10.0


def test_rate_of_chunks_longer_than_the_window_is_that_of_the_last_chunk():
    assert counted((0, 0), (300, 256), (700, 512), window=60).per_second() == 256 / 400


def test_rate_that_stands_still_has_no_time_left():
    meter = counted((0, 10), (5, 10), (9, 10))
    assert meter.per_second() == 0 and meter.seconds_left(20) is None
    assert describe(10, 20, "steps", meter) == "10 of 20 steps"


def test_rate_of_counts_at_the_same_instant_is_not_known():
    assert counted((3, 1), (3, 2)).per_second() is None


def test_rate_slower_than_one_in_ten_seconds_is_said_by_the_minute():
    assert "1.2 steps/min" in describe(3, 9, "steps", counted((0, 1), (100, 3)))


def test_rate_at_the_end_leaves_nothing():
    assert describe(40, 40, "rows", counted((0, 0), (2, 40))) == "40 of 40 rows, 20 rows/s"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 s"), (59, "59 s"), (60, "1 min"), (150, "2 min"), (3599, "1 h 00 min"), (7800, "2 h 10 min")],
)
def test_time_is_said_as_people_say_it(seconds, words):
    assert in_time(seconds) == words
