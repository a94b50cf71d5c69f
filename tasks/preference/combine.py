"""Several questions of one evaluator, and several evaluators, as one probability."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Literal, NamedTuple

from tasks.preference.opinions import HARD, Opinion, weighted_mean

NO_OPINION = 0.05
"""A principle whose probability is nearer to 0.5 than this does not disagree with another."""
UNDECIDED = 1e-9
"""Nearer to 0.5 than this is 0.5: p and 1 - p do not always add up to 1 exactly."""

Side = Literal["a", "b", "tie"]


class Answer(NamedTuple):
    """What one evaluator, or all together, makes of a comparison."""

    prob_a: float
    weight: float
    by_priority: bool = False
    """Whether principles disagreed and those of the highest priority decided."""


def side_of(prob_a: float) -> Side:
    """Which completion is the likelier one; `tie` at 0.5."""
    if abs(prob_a - 0.5) <= UNDECIDED:
        return "tie"
    return "a" if prob_a > 0.5 else "b"


def evaluator_answers(opinions: Sequence[Opinion], priorities: Mapping[str, int]) -> dict[str, Answer]:
    """Each evaluator's answer over its drawn principles, by name; one that answered nothing is left out."""
    by_evaluator: dict[str, list[Opinion]] = defaultdict(list)
    for opinion in opinions:
        if opinion.prob_a is not None and not opinion.slot.startswith(HARD):
            by_evaluator[opinion.evaluator].append(opinion)
    return {name: over_principles(found, priorities) for name, found in sorted(by_evaluator.items())}


def over_principles(opinions: Sequence[Opinion], priorities: Mapping[str, int]) -> Answer:
    """The mean over an evaluator's principles. Where some clearly prefer one side and some the other, and their
    priorities differ, the mean of the clear ones of the highest priority.
    """
    deciding = highest_of_disagreeing(opinions, priorities)
    used = deciding or opinions
    prob = weighted_mean([(opinion.prob_a or 0.0, opinion.weight) for opinion in used])
    return Answer(prob, fmean(opinion.weight for opinion in used), bool(deciding))


def highest_of_disagreeing(opinions: Sequence[Opinion], priorities: Mapping[str, int]) -> list[Opinion]:
    """The opinions that decide by their priority; none where priority has nothing to decide."""
    clear = [o for o in opinions if o.prob_a is not None and abs(o.prob_a - 0.5) >= NO_OPINION]
    ranks = [priorities.get(o.principle_id, 0) for o in clear]
    sides = {side_of(o.prob_a or 0.0) for o in clear}
    if len(sides) < 2 or len(set(ranks)) < 2:
        return []
    return [opinion for opinion, rank in zip(clear, ranks, strict=True) if rank == max(ranks)]


def over_evaluators(answers: Mapping[str, Answer], combine: Literal["mean", "majority"]) -> Answer | None:
    """The jury's answer; None where nobody answered. Its weight is the mean of theirs."""
    if not answers:
        return None
    given = list(answers.values())
    prob = weighted_mean([(answer.prob_a, answer.weight) for answer in given])
    if combine == "majority":
        votes = weighted_mean([(vote(answer), answer.weight) for answer in given])
        prob = prob if side_of(votes) == "tie" else votes
    return Answer(prob, fmean(a.weight for a in given), any(a.by_priority for a in given))


def vote(answer: Answer) -> float:
    return {"a": 1.0, "b": 0.0, "tie": 0.5}[side_of(answer.prob_a)]
