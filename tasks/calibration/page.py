"""The calibration of one model on one file as a page: no network, no script, like the report whose style it has."""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

import tasks.report as report
from tasks.calibration.figures import MEASURES, Figure, Summary, by_category
from tasks.calibration.labels import Calibration
from tasks.report.reliability import reliability_chart

TITLES = {"accuracy": "Accuracy", "ece": "ECE", "brier": "Brier score", "log_loss": "Log loss, nats"}
MEANINGS = {
    "accuracy": "share of questions whose right option is preferred; one that prefers none counts half",
    "ece": "mean distance between confidence and accuracy over 15 bins of equal mass; equal confidences share a bin",
    "brier": "mean squared distance of the right option's probability from 1",
    "log_loss": "mean negative log of it, which is held to be at least 0.000001",
}


class Row(NamedTuple):
    """One form in a table; a cell is empty where the measure cannot be told."""

    name: str
    cells: list[Figure | None]


def render(calibration: Calibration, summaries: list[Summary], asked: list[tuple[str, str]]) -> str:
    """A whole HTML document. `asked` says in pairs of name and value which model was asked what."""
    folders = [Path(__file__).parent, Path(report.__file__).parent]
    environment = Environment(
        loader=FileSystemLoader(folders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    measures = [name for name in MEASURES if name in summaries[0].figures]
    return environment.get_template("calibration.html.jinja").render(
        answer=answer(summaries),
        asked=asked,
        left_out=calibration.left_out.most_common(),
        mass=calibration.mass,
        measures=[(TITLES[name], MEANINGS[name]) for name in measures],
        rows=rows(summaries, measures),
        differences=differences(summaries, measures),
        categories=category_rows(calibration, measures),
        best=calibration.best.name,
        first=summaries[0].name,
        charts=[(s.name, caption(s), reliability_chart(s.name, s.bins)) for s in summaries if s.bins],
    )


def rows(summaries: list[Summary], measures: list[str]) -> list[Row]:
    return [Row(s.name, [s.figures.get(name) for name in measures]) for s in summaries]


def category_rows(calibration: Calibration, measures: list[str]) -> list[Row]:
    """One for each category, named with its number of questions; none where there is but one."""
    counts = Counter(category or "no category" for category in calibration.categories)
    found = rows(by_category(calibration.best, calibration.categories), measures)
    return [Row(f"{row.name} ({counts[row.name]})", row.cells) for row in found]


def differences(summaries: list[Summary], measures: list[str]) -> list[Row]:
    """Of every form but the first."""
    return [Row(s.name, [s.differences.get(name) for name in measures]) for s in summaries[1:]]


def answer(summaries: list[Summary]) -> str:
    """The result in a sentence. What is better is said only where the interval of the difference leaves zero out."""
    best = summaries[-1] if len(summaries) < 3 else summaries[2]
    accuracy, first = best.figures["accuracy"], summaries[0]
    sentence = f"Labels of the kind “{best.name}” prefer the right option in {accuracy.value:.1%} of the questions"
    if "ece" not in best.figures:
        return f"{sentence}."
    gap, change = best.figures["ece"].value, best.differences["ece"]
    went = "lower than" if change.high < 0 else "higher than" if change.low > 0 else "not clearly other than"
    chance = f"{gap:.3f} (ECE; {best.error_by_chance:.3f} by chance alone)"
    return f"{sentence}; their confidence misses their accuracy by {chance}, {went} with “{first.name}”."


def caption(summary: Summary) -> str:
    undecided = f"; {summary.num_undecided} labels prefer no option" if summary.num_undecided else ""
    chance = f"by chance alone it would be {summary.error_by_chance:.3f}"
    return f"ECE {summary.figures['ece']}; {chance}{undecided}"
