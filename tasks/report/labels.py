"""How far the AI labels can be trusted: spread, dependence on the order of presentation, what was left out."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean, median
from typing import NamedTuple

import pyarrow as pa
from markupsafe import Markup

from tasks.report.charts import histogram


class Judged(NamedTuple):
    """P(completion_a is better) of one comparison by one evaluator, in either order of presentation."""

    ab: float
    ba: float

    @property
    def mean(self) -> float:
        return (self.ab + self.ba) / 2


def judged_pairs(labels: pa.Table) -> list[Judged]:
    """The comparisons that were answered in both orders, each evaluator's apart, in row order."""
    columns = (labels.column(c).to_pylist() for c in ("comparison_id", "evaluator", "order", "prob_a", "status"))
    answers: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for comparison, evaluator, order, prob_a, status in zip(*columns, strict=True):
        if status == "ok" and prob_a is not None:
            answers[comparison, evaluator][order] = prob_a
    return [Judged(a["ab"], a["ba"]) for a in answers.values() if len(a) == 2]


def label_figures(pairs: Sequence[Judged], comparisons: pa.Table, preferences: pa.Table) -> list[tuple[str, str, str]]:
    """Name, value, meaning."""
    figures = [
        ("Comparisons", f"{comparisons.num_rows}", "pairs of completions by the SL policy"),
        ("Skipped pairs", share_of(comparisons, "skipped"), "nothing to judge, mostly identical completions"),
        ("Judged in both orders", f"{len(pairs)}", "comparisons with an answer in either order"),
    ]
    return [*figures, *order_figures(pairs), *margin_figures(preferences)]


def order_figures(pairs: Sequence[Judged]) -> list[tuple[str, str, str]]:
    """A verdict flips with the order exactly when the judge picks the same position twice."""
    if not pairs:
        return []
    first = sum(p.ab > 0.5 > p.ba for p in pairs) / len(pairs)
    second = sum(p.ab < 0.5 < p.ba for p in pairs) / len(pairs)
    chose_first = fmean([float(p.ab > 0.5) for p in pairs] + [float(p.ba < 0.5) for p in pairs])
    confident = fmean(abs(p.mean - 0.5) for p in pairs)
    return [
        ("Verdict flips with the order", f"{first + second:.1%}", "the same position was picked in both orders"),
        ("… first position twice", f"{first:.1%}", "option (A) won in both orders"),
        ("… second position twice", f"{second:.1%}", "option (B) won in both orders"),
        ("First option chosen", f"{chose_first:.1%}", "of all judgements; 50 % is no preference for a position"),
        ("Mean distance from 0.5", f"{confident:.3f}", "of P(a is better), both orders averaged; 0.5 is certainty"),
    ]


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


def target_probs(preferences: pa.Table, origin: str) -> list[float]:
    """P(chosen is better) of the usable preferences of one origin, in row order."""
    columns = (preferences.column(c).to_pylist() for c in ("origin", "status", "target_prob"))
    return [prob for which, status, prob in zip(*columns, strict=True) if (which, status) == (origin, "ok")]


def share_of(table: pa.Table, status: str) -> str:
    count = table.column("status").to_pylist().count(status)
    return f"{count / max(table.num_rows, 1):.1%} ({count})"


def label_charts(pairs: Sequence[Judged], preferences: pa.Table) -> list[tuple[str, Markup]]:
    """Caption and drawing."""
    charts, margins = [], target_probs(preferences, "ai")
    if pairs:
        caption = "Comparisons by AI label, both orders averaged. Near 0 and 1 the judge is sure, near 0.5 undecided."
        title = "Distribution of P(a is better)"
        charts.append((caption, histogram(title, [p.mean for p in pairs], 0, 1, 20, "P(a is better)")))
    if margins:
        caption = "AI preferences by margin: what the reward model learns from."
        title = "Distribution of the preferences' margins"
        charts.append((caption, histogram(title, margins, 0.5, 1, 20, "P(chosen is better)")))
    return charts
