"""Policies against each other: the frontier of each judge, and how far the judges agree (figures 2, 3 and 8)."""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

from markupsafe import Markup

from tasks.evaluation.names import AGREEMENT
from tasks.report.charts import Dot, Spot, path_chart
from tasks.report.policies import is_along_the_way, is_trained_here, place_of, policy_name
from tasks.report.svg import Scale, ticks
from tasks.schema import Metric

HARMLESS, HELPFUL = "harmlessness_elo", "helpfulness_elo"
AXES = {HARMLESS: "harmlessness", HELPFUL: "helpfulness"}
TICKS = 6


class Frontier(NamedTuple):
    """One judge's."""

    judge: str
    chart: Markup
    caption: str


class Rated(NamedTuple):
    """A policy's ratings as a line of the table: by judge and axis; empty where it has none."""

    policy: str
    cells: list[tuple[str, str]]
    num: str


class Agreement(NamedTuple):
    """How far two judges order the policies alike."""

    first: str
    second: str
    axis: str
    num_policies: int
    kendall: float
    """Of all pairs of policies, those that both order alike less those that they order otherwise: 1 to -1."""


def judges_of(metrics: Sequence[Metric]) -> list[str]:
    """Those that rated on both axes, in their order."""
    rated = {axis: {m.judge for m in metrics if m.measure == axis} for axis in AXES}
    names = dict.fromkeys(m.judge for m in metrics if m.judge)
    return [name for name in names if all(name in judges for judges in rated.values())]


def ratings_of(metrics: Sequence[Metric], judge: str, axis: str) -> dict[str, Metric]:
    """By policy."""
    return {m.policy: m for m in metrics if m.judge == judge and m.measure == axis and m.group == "all"}


def frontiers(metrics: Sequence[Metric], policies: Sequence[str]) -> list[Frontier]:
    """The plane of each judge, where it rated two policies or more."""
    found = []
    for judge in judges_of(metrics):
        spots = spots_of(metrics, policies, judge)
        if len(spots) > 1:
            title = f"Harmlessness against helpfulness, by {judge_name(judge)}"
            x, y = elo_scales(spots)
            chart = path_chart(
                title, "helpfulness, Elo", "harmlessness, Elo", spots, x, y, ticks(x.low, x.high, TICKS),
                ticks(y.low, y.high, TICKS),
            )  # fmt: skip
            caption = f"{title}, along the training: Elo above {policy_name(spots[0].y.name)}, with 95 % intervals."
            found.append(Frontier(judge, chart, f"{caption} Up and to the right is better."))
    return found


def spots_of(metrics: Sequence[Metric], policies: Sequence[str], judge: str) -> list[Spot]:
    """In the order of training."""
    xs, ys = (ratings_of(metrics, judge, axis) for axis in (HELPFUL, HARMLESS))
    return [
        Spot(dot(xs[p], policies), dot(ys[p], policies), not is_along_the_way(p), is_trained_here(p, policies))
        for p in policies
        if p in xs and p in ys
    ]


def dot(m: Metric, policies: Sequence[str]) -> Dot:
    return Dot(place_of(m.policy, policies), policy_name(m.policy), m.value, m.low, m.high)


def elo_scales(spots: Sequence[Spot]) -> tuple[Scale, Scale]:
    """Axes of equal span with room at the ends: the same Elo has the same length on both."""
    ends = [bounds([s.x for s in spots]), bounds([s.y for s in spots])]
    half = 0.58 * max(max(high - low for low, high in ends), 20.0)
    (left, right), (low, high) = ends
    x, y = (left + right) / 2, (low + high) / 2
    return Scale(x - half, x + half, 52, 404), Scale(y - half, y + half, 340, 14)


def bounds(dots: Sequence[Dot]) -> tuple[float, float]:
    """Of all intervals."""
    return min(d.low for d in dots), max(d.high for d in dots)


def rating_table(metrics: Sequence[Metric], policies: Sequence[str]) -> list[Rated]:
    """A line for each policy: value and interval on both axes, judge after judge."""
    columns = [ratings_of(metrics, judge, axis) for judge in judges_of(metrics) for axis in AXES]
    return [
        Rated(policy, [cell(c.get(policy)) for c in columns], num_of([c[policy] for c in columns if policy in c]))
        for policy in policies
        if any(policy in column for column in columns)
    ]


def cell(m: Metric | None) -> tuple[str, str]:
    return ("–", "") if m is None else (signed(m.value), f"{signed(m.low)} to {signed(m.high)}")


def signed(elo: float) -> str:
    """To one Elo, and nothing is +0."""
    return f"{round(elo):+d}".replace("-", "−")


def num_of(found: Sequence[Metric]) -> str:
    """Comparisons and, in brackets, the prompts or errands that they come from, of both axes."""
    each = dict.fromkeys(f"{m.num_samples} ({m.num_units})" for m in found)
    return ", ".join(each)


def agreements(metrics: Sequence[Metric], policies: Sequence[str]) -> list[Agreement]:
    """Kendall's tau of each two judges, on each axis."""
    found = []
    for first, second in combinations(judges_of(metrics), 2):
        for axis, name in AXES.items():
            a, b = ratings_of(metrics, first, axis), ratings_of(metrics, second, axis)
            both = [p for p in policies if p in a and p in b]
            if len(both) > 1:
                tau = kendall([a[p].value for p in both], [b[p].value for p in both])
                found.append(Agreement(judge_name(first), judge_name(second), name, len(both), tau))
    return found


def said_by_people(metrics: Sequence[Metric]) -> list[str]:
    """How often each judge prefers the side that people prefer, in sentences; none where people judged nothing."""
    return [
        f"{judge_name(m.judge).capitalize()} prefers the side that people prefer in {m.value:.0%} of {m.num_samples} "
        f"comparisons (95 % interval {m.low:.0%} to {m.high:.0%}; by chance 50 %)."
        for m in metrics
        if m.measure == AGREEMENT
    ]


def kendall(a: Sequence[float], b: Sequence[float]) -> float:
    """Kendall's tau-a over all pairs; a pair that either holds equal counts as neither."""
    pairs = list(combinations(range(len(a)), 2))
    signs = [((a[i] > a[j]) - (a[i] < a[j])) * ((b[i] > b[j]) - (b[i] < b[j])) for i, j in pairs]
    return sum(signs) / len(pairs)


def judge_name(judge: str) -> str:
    return judge.replace("_", " ")
