"""What one evaluator makes of one comparison under one question: its samples and both orders as one probability.

Probabilities are averaged, not log-odds. A judge that takes the first option whatever it says, 0.9999 in one order
and 0.1 in the other, is at 0.55 by probabilities; by log-odds it is at 0.97, since the surer order outvotes the other.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import NamedTuple

from tasks.labelling.scores import prob_from_scores
from tasks.preference.config import Clamp, Contradictions
from tasks.schema import Label

SAMPLE_WEIGHTS: dict[Contradictions, float] = {"keep": 1.0, "down_weight": 0.25, "drop": 0.0}
"""What a sample counts whose reasoning contradicts its answer."""
CLAMPS: dict[Clamp, tuple[float, float]] = {"0.4-0.6": (0.4, 0.6), "0.2-0.8": (0.2, 0.8), "off": (0.0, 1.0)}
HARD = "hard/"
"""What the slot of a hard constraint begins with."""
CONSISTENCY = "consistency"


class Opinion(NamedTuple):
    """One evaluator's answer to one question about one comparison."""

    evaluator: str
    slot: str
    principle_id: str
    principle_hash: str
    prob_a: float | None
    """P(completion_a is better); None where too little was answered."""
    by_order: tuple[float, float] | None
    """The same in order `ab` and in order `ba`, not clamped; a score has no order, so both are alike."""
    weight: float
    """1, or less where contradicting samples are down-weighted."""
    reason: str | None
    """Why there is no probability."""


def opinions_of(labels: Iterable[Label], contradictions: Contradictions, clamp: Clamp) -> list[Opinion]:
    """One opinion for each evaluator and slot, sorted by evaluator, slots as they come; no consistency checks."""
    by_slot: dict[tuple[str, str], list[Label]] = defaultdict(list)
    for row in labels:
        if row.slot != CONSISTENCY:
            by_slot[row.evaluator, row.slot].append(row)
    found = [opinion_of(rows, contradictions, clamp) for rows in by_slot.values()]
    return sorted(found, key=lambda opinion: opinion.evaluator)


def opinion_of(rows: Sequence[Label], contradictions: Contradictions, clamp: Clamp) -> Opinion:
    """The opinion that all rows of one evaluator and slot make together."""
    weights = {row.row_id: sample_weight(row, contradictions) for row in rows}
    used = [row for row in rows if row.status == "ok" and weights[row.row_id] > 0]
    by_order = scored(used) if rows[0].form == "score" else both_orders(used, weights)
    low, high = CLAMPS[clamp] if rows[0].form == "reasoned" else (0.0, 1.0)
    return Opinion(
        evaluator=rows[0].evaluator,
        slot=rows[0].slot,
        principle_id=rows[0].principle_id,
        principle_hash=rows[0].principle_hash,
        prob_a=min(max(fmean(by_order), low), high) if by_order else None,
        by_order=by_order,
        weight=fmean(weights[row.row_id] for row in used) if by_order else 0.0,
        reason=None if by_order else why_none(rows, len(used)),
    )


def sample_weight(row: Label, contradictions: Contradictions) -> float:
    return SAMPLE_WEIGHTS[contradictions] if row.contradicts else 1.0


def both_orders(rows: Sequence[Label], weights: dict[str, float]) -> tuple[float, float] | None:
    """Mean P(a is better) over the samples of each order; None unless both were answered."""
    samples: dict[str, list[Label]] = defaultdict(list)
    for row in rows:
        if row.prob_a is not None:
            samples[row.order].append(row)
    if not {"ab", "ba"} <= set(samples):
        return None
    ab, ba = (weighted_mean([(r.prob_a or 0.0, weights[r.row_id]) for r in samples[order]]) for order in ("ab", "ba"))
    return ab, ba


def scored(rows: Sequence[Label]) -> tuple[float, float] | None:
    """P(a scores above b), from the scores of each shown alone; None unless both were scored."""
    probs = {row.order: row.score_probs for row in rows if row.score_probs}
    if not {"a", "b"} <= set(probs):
        return None
    prob = prob_from_scores(probs["a"] or [], probs["b"] or [])
    return prob, prob


def weighted_mean(values: Sequence[tuple[float, float]]) -> float:
    """Of (value, weight) pairs; the same whatever their order. Raises: ZeroDivisionError: no weight at all."""
    total = fmean(weight for _, weight in values)
    return fmean(value * weight for value, weight in values) / total


def why_none(rows: Sequence[Label], num_used: int) -> str:
    """Why an evaluator has no probability: a row that failed, or reasonings that were dropped."""
    bad = next((row for row in rows if row.status != "ok"), None)
    dropped = sum(row.status == "ok" for row in rows) - num_used
    if dropped:
        who = rows[0].evaluator
        return f"{who}: {dropped} of {len(rows)} reasonings contradict their answer, too few are left in one order"
    return (bad.reason or bad.status) if bad else "no label in both orders"
