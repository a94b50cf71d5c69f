"""Elo of policies from comparisons: the Bradley-Terry model, fitted by choix, with bootstrap intervals.

A comparison gives each side the probability that it is better as its part of one win, so a draw is half a win each.
Ratings are relative: the first policy stands at 0, and an interval is one of the difference from it. Whole prompts (or
errands) are resampled, since comparisons on one prompt are alike.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

ELO_PER_NAT = 400 / math.log(10)
"""Elo of one nat of log odds: 174, as in 2204.05862, section 2.2."""
DRAWS = 1.0
"""Draws that each two policies that met are given on top, so that one that always wins has a finite rating."""
NUM_RESAMPLES = 1000


class Result(NamedTuple):
    """One comparison of two policies."""

    a: str
    b: str
    prob_a: float
    """P(a's completion is better)."""
    unit: str
    """What is resampled as a whole."""


class Rating(NamedTuple):
    """One policy's."""

    policy: str
    elo: float
    low: float
    """Lower end of the 95 % interval."""
    high: float
    num_results: int
    num_units: int


def rate(
    results: Sequence[Result], policies: Sequence[str], seed: int = 0, num_resamples: int = NUM_RESAMPLES
) -> list[Rating]:
    """Ratings of the policies that met the first one, if only by way of others, in the order of `policies`.

    Raises: ValueError: a result names a policy that is not among them.
    """
    place = {policy: i for i, policy in enumerate(policies)}
    unknown = {name for r in results for name in (r.a, r.b)} - place.keys()
    if unknown:
        raise ValueError(f"elo: results of {sorted(unknown)}, expected only {list(policies)}")
    connected = reachable(results, policies)
    names = [policy for policy in policies if policy in connected]
    if len(names) < 2:
        return []
    wins, met = wins_by_unit(results, {name: i for i, name in enumerate(names)})
    drawn = np.random.default_rng(seed).multinomial(len(wins), np.full(len(wins), 1 / len(wins)), num_resamples)
    resampled = (drawn @ wins.reshape(len(wins), -1)).reshape(num_resamples, len(names), len(names))
    draws = met * (DRAWS / 2)
    fitted = fit(wins.sum(0) + draws)
    ratings = np.array([to_elo(fit(each + draws, fitted)) for each in resampled])
    tail = tail_of(len(wins))
    low, high = np.quantile(ratings, [tail, 1 - tail], axis=0)
    return [
        Rating(name, float(elo), float(low[i]), float(high[i]), *counts(results, name))
        for i, (name, elo) in enumerate(zip(names, to_elo(fitted), strict=True))
    ]


def tail_of(num_units: int) -> float:
    """The quantile at which a 95 % percentile interval of so few units starts.

    A bootstrap's spread is too small by sqrt((n - 1) / n), and a normal's tails are thinner than Student's: the
    "expanded" interval of Hesterberg 2015, What Teachers Should Know about the Bootstrap, section 4.3.
    """
    from scipy import stats

    if num_units < 2:
        return 0.0
    student = stats.t.ppf(0.025, num_units - 1)
    return float(stats.norm.cdf(student * math.sqrt(num_units / (num_units - 1))))


def reachable(results: Iterable[Result], policies: Sequence[str]) -> set[str]:
    """The policies that a chain of comparisons connects with the first."""
    pairs = {frozenset((r.a, r.b)) for r in results}
    found, newest = set(policies[:1]), set(policies[:1])
    while newest:
        newest = {name for pair in pairs if pair & newest for name in pair} - found
        found |= newest
    return found


def wins_by_unit(results: Sequence[Result], place: Mapping[str, int]) -> tuple[Array, Array]:
    """Wins of row over column, (units, policies, policies), and 1 where the two met at all."""
    units = {unit: i for i, unit in enumerate(dict.fromkeys(r.unit for r in results))}
    wins = np.zeros((len(units), len(place), len(place)))
    for r in results:
        if r.a in place and r.b in place:
            wins[units[r.unit], place[r.a], place[r.b]] += r.prob_a
            wins[units[r.unit], place[r.b], place[r.a]] += 1 - r.prob_a
    total = wins.sum(0)
    return wins, (total + total.T > 0).astype(np.float64)


def fit(wins: Array, start: Array | None = None) -> Array:
    """Log strength of each policy, in nats, from wins of row over column; `start` only makes it faster."""
    from choix import ilsr_pairwise_dense

    return np.asarray(ilsr_pairwise_dense(wins, initial_params=start), dtype=np.float64)


def to_elo(strengths: Array) -> Array:
    """Relative to the first."""
    return (strengths - strengths[0]) * ELO_PER_NAT


def counts(results: Sequence[Result], policy: str) -> tuple[int, int]:
    """Comparisons that a policy was in, and the units that they come from."""
    own = [r.unit for r in results if policy in (r.a, r.b)]
    return len(own), len(set(own))
