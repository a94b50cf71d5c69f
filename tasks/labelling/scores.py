"""Scores of completions that were shown alone, as direct RLAIF reads them (2309.00267): a distribution over 1 to 10.

A score has no order of presentation, so no position to prefer; two completions are compared by their distributions.
"""

from collections.abc import Sequence


def expected_score(probs: Sequence[float]) -> float:
    """The mean score, 1 to 10, of the probabilities of 1, 2 and on."""
    return sum(score * prob for score, prob in enumerate(probs, start=1))


def prob_from_scores(probs_a: Sequence[float], probs_b: Sequence[float]) -> float:
    """P(a is better): that a score drawn for a is above one drawn for b, plus half of P(they are equal).

    Raises: ValueError: the two are not over the same scores.
    """
    if len(probs_a) != len(probs_b):
        raise ValueError(f"scores: {len(probs_a)} probabilities for a and {len(probs_b)} for b, expected as many")
    better, below = 0.0, 0.0
    for a, b in zip(probs_a, probs_b, strict=True):
        better += a * (below + b / 2)
        below += b
    return better
