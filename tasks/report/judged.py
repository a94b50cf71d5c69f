"""The labels of a run as sections of the report need them: one value for each question that was answered fully."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

import pyarrow as pa

from tasks.labelling.scores import prob_from_scores

HARD, ALL = "hard/", "all"
"""Slots of hard constraints, and of the whole constitution at once."""
COLUMNS = ("comparison_id", "slot", "order", "principle_id", "form", "prob_a", "score_probs", "status")


class Judged(NamedTuple):
    """P(completion_a is better) of one comparison by one evaluator under one question, in either order."""

    comparison: str
    evaluator: str
    slot: str
    principle: str
    ab: float
    ba: float
    shown_together: bool
    """False for scores: each completion was shown alone, so there is no position to prefer."""

    @property
    def mean(self) -> float:
        return (self.ab + self.ba) / 2

    @property
    def same_position(self) -> bool:
        """Whether both orders chose the same position, so that the verdict flips with the order."""
        return self.ab > 0.5 > self.ba or self.ab < 0.5 < self.ba

    @property
    def constraint(self) -> bool:
        """Whether it is a hard constraint that was asked beside what was drawn."""
        return self.slot.startswith(HARD)


def judged_pairs(labels: Mapping[str, pa.Table]) -> list[Judged]:
    """Every question answered in both orders, samples averaged, in the order of evaluators and rows."""
    return [pair for evaluator, table in labels.items() for pair in pairs_of(evaluator, table)]


def pairs_of(evaluator: str, table: pa.Table) -> Iterable[Judged]:
    """One evaluator's."""
    answers: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    scores: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(dict)
    principles: dict[tuple[str, str], str] = {}
    for comparison, slot, order, principle, form, prob_a, score_probs, status in rows_of(table, COLUMNS):
        name = (comparison, slot)
        if status != "ok":
            continue
        principles[name] = principle
        if form == "score" and score_probs:
            scores[name][order] = score_probs
        elif prob_a is not None:
            answers[name][order].append(prob_a)
    for name, principle in principles.items():
        if {"ab", "ba"} <= answers[name].keys():
            ab, ba = fmean(answers[name]["ab"]), fmean(answers[name]["ba"])
            yield Judged(name[0], evaluator, name[1], principle, ab, ba, shown_together=True)
        elif {"a", "b"} <= scores[name].keys():
            prob = prob_from_scores(scores[name]["a"], scores[name]["b"])
            yield Judged(name[0], evaluator, name[1], principle, prob, prob, shown_together=False)


def rows_of(table: pa.Table, columns: Sequence[str]) -> Iterable[tuple[Any, ...]]:
    """Some columns of a table, row by row."""
    return zip(*(table.column(name).to_pylist() for name in columns), strict=True)


def over_principles(pairs: Iterable[Judged]) -> list[Judged]:
    """One for each comparison and evaluator: the mean over its drawn principles in each order, as the gates take it.

    The slot and the principle are those of the first; what was shown alone, and hard constraints, stay out.
    """
    drawn: dict[tuple[str, str], list[Judged]] = defaultdict(list)
    for pair in pairs:
        if pair.shown_together and not pair.constraint:
            drawn[pair.comparison, pair.evaluator].append(pair)
    return [
        found[0]._replace(ab=fmean(pair.ab for pair in found), ba=fmean(pair.ba for pair in found))
        for found in drawn.values()
    ]


def answers_of(pairs: Iterable[Judged]) -> dict[str, dict[str, float]]:
    """P(a is better) by comparison and evaluator: the mean over drawn principles."""
    drawn: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for pair in pairs:
        if not pair.constraint:
            drawn[pair.comparison][pair.evaluator].append(pair.mean)
    return {name: {who: fmean(probs) for who, probs in found.items()} for name, found in drawn.items()}
