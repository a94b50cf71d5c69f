"""Charts of a training: a curve with what was measured beside it, and how a reward model means what it says."""

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from tasks.report.charts import THIRD, frame, thin
from tasks.report.svg import Scale, label, line, marker, picture, scale, tag, ticks

Points = Sequence[tuple[float, float]]


class Measured(NamedTuple):
    """Figures taken at some points of a training; `place` gives their shape and colour."""

    place: int
    name: str
    points: Points


class Bin(NamedTuple):
    """Comparisons of like confidence."""

    confidence: float
    accuracy: float
    num_labels: int


def measured_chart(title: str, curve: Points, x_label: str, measured: Sequence[Measured], best: float | None) -> Markup:
    """One curve, dots for what was measured beside it, and an upright line where the result was taken."""
    curve = thin(curve)
    everything = [*curve, *(point for each in measured for point in each.points)]
    xs, ys = [a for a, _ in everything], [b for _, b in everything]
    y_ticks = ticks(min(ys), max(ys), 5)
    x, y = scale(xs, 44, THIRD - 12), scale([*ys, *y_ticks], 162, 12)
    parts = frame(x, y, ticks(min(xs), max(xs), 5), y_ticks, x_label)
    if best is not None:
        at, is_right = x(best), x(best) > (x.start + x.end) / 2  # the word goes to the side that has room
        word = label(at - 4 if is_right else at + 4, 20, "result", "tick halo", "end" if is_right else "start")
        parts += [line(at, y.start, at, y.end, "reference"), word]
    parts.append(tag("polyline", points=" ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in curve), class_="curve"))
    parts += [
        marker(each.place, x(a), y(b), f"{each.name} at {a:g}: {b:.4g}") for each in measured for a, b in each.points
    ]
    notes = [f"from {curve[0][1]:.4g} at {curve[0][0]:g} to {curve[-1][1]:.4g} at {curve[-1][0]:g} ({x_label})"]
    notes += [f"{each.name}: " + ", ".join(f"{b:.4g} at {a:g}" for a, b in each.points) for each in measured]
    notes += [] if best is None else [f"the result is that at {best:g}"]
    return picture(THIRD, 200, title, "; ".join(notes), parts)


def reliability_chart(title: str, bins: Sequence[Bin]) -> Markup:
    """Confidence against the labels' own probability of what was preferred; on the dashed line both are equal."""
    low = min(0.5, *(found.accuracy for found in bins))
    x, y = Scale(0.5, 1, 44, THIRD - 12), Scale(low, 1, 162, 12)
    parts = frame(x, y, [0.5, 0.6, 0.7, 0.8, 0.9, 1], ticks(low, 1, 5), "confidence of the reward model")
    parts.append(line(x(0.5), y(0.5), x(1), y(1), "reference"))
    for found in bins:
        hint = f"says {found.confidence:.2f}, labels say {found.accuracy:.2f}, {found.num_labels} comparisons"
        parts.append(marker(2, x(found.confidence), y(found.accuracy), hint))
    said = "; ".join(f"{b.confidence:.3f}: {b.accuracy:.3f} ({b.num_labels})" for b in bins)
    return picture(THIRD, 200, title, f"confidence: the labels' probability (comparisons): {said}", parts)
