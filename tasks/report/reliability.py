"""Whether labels mean what they say, as a picture: accuracy against confidence (figure 9)."""

import math
from collections.abc import Sequence

from markupsafe import Markup

from tasks.calibration.figures import Bin
from tasks.report.charts import THIRD, frame
from tasks.report.svg import Scale, line, picture, tag


def reliability_chart(name: str, bins: Sequence[Bin]) -> Markup:
    """Accuracy against confidence, a dot a bin with its 95 % interval; on the diagonal a label means what it says."""
    x, y = Scale(0.5, 1, 44, THIRD - 16), Scale(0, 1, 222, 12)
    parts = frame(x, y, [0.5, 0.6, 0.7, 0.8, 0.9, 1], [0, 0.25, 0.5, 0.75, 1], "confidence")
    parts.append(line(x(0.5), y(0.5), x(1), y(1), "path"))
    whole = sum(each.num_labels for each in bins)
    for each in bins:
        low, high = wilson(each)
        hint = f"confidence {each.confidence:.3f}, accuracy {each.accuracy:.3f}, {each.num_labels} labels"
        radius = 2.5 + 5 * math.sqrt(each.num_labels / whole)
        parts.append(line(x(each.confidence), y(low), x(each.confidence), y(high), "interval p2"))
        dot = tag("title", hint)
        parts.append(tag("circle", dot, cx=x(each.confidence), cy=y(each.accuracy), r=radius, class_="dot p2"))
    said = [f"confidence {b.confidence:.2f}: accuracy {b.accuracy:.2f}, {b.num_labels} labels" for b in bins]
    return picture(THIRD, 260, f"Reliability: {name}", "; ".join(said), parts)


def wilson(each: Bin) -> tuple[float, float]:
    """The 95 % score interval of a bin's accuracy."""
    z, n, p = 1.96, each.num_labels, each.accuracy
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(middle - half, 0.0), min(middle + half, 1.0)
