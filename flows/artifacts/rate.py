"""How fast a stage goes and how long it will take, in words."""

import time
from collections import deque
from collections.abc import Callable

WINDOW_SECONDS = 60.0


class RateMeter:
    """Speed over the newest minute or so. The first count is where it starts: kept rows, or a resume point's steps."""

    def __init__(self, window_seconds: float = WINDOW_SECONDS, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._window_seconds, self._monotonic = window_seconds, monotonic
        self._counts: deque[tuple[float, int]] = deque()

    def count(self, done: int) -> None:
        """So much is done by now. Of counts older than the window the newest stays, to measure from."""
        now = self._monotonic()
        self._counts.append((now, done))
        while len(self._counts) > 2 and self._counts[1][0] <= now - self._window_seconds:
            self._counts.popleft()

    def per_second(self) -> float | None:
        """None as long as there are not two counts, some time apart."""
        if not self._counts:
            return None
        (start, before), (end, done) = self._counts[0], self._counts[-1]
        return (done - before) / (end - start) if end > start else None

    def seconds_left(self, total: int) -> float | None:
        """None while the speed is not known, or where nothing moves."""
        speed = self.per_second()
        return (total - self._counts[-1][1]) / speed if speed else None


def describe(done: int, total: int, unit: str, meter: RateMeter) -> str:
    """`120 of 400 rows, 35 rows/s, about 8 s left`, as far as it is known."""
    words, speed, left = [f"{done} of {total} {unit}"], meter.per_second(), meter.seconds_left(total)
    if speed:
        words.append(f"{in_digits(speed)} {unit}/s" if speed >= 0.1 else f"{in_digits(speed * 60)} {unit}/min")
    if left is not None and done < total:
        words.append(f"about {in_time(left)} left")
    return ", ".join(words)


def in_digits(value: float) -> str:
    """Two digits that count: 0.42, 3.5, 35, 1200."""
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def in_time(seconds: float) -> str:
    """Rounded up, as one says it: `8 s`, `3 min`, `2 h 10 min`."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
