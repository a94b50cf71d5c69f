"""Means with bootstrap intervals that resample whole units, since samples of one errand or prompt are alike."""

import random
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

NUM_RESAMPLES = 2000


class Interval(NamedTuple):
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float
    num_samples: int
    num_units: int


def bootstrap_mean(values: Sequence[float], units: Sequence[str], seed: int = 0) -> Interval:
    """The mean of `values` and its 95 % percentile interval over resampled units.

    Raises: ValueError: no values.
    """
    if not values:
        raise ValueError("bootstrap_mean: no values")
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for value, unit in zip(values, units, strict=True):
        sums[unit][0] += value
        sums[unit][1] += 1
    totals = [sums[unit] for unit in sorted(sums)]
    rng = random.Random(seed)
    means = sorted(resampled_mean(totals, rng) for _ in range(NUM_RESAMPLES))
    low, high = means[round(0.025 * (NUM_RESAMPLES - 1))], means[round(0.975 * (NUM_RESAMPLES - 1))]
    return Interval(sum(values) / len(values), low, high, len(values), len(totals))


def resampled_mean(totals: Sequence[Sequence[float]], rng: random.Random) -> float:
    drawn = rng.choices(totals, k=len(totals))
    return sum(t[0] for t in drawn) / sum(t[1] for t in drawn)
