"""Accuracy, ECE, Brier score and log loss of labels whose truth is known, with paired bootstrap intervals.

A label's confidence is the probability of the option that it prefers: that is what `target_prob` tells the reward
model. ECE takes 15 bins of equal mass; equal confidences share a bin, so that labels which say but one number have
one. A label of exactly 0.5 prefers nothing: it counts half in accuracy and is left out of ECE.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
NUM_BINS = 15
NUM_RESAMPLES = 2000
BLOCK = 200
"""Resamples that are in memory at once."""
NUM_CHANCES = 100
"""Draws that the error by chance is the mean of."""
LEAST = 1e-6
"""Log loss holds a probability to be at least this: else one wrong hard label would make it infinite."""
MEASURES = ("accuracy", "ece", "brier", "log_loss")


class Form(NamedTuple):
    """One kind of label on every question."""

    name: str
    right: Array
    """Whether the preferred option is the right one, 0.5 where none is preferred, (questions)."""
    prob: Array | None
    """Probability of the right option, (questions); None where only accuracy can be told."""


class Figure(NamedTuple):
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


class Bin(NamedTuple):
    """Labels of like confidence."""

    confidence: float
    accuracy: float
    num_labels: int


class Summary(NamedTuple):
    """The figures of one form, and their differences from those of the first form, by measure."""

    name: str
    figures: dict[str, Figure]
    differences: dict[str, Figure]
    bins: list[Bin]
    num_undecided: int
    error_by_chance: float
    """The ECE that a form of these confidences would have on so many questions if it meant what it says."""


def form_of(name: str, prob: Array) -> Form:
    """A form by the probabilities that it gives the right options."""
    return Form(name, preference(prob), prob)


def preference(prob: Array) -> Array:
    """1 where the right option is preferred, 0 where a wrong one is, 0.5 where none is."""
    return (np.sign(prob - 0.5) + 1) / 2


def clamp(prob: Array, low: float, high: float) -> Array:
    return np.clip(prob, low, high)


def bin_numbers(confidence: Array) -> NDArray[np.int64]:
    """The bin of each label, from 0: as many in each as equal confidences, which stay together, allow."""
    values, place, counts = np.unique(confidence, return_inverse=True, return_counts=True)
    before = np.concatenate([[0], np.cumsum(counts)[:-1]])
    return (before * min(NUM_BINS, len(values)) // max(len(confidence), 1))[place].astype(np.int64)


def reliability(form: Form) -> list[Bin]:
    """The bins of a form's decided labels, by rising confidence."""
    if form.prob is None:
        return []
    confidence, right = decided(form)
    numbers = bin_numbers(confidence)
    chosen = [numbers == n for n in np.unique(numbers)]
    return [Bin(float(confidence[c].mean()), float(right[c].mean()), int(c.sum())) for c in chosen]


def decided(form: Form) -> tuple[Array, Array]:
    """Confidence and rightness of the labels that prefer an option."""
    assert form.prob is not None
    prefers = form.prob != 0.5
    return np.maximum(form.prob, 1 - form.prob)[prefers], form.right[prefers]


def measured(form: Form, weights: Array) -> Array:
    """Each measure under each weighting of the questions, (weightings, measures); those it has not are nan.

    The bins of ECE stay those of the whole sample.
    """
    totals, right = weights.sum(1), weights @ form.right
    columns = {"accuracy": right / totals}
    if form.prob is not None:
        losses = -np.log(np.clip(form.prob, LEAST, 1))
        columns |= {"brier": weights @ (1 - form.prob) ** 2 / totals, "log_loss": weights @ losses / totals}
        columns["ece"] = calibration_error(form, weights)
    missing = np.full(len(weights), np.nan)
    return np.stack([columns.get(name, missing) for name in MEASURES], axis=1)


def calibration_error(form: Form, weights: Array) -> Array:
    """Expected calibration error under each weighting: mean over bins of |accuracy - confidence|, by their mass."""
    assert form.prob is not None
    confidence, right = decided(form)
    if not len(confidence):
        return np.zeros(len(weights))
    numbers, prefers = bin_numbers(confidence), form.prob != 0.5
    member = (numbers[:, None] == np.unique(numbers)[None]).astype(np.float64)
    gaps = weights[:, prefers] @ (member * (right - confidence)[:, None])
    return np.abs(gaps).sum(1) / np.maximum(weights[:, prefers].sum(1), 1)


def error_by_chance(form: Form, seed: int) -> float:
    """Mean ECE where each label is right with the probability that it says: few questions never give 0."""
    if form.prob is None:
        return 0.0
    confidence, rng = np.maximum(form.prob, 1 - form.prob), np.random.default_rng(seed)
    once, drawn = np.ones((1, len(confidence))), rng.random((NUM_CHANCES, len(confidence))) < confidence
    said = [form._replace(right=right.astype(np.float64)) for right in drawn]
    return float(np.mean([calibration_error(each, once)[0] for each in said]))


def by_category(form: Form, categories: Sequence[str], seed: int = 0) -> list[Summary]:
    """The figures of one form for each category, by name; none where there is but one."""
    names = sorted(set(categories))
    if len(names) < 2:
        return []
    return [summarise([only(form, name, categories)], seed=seed)[0] for name in names]


def only(form: Form, category: str, categories: Sequence[str]) -> Form:
    """The part of a form that is of one category, under the category's name."""
    chosen = np.array([each == category for each in categories])
    prob = None if form.prob is None else form.prob[chosen]
    return Form(category or "no category", form.right[chosen], prob)


def summarise(forms: Sequence[Form], units: Sequence[str] | None = None, seed: int = 0) -> list[Summary]:
    """The figures of each form on the same questions, and the paired differences from the first form.

    `units` says which questions are resampled together; each is its own by default. A figure of resamples that is
    biased as a whole (ECE: by chance alone a resample's is larger) is put back to the sample's before the
    percentiles are taken.

    Raises: ValueError: there is no question.
    """
    num = len(forms[0].right)
    if not num:
        raise ValueError("summarise: no questions, expected at least one")
    once = np.ones((1, num))
    whole = [measured(form, once)[0] for form in forms]
    drawn = [np.concatenate(blocks) for blocks in zip(*resampled(forms, units or range(num), seed), strict=True)]
    return [
        Summary(
            name=form.name,
            figures=intervals(whole[i], drawn[i], at_least=0.0),
            differences=intervals(whole[i] - whole[0], drawn[i] - drawn[0]) if i else {},
            bins=reliability(form),
            num_undecided=int((form.right == 0.5).sum()),
            error_by_chance=error_by_chance(form, seed),
        )
        for i, form in enumerate(forms)
    ]


def resampled(forms: Sequence[Form], units: Sequence[object], seed: int) -> Iterator[list[Array]]:
    """The measures of every form under blocks of resamples, all forms under the same."""
    names: Mapping[object, int] = {unit: i for i, unit in enumerate(dict.fromkeys(units))}
    place, rng = np.array([names[unit] for unit in units]), np.random.default_rng(seed)
    for _ in range(0, NUM_RESAMPLES, BLOCK):
        counts = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=BLOCK)
        weights = counts[:, place].astype(np.float64)
        yield [measured(form, weights) for form in forms]


def intervals(whole: Array, drawn: Array, at_least: float = -np.inf) -> dict[str, Figure]:
    """Centred percentile intervals of the measures that are known."""
    found = {}
    for i, name in enumerate(MEASURES):
        if not np.isnan(whole[i]):
            low, high = np.percentile(drawn[:, i] - drawn[:, i].mean() + whole[i], [2.5, 97.5])
            found[name] = Figure(float(whole[i]), max(float(low), at_least), float(high))
    return found
