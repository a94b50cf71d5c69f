"""What decides whatever the drawn principle says: a broken hard constraint, or reasoning that its answer belies."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from tasks.preference.combine import side_of
from tasks.preference.opinions import CONSISTENCY, HARD, Opinion
from tasks.schema import Label


class Override(NamedTuple):
    """P(completion_a is better) by what overrode the labels."""

    prob_a: float
    decided_by: str


class Broken(NamedTuple):
    """A hard constraint that one of the completions breaks."""

    principle_id: str
    prob_a: float
    """Far above 0.5 where completion_b breaks it, far below where completion_a does."""


def broken_constraints(opinions: Sequence[Opinion], hard: frozenset[str], margin: float) -> list[Broken]:
    """The hard constraints that one completion breaks: decisively in each order, by the mean over evaluators.

    `hard` are the ids of hard constraints: one that was drawn was asked in its slot, the others beside it.
    """
    asked: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for opinion in opinions:
        drawn = opinion.slot.isdigit() and opinion.principle_id in hard
        if opinion.by_order is not None and (drawn or opinion.slot.startswith(HARD)):
            asked[opinion.principle_id].append(opinion.by_order)
    found = []
    for name, orders in sorted(asked.items()):
        ab, ba = (fmean(order) for order in zip(*orders, strict=True))
        if max(ab, ba) <= 0.5 - margin or min(ab, ba) >= 0.5 + margin:
            found.append(Broken(name, fmean((ab, ba))))
    return found


def hard_override(
    broken: Sequence[Broken], priorities: Mapping[str, int], prob_a: float | None
) -> tuple[Override | None, str | None]:
    """The side that breaks a constraint loses, at least as surely as by the labels (`prob_a`).

    Constraints that reject opposite sides leave it to those of the highest priority; where these are at odds too
    nothing is overridden, and the second value says so.
    """
    if not broken:
        return None, None
    if len({side_of(b.prob_a) for b in broken}) > 1:
        top = max(priorities.get(b.principle_id, 0) for b in broken)
        broken = [b for b in broken if priorities.get(b.principle_id, 0) == top]
    if len({side_of(b.prob_a) for b in broken}) > 1:
        names = ", ".join(b.principle_id for b in broken)
        return None, f"hard constraints of one priority reject opposite sides, so none decides: {names}"
    surest = max(broken, key=lambda b: abs(b.prob_a - 0.5))
    labels = surest.prob_a if prob_a is None else prob_a
    prob = max(surest.prob_a, labels) if surest.prob_a > 0.5 else min(surest.prob_a, labels)
    return Override(prob, f"{HARD}{surest.principle_id}"), None


def consistency_override(labels: Iterable[Label]) -> Override | None:
    """A completion whose answer does not follow from its visible reasoning loses to one that is not so.

    A completion without visible reasoning (`skipped`) has none to belie; one that could not be judged is not
    known, so nothing is overridden. Of several evaluators the mean counts.
    """
    checks: dict[str, list[Label]] = {"a": [], "b": []}
    for row in labels:
        if row.slot == CONSISTENCY and row.order in checks:
            checks[row.order].append(row)
    probs = {side: consistent(rows) for side, rows in checks.items()}
    a, b = probs["a"], probs["b"]
    if a is None or b is None or (a < 0.5) == (b < 0.5):
        return None
    return Override(a if a < 0.5 else 1 - b, CONSISTENCY)


def consistent(rows: Sequence[Label]) -> float | None:
    """P(consistent) of one completion: 1 where it shows no reasoning, None where that is not known."""
    probs = [row.prob_consistent for row in rows if row.status == "ok" and row.prob_consistent is not None]
    if probs:
        return fmean(probs)
    return 1.0 if rows and all(row.status == "skipped" for row in rows) else None
