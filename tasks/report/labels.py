"""How far the AI labels can be trusted: spread, dependence on the order of presentation, agreement, what decided."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import NamedTuple

import pyarrow as pa
from markupsafe import Markup

from tasks.gates.intervals import Measured, share
from tasks.preference.agreement import PairAgreement, jury_agreement, jury_kappa
from tasks.report.charts import histogram
from tasks.report.judged import Judged, answers_of, over_principles, rows_of

DECIDED = {
    "priority": "principles disagreed and those of the highest priority decided",
    "consistency": "a completion's answer does not follow from its own visible reasoning",
}


class Bias(NamedTuple):
    """How one evaluator depends on the order in which it is shown a pair; shares are None without such pairs."""

    evaluator: str
    num_pairs: int
    same_position: Measured | None
    """Both orders chose the same position: 0 for a judge that reads the texts only (RLAIF paper, 2309.00267)."""
    first_twice: float | None
    second_twice: float | None
    distance: float | None
    """Mean |P in one order - P in the other|."""
    contradictions: str
    """Reasonings that conclude otherwise than they answer; a dash where none was asked."""


class Jury(NamedTuple):
    """How several evaluators agree."""

    pairs: list[PairAgreement]
    num_common: int
    """Comparisons that all of them answered."""
    kappa: float | None
    """Fleiss' kappa on these."""


def biases(pairs: Sequence[Judged], labels: Mapping[str, pa.Table]) -> list[Bias]:
    """Each evaluator's, comparison by comparison."""
    shown: dict[str, list[Judged]] = defaultdict(list)
    for pair in over_principles(pairs):
        shown[pair.evaluator].append(pair)
    return [bias(name, shown[name], contradictions(table)) for name, table in labels.items()]


def bias(evaluator: str, pairs: Sequence[Judged], contradicting: str) -> Bias:
    if not pairs:
        return Bias(evaluator, 0, None, None, None, None, contradicting)
    return Bias(
        evaluator=evaluator,
        num_pairs=len(pairs),
        same_position=share(sum(p.same_position for p in pairs), len(pairs)),
        first_twice=fmean(p.ab > 0.5 > p.ba for p in pairs),
        second_twice=fmean(p.ab < 0.5 < p.ba for p in pairs),
        distance=fmean(abs(p.ab - p.ba) for p in pairs),
        contradictions=contradicting,
    )


def contradictions(labels: pa.Table) -> str:
    """`3.0% of 200`: of the reasonings that say which is better, those whose answer is the other."""
    told = [said for said, status in rows_of(labels, ("contradicts", "status")) if status == "ok" and said is not None]
    return f"{fmean(told):.1%} of {len(told)}" if told else "–"


def jury(pairs: Sequence[Judged]) -> Jury | None:
    """None for a single evaluator."""
    answers = answers_of(pairs)
    agreed = jury_agreement(answers)
    return Jury(agreed, *jury_kappa(answers)) if agreed else None


def label_figures(pairs: Sequence[Judged], comparisons: pa.Table, preferences: pa.Table) -> list[tuple[str, str, str]]:
    """Name, value, meaning."""
    answers = [fmean(found.values()) for found in answers_of(pairs).values()]
    figures = [
        ("Comparisons", f"{comparisons.num_rows}", "pairs of completions by the SL policy"),
        ("Skipped pairs", share_of(comparisons, "skipped"), "nothing to judge, mostly identical completions"),
        ("Labelled", f"{len(answers)}", "comparisons that an evaluator answered in either order"),
    ]
    if answers:
        confident = fmean(abs(prob - 0.5) for prob in answers)
        meaning = "of P(a is better), orders, principles and evaluators averaged; 0.5 is certainty"
        figures.append(("Mean distance from 0.5", f"{confident:.3f}", meaning))
    return [*figures, *margin_figures(preferences), *decided_figures(preferences)]


def margin_figures(preferences: pa.Table) -> list[tuple[str, str, str]]:
    """What the reward model gets to see."""
    ai, human = target_probs(preferences, "ai"), target_probs(preferences, "human")
    figures = [
        ("Preferences from AI labels", f"{len(ai)}", "usable, for harmlessness"),
        ("Preferences from people", f"{len(human)}", "usable, for helpfulness"),
    ]
    if ai:
        figures.append(("Median P(chosen is better)", f"{median(ai):.3f}", "of the AI labels; 0.5 is undecided"))
    return figures


def decided_figures(preferences: pa.Table) -> list[tuple[str, str, str]]:
    """What else than the mean of the labels decided usable preferences, the commonest first."""
    counts = Counter(
        by for by, status in rows_of(preferences, ("decided_by", "status")) if status == "ok" and by not in LABELLED
    )
    return [(f"… decided by {by}", f"{counts[by]}", why(by)) for by, _ in counts.most_common()]


LABELLED = ("labels", "human")


def why(decided_by: str) -> str:
    return DECIDED.get(decided_by, "a completion breaks this hard constraint, whatever the drawn principle says")


def target_probs(preferences: pa.Table, origin: str) -> list[float]:
    """P(chosen is better) of the usable preferences of one origin, in row order."""
    rows = rows_of(preferences, ("origin", "status", "target_prob"))
    return [prob for which, status, prob in rows if (which, status) == (origin, "ok")]


def share_of(table: pa.Table, status: str) -> str:
    count = table.column("status").to_pylist().count(status)
    return f"{count / max(table.num_rows, 1):.1%} ({count})"


def label_charts(pairs: Sequence[Judged], preferences: pa.Table) -> list[tuple[str, Markup]]:
    """Caption and drawing."""
    charts, margins = [], target_probs(preferences, "ai")
    if probs := [fmean(found.values()) for found in answers_of(pairs).values()]:
        caption = "Comparisons by AI label, all that was asked averaged. Near 0 and 1 it is sure, near 0.5 undecided."
        charts.append((caption, histogram("Distribution of P(a is better)", probs, 0, 1, 20, "P(a is better)")))
    if margins:
        caption = "AI preferences by margin: what the reward model learns from."
        title = "Distribution of the preferences' margins"
        charts.append((caption, histogram(title, margins, 0.5, 1, 20, "P(chosen is better)")))
    return charts
