"""Pictures in the UI: the report's charts as SVG images inside markdown, which bring their own colours and ground.

An image follows the light or dark scheme by itself; whichever it takes, it stands on its own ground and can be read.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from markupsafe import Markup

import tasks.report
from flows.artifacts.text import joined, plain, tag
from tasks.report.charts import bars_chart
from tasks.report.training import ALGORITHM_CURVES, CURVES, Curve, Drawn, draw_calibration, draw_curve
from tasks.schema import Label, Row

BINS = 20
SVG = "http://www.w3.org/2000/svg"
CURVES_OF: dict[str, tuple[Curve, ...]] = {"sft": CURVES[:1], "reward": CURVES[1:], **ALGORITHM_CURVES}
"""By kind of training."""


def pictures(drawn: Sequence[Drawn]) -> list[Markup]:
    """A block for each two pictures, with their titles and captions; what could not be drawn says why."""
    pairs = [drawn[i : i + 2] for i in range(0, len(drawn), 2)]
    return [tag("table", tag("tbody", tag("tr", joined(map(picture_cell, pair))))) for pair in pairs]


def picture_cell(drawn: Drawn) -> Markup:
    title, caption = tag("b", plain(drawn.title)), tag("sub", plain(drawn.caption))
    image = picture(drawn.chart, drawn.title) if drawn.chart else Markup("")
    return tag("td", title + image + caption, valign="top", width="50%")


def picture(chart: Markup, title: str) -> Markup:
    encoded = base64.b64encode(standalone(chart).encode()).decode()
    return Markup('<img alt="{}" src="data:image/svg+xml;base64,{}">').format(title, encoded)


def standalone(chart: Markup) -> str:
    """A chart of the report as a document of its own: with its name space, size, colours and ground."""
    opening, rest = str(chart).split(">", 1)
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', opening)
    assert size, f"a chart has a view box, got {opening[:80]}"
    return (
        f'{opening} xmlns="{SVG}" width="{size[1]}" height="{size[2]}"><style>{colours()}</style>'
        f'<rect class="ground" width="100%" height="100%" rx="6"/>{rest}'
    )


@cache
def colours() -> str:
    """What the report's style says of charts, in light and dark."""
    style = Path(tasks.report.__file__).with_name("page.css").read_text(encoding="utf-8")
    rules = [line for line in style.splitlines() if line.startswith("svg ")]
    return "\n".join([style.split("* {", 1)[0], *rules, "svg .ground { fill: var(--page); }"])


class LabelCounts:
    """How many answers gave which probability that the first completion is better."""

    def __init__(self) -> None:
        self._counts = [0] * BINS

    def add(self, rows: Sequence[Row]) -> None:
        for row in rows:
            if isinstance(row, Label) and row.prob_a is not None:
                self._counts[min(int(row.prob_a * BINS), BINS - 1)] += 1

    def __bool__(self) -> bool:
        return any(self._counts)

    def drawn(self) -> Drawn:
        title = "P(first is better)"
        caption = "Answers of the feedback model, in both orders. Near 0 and 1 it is sure, near 0.5 undecided."
        return Drawn(title, caption, bars_chart(title, self._counts, 0, 1, title))


def training_pictures(kind: str, metrics: Mapping[str, Any]) -> list[Drawn]:
    """The curves of a training as far as it is, and at its end what is known then: floors, calibration, the result."""
    history, final = metrics.get("history") or [], metrics.get("final") or {}
    known = {"history": history, "final": {"evaluations": evaluations(history), **final}}
    drawn = [draw_curve(curve, known) for curve in CURVES_OF[kind]]
    calibration = draw_calibration(final)
    return [*drawn, calibration] if calibration else drawn


def evaluations(history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What PPO measured on prompts set aside, from its log lines; by the update after which it was measured."""
    measured = [line for line in history if any(key.startswith("eval_") for key in line)]
    return [
        {"update": line["step"], **{key.removeprefix("eval_"): line[key] for key in line if key.startswith("eval_")}}
        for line in measured
    ]
