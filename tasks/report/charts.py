"""Charts as inline SVG, drawn by hand: they take the page's colours in light and dark, and weigh a few kB.

All are pure functions of numbers, so the same run draws the same bytes. Classes are styled in `page.css`; `p0`, `p1`,
... are the policies' colours, which always come with a shape of their own.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from markupsafe import Markup

from tasks.report.svg import Scale, label, line, marker, picture, scale, spread, tag, ticks

HALF, THIRD = 420, 300
"""Widths for two and three charts in a row; on a phone each has a row of its own."""
MAX_POINTS = 400


class Dot(NamedTuple):
    """A figure with its interval; `place`, the policy's among all, gives colour and shape."""

    place: int
    name: str
    value: float
    low: float
    high: float

    def text(self) -> str:
        return f"{self.name}: {self.value:.3g}, 95 % interval {self.low:.3g} to {self.high:.3g}"


class Spot(NamedTuple):
    """A policy in the plane: helpfulness and harmlessness."""

    x: Dot
    y: Dot
    named: bool = True
    """Whether its name stands beside it: of many policies along the way it would hide the others."""
    trained: bool = True
    """Whether it stands on the path of training; a policy from elsewhere does not."""


def dot_chart(title: str, groups: Sequence[tuple[str, Sequence[Dot]]]) -> Markup:
    """Shares between 0 and 1: a heading for each group, under it a line for each dot with its interval."""
    x = Scale(0, 1, 56, HALF - 44)
    parts, y = list[Markup](), 14.0
    for heading, dots in groups:
        parts.append(label(4, y, heading, "strong halo"))
        for row, dot in enumerate(dots):
            parts += interval_row(dot, x, y + 18 + 17 * row)
        y += 17 * len(dots) + 32
    bottom = y - 12
    grid = [line(x(t), 22, x(t), bottom, "grid") for t in (0, 0.25, 0.5, 0.75, 1)]
    axis = [label(x(t), bottom + 15, f"{t:g}", "tick", "middle") for t in (0, 0.25, 0.5, 0.75, 1)]
    described = "; ".join(f"{heading}: {', '.join(d.text() for d in dots)}" for heading, dots in groups)
    return picture(HALF, bottom + 22, title, described, [*grid, *parts, *axis])


def interval_row(dot: Dot, x: Scale, y: float) -> list[Markup]:
    return [
        label(x.start - 12, y + 4, dot.name, "tick", "end"),
        line(x(dot.low), y, x(dot.high), y, f"interval p{dot.place}"),
        marker(dot.place, x(dot.value), y, dot.text()),
        label(x.end + 12, y + 4, f"{dot.value:.2f}", "value"),
    ]


SHARES = (0, 0.25, 0.5, 0.75, 1)
WIDE, HIGH = Scale(0, 1, 46, HALF - 16), Scale(0, 1, 340, 14)
"""Axes of shares."""


def path_chart(
    title: str,
    x_label: str,
    y_label: str,
    spots: Sequence[Spot],
    x: Scale = WIDE,
    y: Scale = HIGH,
    x_ticks: Sequence[float] = SHARES,
    y_ticks: Sequence[float] = SHARES,
) -> Markup:
    """The policies in a plane, those of the training joined in its order; up and to the right is better."""
    at = [(x(s.x.value), y(s.y.value)) for s in spots]
    parts = frame(x, y, x_ticks, y_ticks, x_label)
    parts += [label(x.start + 8, y.end + 14, f"↑ {y_label}", "tick halo"), *crosses(spots, x, y)]
    parts += [line(*a, *b, "path") for a, b in pairwise(p for s, p in zip(spots, at, strict=True) if s.trained)]
    parts += [marker(s.y.place, *p, s.y.text()) for s, p in zip(spots, at, strict=True)]
    named = [(spot, place) for spot, place in zip(spots, at, strict=True) if spot.named]
    heights = spread([place[1] + 4 for _, place in named], 16)
    for (spot, (left, _)), height in zip(named, heights, strict=True):
        side, anchor = (-13, "end") if left > HALF / 2 else (13, "start")
        parts.append(label(left + side, height, spot.y.name, "strong halo", anchor))
    described = "; ".join(f"{s.y.name}: {x_label} {s.x.value:.3g}, {y_label} {s.y.value:.3g}" for s in spots)
    return picture(HALF, 380, title, described, parts)


def crosses(spots: Sequence[Spot], x: Scale, y: Scale) -> list[Markup]:
    """Both intervals of each policy."""
    parts = []
    for s in spots:
        parts.append(line(x(s.x.low), y(s.y.value), x(s.x.high), y(s.y.value), f"interval p{s.y.place}"))
        parts.append(line(x(s.x.value), y(s.y.low), x(s.x.value), y(s.y.high), f"interval p{s.y.place}"))
    return parts


def line_chart(
    title: str,
    points: Sequence[tuple[float, float]],
    x_label: str,
    references: Sequence[tuple[float, str]] = (),
) -> Markup:
    """One curve, with horizontal reference lines; at most `MAX_POINTS` points are drawn, the last among them."""
    points = thin(points)
    xs = [p[0] for p in points]
    ys = [p[1] for p in points] + [value for value, _ in references]
    x_ticks, y_ticks = ticks(min(xs), max(xs), 5), ticks(min(ys), max(ys), 5)
    x, y = scale(xs, 44, THIRD - 12), scale([*ys, *y_ticks], 162, 12)
    parts = frame(x, y, x_ticks, y_ticks, x_label)
    for value, name in references:
        parts += [line(x.start, y(value), x.end, y(value), "reference")]
        parts += [label(x.start + 4, y(value) - 5, name, "tick halo")]
    route = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in points)
    parts.append(tag("polyline", points=route, class_="curve"))
    parts.append(tag("circle", cx=x(points[-1][0]), cy=y(points[-1][1]), r=3, class_="end"))
    described = f"from {points[0][1]:.4g} at {xs[0]:g} to {points[-1][1]:.4g} at {xs[-1]:g} ({x_label})"
    notes = [f"{name} at {value:.4g}" for value, name in references]
    return picture(THIRD, 200, title, "; ".join([described, *notes]), parts)


def histogram(title: str, values: Sequence[float], low: float, high: float, bins: int, x_label: str) -> Markup:
    """How many of the values fall into each of `bins` equal bins between `low` and `high`, both included."""
    return bars_chart(title, bin_counts(values, low, high, bins), low, high, x_label)


def bars_chart(title: str, counts: Sequence[int], low: float, high: float, x_label: str) -> Markup:
    """Counts of values in equal bins between `low` and `high`."""
    x, y_ticks = Scale(low, high, 50, HALF - 14), ticks(0, max(*counts, 1), 4)
    y = scale([0, *y_ticks, *counts], 184, 12)
    parts = frame(x, y, ticks(low, high, 6), y_ticks, x_label)
    width = (high - low) / len(counts)
    for i, count in enumerate(counts):
        left, right = x(low + i * width), x(low + (i + 1) * width)
        hint = f"{low + i * width:.3g} to {low + (i + 1) * width:.3g}: {count}"
        box = {"x": left + 0.75, "y": y(count), "width": right - left - 1.5, "height": y.start - y(count)}
        parts.append(tag("rect", tag("title", hint), class_="bar", **box))
    described = f"{sum(counts)} values; fullest bin {max(counts)}; counts by bin from {low:g} to {high:g}: {counts}"
    return picture(HALF, 224, title, described, parts)


def bin_counts(values: Sequence[float], low: float, high: float, bins: int) -> list[int]:
    counts = [0] * bins
    for value in values:
        counts[min(max(int((value - low) / (high - low) * bins), 0), bins - 1)] += 1
    return counts


def frame(x: Scale, y: Scale, x_ticks: Sequence[float], y_ticks: Sequence[float], x_label: str) -> list[Markup]:
    """Grid lines, tick labels and the label under the horizontal axis."""
    parts = [line(x.start, y(t), x.end, y(t), "grid") for t in y_ticks]
    parts += [label(x.start - 8, y(t) + 4, f"{t:g}", "tick", "end") for t in y_ticks]
    parts += [label(x(t), y.start + 16, f"{t:g}", "tick", "middle") for t in x_ticks]
    parts += [line(x.start, y.start, x.end, y.start, "axis")]
    return [*parts, label((x.start + x.end) / 2, y.start + 33, x_label, "tick", "middle")]


def thin(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Every so many-th point, so that no more than `MAX_POINTS` are left; the last stays."""
    step = -(-len(points) // MAX_POINTS)
    return list(points[::-1][::step][::-1])
