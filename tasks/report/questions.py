"""Question sets in the report: how often each model prefers the right option, and whether it means what it says."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from markupsafe import Markup

from tasks.calibration.figures import Form, error_by_chance, reliability
from tasks.calibration.labels import SHORT, calibration_of
from tasks.evaluation.answered import QUESTIONS, measure_of, place_of
from tasks.report.material import ANSWERS, EVALUATOR_ANSWERS, QUESTION_SETS, Material
from tasks.report.measures import Cell, table_cell
from tasks.report.policies import policy_name
from tasks.report.reliability import reliability_chart
from tasks.schema import Answer, Metric
from tasks.store.identity import table_to_rows

KINDS = {"soft": "", "reasoned": ", after reasoning", "clamped": ", after reasoning and clamped"}


class Line(NamedTuple):
    """One model under one kind of label; a cell is empty where the figure cannot be told."""

    name: str
    cells: list[Cell | None]


class Plot(NamedTuple):
    """How far the confidence of one model's labels goes with their accuracy."""

    title: str
    chart: Markup
    caption: str


class QuestionSetFigures(NamedTuple):
    """One set."""

    name: str
    source: str
    num_questions: int
    num_usable: int
    categories: list[Line]
    """Accuracy by category, a cell for each of the lines of the whole table."""
    left_out: list[str]
    """Questions that some model was not asked or did not answer, in sentences."""


def question_sets(material: Material, metrics: Sequence[Metric]) -> list[QuestionSetFigures]:
    """Every set that was asked, in order; empty where none was."""
    found = []
    for name in set_names(material):
        manifest = material.manifests[QUESTION_SETS + name]
        source, usable = str(manifest.metrics["source"]), int(manifest.metrics["usable"])
        lines = category_lines(metrics, material.policies, name)
        found.append(QuestionSetFigures(name, source, manifest.rows, usable, lines, left_out(material, name)))
    return found


def set_names(material: Material) -> list[str]:
    return [name.removeprefix(QUESTION_SETS) for name in material.tables if name.startswith(QUESTION_SETS)]


def question_lines(metrics: Sequence[Metric], policies: Sequence[str], sets: Sequence[str]) -> list[Line]:
    """For every policy, then for every model that labels in each kind of label: accuracy and ECE, set after set."""
    return [
        Line(title, [cell(metrics, policy, judge, f"{name}/{kind}/{figure}") for name in sets for figure in COLUMNS])
        for title, policy, judge, kind in askers(metrics, policies)
    ]


COLUMNS = {"accuracy": "accuracy", "ece": "ECE"}


def category_lines(metrics: Sequence[Metric], policies: Sequence[str], name: str) -> list[Line]:
    """The accuracy of each of them by category."""
    groups = dict.fromkeys(m.group for m in metrics if (place := place_of(m.measure)) and place.set == name)
    who = [(policy, judge, f"{name}/{kind}/accuracy") for _, policy, judge, kind in askers(metrics, policies)]
    return [Line(group, [cell(metrics, *each, group) for each in who]) for group in groups if group != "all"]


def askers(metrics: Sequence[Metric], policies: Sequence[str]) -> list[tuple[str, str, str, str]]:
    """(title, policy, judge, kind) of whoever has figures of a question set."""
    told = dict.fromkeys((m.policy, m.judge, place.kind) for m in metrics if (place := place_of(m.measure)))
    own = [(policy_name(p), p, "", kind) for p in policies for q, judge, kind in told if q == p and not judge]
    return [*own, *((f"{judge} (labels{KINDS[kind]})", p, judge, kind) for p, judge, kind in told if judge)]


def cell(metrics: Sequence[Metric], policy: str, judge: str, place: str, group: str = "all") -> Cell | None:
    wanted = (policy, judge, f"{QUESTIONS}{place}", group)
    found = next((m for m in metrics if (m.policy, m.judge, m.measure, m.group) == wanted), None)
    return table_cell(found) if found else None


def left_out(material: Material, name: str) -> list[str]:
    """Which models a set's questions have no figure of, and why; alike ones together."""
    alike = defaultdict[tuple[int, str], list[str]](list)
    for prefix, called in ((ANSWERS, policy_name), (EVALUATOR_ANSWERS, "{} (labels)".format)):
        for who, rows in answers_of(material, prefix, name):
            reasons = calibration_of(rows).left_out
            if reasons:
                alike[reasons.total(), worst(reasons)].append(called(who))
    return [f"{num} left out for {', '.join(who)}; most often: {why}" for (num, why), who in alike.items()]


def worst(reasons: Counter[str]) -> str:
    return reasons.most_common(1)[0][0]


def answers_of(material: Material, prefix: str, name: str) -> Iterator[tuple[str, list[Answer]]]:
    """Every model's answers to a set, by its name."""
    for table_name, table in material.tables.items():
        if table_name.startswith(prefix) and table_name.endswith(f"/{name}"):
            yield table_name.removeprefix(prefix).removesuffix(f"/{name}"), table_to_rows(table, Answer)


def reliability_plots(material: Material, metrics: Sequence[Metric]) -> list[Plot]:
    """Of the labels of every model that labels, on every set; none of sets with more than two options."""
    return [
        plot(name, who, form, metrics)
        for name in set_names(material)
        for who, rows in answers_of(material, EVALUATOR_ANSWERS, name)
        for form in calibration_of(rows).forms
        if form.prob is not None and form.name in SHORT
    ]


def plot(name: str, who: str, form: Form, metrics: Sequence[Metric]) -> Plot:
    measure = measure_of(name, form, "ece")
    ece = next(m for m in metrics if (m.judge, m.measure, m.group) == (who, measure, "all"))
    title = f"{name}: {who}{KINDS[SHORT[form.name]]}"
    caption = f"ECE {ece.value:.3f} [{ece.low:.3f}, {ece.high:.3f}]; by chance alone {error_by_chance(form, 0):.3f}"
    return Plot(title, reliability_chart(title, reliability(form)), caption)
