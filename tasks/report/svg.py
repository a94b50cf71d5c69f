"""The few SVG elements that charts are made of. Text is escaped; coordinates are pixels of the view box."""

import hashlib
import math
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

SHAPES = ("circle", "square", "diamond", "triangle")


class Scale(NamedTuple):
    """Maps values between `low` and `high` to pixels between `start` and `end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def scale(values: Sequence[float], start: float, end: float) -> Scale:
    """A scale over the values' range; equal values get some room."""
    low, high = min(values), max(values)
    room = 0.0 if high > low else max(abs(low) * 0.1, 0.5)
    return Scale(low - room, high + room, start, end)


def ticks(low: float, high: float, most: int) -> list[float]:
    """At most `most` round numbers, 1, 2 or 5 times a power of ten apart, inside the range or just around it."""
    if not high > low:
        return [low]
    least = (high - low) / most
    power = 10.0 ** math.floor(math.log10(least))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= least * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def spread(positions: Sequence[float], gap: float) -> list[float]:
    """The positions moved downwards just so far that each two are at least `gap` apart."""
    placed, least = list(positions), -math.inf
    for i in sorted(range(len(positions)), key=lambda i: positions[i]):
        placed[i] = max(positions[i], least)
        least = placed[i] + gap
    return placed


def tag(name: str, *children: str, **attributes: float | str) -> Markup:
    """An element; `class_` stands for `class`, `text_anchor` for `text-anchor`."""
    given = [Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), trim(v)) for key, v in attributes.items()]
    return Markup("<{0}{1}>{2}</{0}>").format(name, Markup("").join(given), Markup("").join(children))


def trim(value: float | str) -> str:
    """A coordinate with as many digits as can be seen."""
    return value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def label(x: float, y: float, text: str, class_: str, anchor: str = "start") -> Markup:
    return tag("text", text, x=x, y=y, class_=class_, text_anchor=anchor)


def marker(place: int, x: float, y: float, hint: str) -> Markup:
    """The shape of a policy, filled with its colour; `hint` shows under the pointer."""
    shape, common = SHAPES[place % len(SHAPES)], {"class_": f"dot p{place}"}
    title = tag("title", hint)
    if shape == "circle":
        return tag("circle", title, cx=x, cy=y, r=5.2, **common)
    if shape == "square":
        return tag("rect", title, x=x - 4.8, y=y - 4.8, width=9.6, height=9.6, **common)
    corners = [(0, -6.6), (6.6, 0), (0, 6.6), (-6.6, 0)] if shape == "diamond" else [(0, -6), (6, 5), (-6, 5)]
    route = " ".join(f"{trim(x + a)},{trim(y + b)}" for a, b in corners)
    return tag("polygon", title, points=route, **common)


def picture(width: float, height: float, title: str, description: str, parts: Sequence[Markup]) -> Markup:
    """The whole drawing; a screen reader says the title, then the figures in the description."""
    name = "c" + hashlib.sha256(f"{title}\0{description}".encode()).hexdigest()[:12]
    heads = [tag("title", title, id=f"{name}-t"), tag("desc", description, id=f"{name}-d")]
    size = {"viewBox": f"0 0 {trim(width)} {trim(height)}", "role": "img"}
    named = {"aria_labelledby": f"{name}-t", "aria_describedby": f"{name}-d"}
    return tag("svg", *heads, *parts, **size, **named)


def legend_mark(place: int) -> Markup:
    """A policy's shape for running text."""
    shape = marker(place, 8, 8, "")
    return tag("svg", shape, viewBox="0 0 16 16", class_="mark", aria_hidden="true")
