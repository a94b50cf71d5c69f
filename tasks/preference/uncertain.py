"""Which comparisons a person should look at: those that the labels are least certain about."""

import heapq
from collections.abc import Iterable
from statistics import fmean
from typing import NamedTuple

from tasks.preference.combine import evaluator_answers
from tasks.preference.opinions import opinions_of
from tasks.preference.reading import Labelled
from tasks.schema import Comparison, Label, Prompt
from tasks.store.identity import digest


class Uncertain(NamedTuple):
    """One comparison with the question that its first slot asked."""

    prompt: Prompt
    comparison: Comparison
    principle_id: str
    principle_hash: str
    margin: float
    """How far the evaluators' mean is from 0.5; 0 where a reasoning contradicts its answer."""


def least_certain(labelled: Iterable[Labelled], num: int, seed: int) -> list[Uncertain]:
    """The `num` comparisons nearest to 0.5, nearest first; equals in an order that the seed gives.

    A comparison without any label is left out: nobody is uncertain about it, it failed.
    """
    found = (
        Uncertain(prompt, comparison, labels[0].principle_id, labels[0].principle_hash, margin)
        for prompt, comparison, labels in labelled
        if (margin := margin_of(labels)) is not None
    )
    return heapq.nsmallest(num, found, key=lambda u: (u.margin, digest([seed, u.comparison.row_id])))


def margin_of(labels: list[Label]) -> float | None:
    answers = evaluator_answers(opinions_of(labels, "keep", "off"), {})
    if not answers:
        return None
    if any(row.contradicts for row in labels):
        return 0.0
    return abs(fmean(answer.prob_a for answer in answers.values()) - 0.5)
