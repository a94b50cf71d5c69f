"""Figures of what a model answers to question sets: accuracy, ECE and Brier score, of each kind of label."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tasks.bootstrap import Interval
from tasks.calibration.figures import Form, only, summarise
from tasks.calibration.labels import SHORT, calibration_of
from tasks.schema import Answer

QUESTIONS = "questions/"
"""What the measures of question sets begin with: then the set, the kind of label and the figure."""
FIGURES = ("accuracy", "ece", "brier")


class Told(NamedTuple):
    """One figure of one model on one set."""

    measure: str
    group: str
    """`all`, or a category."""
    interval: Interval


class Place(NamedTuple):
    """What a measure is of."""

    set: str
    kind: str
    figure: str


def answered_figures(name: str, answers: Sequence[Answer]) -> Iterator[Told]:
    """The figures of one model on the set of this name, over all of it and by category; intervals over questions."""
    calibration = calibration_of(answers)
    categories = calibration.categories
    groups = sorted(set(categories) - {""}) if len(set(categories)) > 1 else []
    for form in (form for form in calibration.forms if form.name in SHORT):
        parts = {"all": form, **{group_of(category): only(form, category, categories) for category in groups}}
        for group, part in parts.items():
            yield from (Told(measure_of(name, form, figure), group, found) for figure, found in figures_of(part))


def group_of(category: str) -> str:
    """A category that is called as the whole is has to be told from it."""
    return "all (category)" if category == "all" else category


def figures_of(form: Form) -> Iterator[tuple[str, Interval]]:
    num, (summary,) = len(form.right), summarise([form])
    for figure in FIGURES:
        if figure in summary.figures:
            found = summary.figures[figure]
            yield figure, Interval(found.value, found.low, min(found.high, 1.0), num, num)  # a share, as all three


def measure_of(name: str, form: Form, figure: str) -> str:
    return f"{QUESTIONS}{name}/{SHORT[form.name]}/{figure}"


def place_of(measure: str) -> Place | None:
    """What a measure is of; None for one that is of no question set."""
    return Place(*measure.removeprefix(QUESTIONS).split("/")) if measure.startswith(QUESTIONS) else None
