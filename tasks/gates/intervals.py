"""Figures with their 95 % intervals in closed form: a label set may hold a million rows, too many to resample."""

import math
from collections.abc import Sequence
from typing import NamedTuple

Z = 1.959964
"""Half-width of the 95 % interval of a normal distribution."""


class Measured(NamedTuple):
    """A figure, its interval and what it rests on; a value without samples is 0."""

    value: float
    low: float
    high: float
    num_samples: int


def counted(value: float, num_samples: int) -> Measured:
    """A figure of everything there is: nothing about it is uncertain."""
    return Measured(value, value, value, num_samples)


def share(num: int, of: int) -> Measured:
    """A share with its Wilson interval, which is honest at 0 and 1, where a bootstrap has no width."""
    if of == 0:
        return counted(0.0, 0)
    p, z2 = num / of, Z * Z / of
    middle = (p + z2 / 2) / (1 + z2)
    half = Z * math.sqrt(p * (1 - p) / of + z2 / (4 * of)) / (1 + z2)
    return Measured(p, max(middle - half, 0.0), min(middle + half, 1.0), of)


def mean(values: Sequence[float]) -> Measured:
    """A mean with the interval of the normal distribution."""
    if len(values) < 2:
        return counted(math.fsum(values), len(values))
    middle = math.fsum(values) / len(values)
    variance = math.fsum((value - middle) ** 2 for value in values) / (len(values) - 1)
    half = Z * math.sqrt(variance / len(values))
    return Measured(middle, middle - half, middle + half, len(values))


def ratio(values: Sequence[float], of: Sequence[float]) -> Measured:
    """The sum of one thing over the sum of another, with the interval of a ratio of means; 0 of nothing is 0."""
    n, whole = len(values), math.fsum(of)
    if n < 2 or whole <= 1e-12 * n:
        return counted(0.0, n)
    r = math.fsum(values) / whole
    off = math.fsum((value - r * each) ** 2 for value, each in zip(values, of, strict=True)) / (n - 1)
    half = Z * math.sqrt(off / n) / (whole / n)
    return Measured(r, r - half, r + half, n)


def correlation(xs: Sequence[float], ys: Sequence[float]) -> Measured:
    """Pearson's r with Fisher's interval; 0 where one side never varies, since it then says nothing of the other."""
    n = len(xs)
    if n < 4:
        return counted(0.0, n)
    mean_x, mean_y = math.fsum(xs) / n, math.fsum(ys) / n
    xx = math.fsum((x - mean_x) ** 2 for x in xs)
    yy = math.fsum((y - mean_y) ** 2 for y in ys)
    if min(xx, yy) <= 1e-18 * n:
        return counted(0.0, n)
    r = math.fsum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / math.sqrt(xx * yy)
    r = max(-1.0, min(r, 1.0))
    middle, half = math.atanh(max(-1 + 1e-9, min(r, 1 - 1e-9))), Z / math.sqrt(n - 3)
    return Measured(r, math.tanh(middle - half), math.tanh(middle + half), n)
