"""How far evaluators agree with each other and with people: shares and kappas.

Cohen's kappa is (observed - expected) / (1 - expected) agreement of two raters; Fleiss' is the same for several.
0 is what chance gives with their own habits, 1 is full agreement, and it is None where chance alone would agree.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

from tasks.bootstrap import bootstrap_mean
from tasks.preference.combine import Side, evaluator_answers, side_of
from tasks.preference.opinions import opinions_of
from tasks.schema import Label

if TYPE_CHECKING:
    from tasks.human_labels import HumanLabel

ALL = "all principles"


class PairAgreement(NamedTuple):
    """Two evaluators on the comparisons that both answered."""

    first: str
    second: str
    num: int
    agreement: float
    kappa: float | None


class Judged(NamedTuple):
    """One evaluator's answer to a question that a person answered too."""

    unit: str
    """The prompt: what a bootstrap resamples."""
    principle_id: str
    evaluator: str
    prob_a: float
    better: Side
    """What the person said."""


class HumanAgreement(NamedTuple):
    """One evaluator and people, under one principle or all."""

    principle_id: str
    evaluator: str
    num: int
    agreement: float
    """Share on which both name the same side; undecided on one hand counts half."""
    low: float
    """Lower end of the 95 % bootstrap interval over prompts; 0 to 1 where there is one, which tells of no other."""
    high: float
    kappa: float | None


def cohen_kappa(first: Sequence[str], second: Sequence[str]) -> float | None:
    """Of two raters' categories of the same items, in one order; None without items or where both never vary.

    Raises: ValueError: not as many of one as of the other.
    """
    if len(first) != len(second):
        raise ValueError(f"cohen_kappa: {len(first)} ratings and {len(second)}, expected as many")
    if not first:
        return None
    observed = fmean(a == b for a, b in zip(first, second, strict=True))
    counts, others = Counter(first), Counter(second)
    expected = sum(counts[name] * others[name] for name in counts) / len(first) ** 2
    return beyond_chance(observed, expected)


def fleiss_kappa(ratings: Sequence[Sequence[str]]) -> float | None:
    """Of items that were each rated as often, by whichever raters; None without items or where none ever varies.

    Raises: ValueError: an item has fewer than two ratings, or another number than the first.
    """
    if not ratings:
        return None
    num = len(ratings[0])
    if num < 2 or any(len(item) != num for item in ratings):
        counts = sorted({len(item) for item in ratings})
        raise ValueError(f"fleiss_kappa: items with {counts} ratings, expected two or more and the same for each")
    pairs = num * (num - 1)
    observed = fmean(sum(n * (n - 1) for n in Counter(item).values()) / pairs for item in ratings)
    totals = Counter(name for item in ratings for name in item)
    expected = sum((count / totals.total()) ** 2 for count in totals.values())
    return beyond_chance(observed, expected)


def beyond_chance(observed: float, expected: float) -> float | None:
    return None if expected == 1 else (observed - expected) / (1 - expected)


def answers_of(labels: Iterable[Label], priorities: Mapping[str, int] | None = None) -> dict[str, dict[str, float]]:
    """P(a is better) by comparison and evaluator, as labelled: nothing clamped, no contradiction left out."""
    by_comparison: dict[str, list[Label]] = defaultdict(list)
    for row in labels:
        by_comparison[row.comparison_id].append(row)
    answers = {
        name: evaluator_answers(opinions_of(rows, "keep", "off"), priorities or {})
        for name, rows in by_comparison.items()
    }
    return {name: {who: answer.prob_a for who, answer in found.items()} for name, found in answers.items() if found}


def jury_agreement(answers: Mapping[str, Mapping[str, float]]) -> list[PairAgreement]:
    """Every two evaluators, on the comparisons that both answered."""
    names = sorted({name for found in answers.values() for name in found})
    pairs = []
    for first, second in combinations(names, 2):
        both = [(side_of(f[first]), side_of(f[second])) for f in answers.values() if first in f and second in f]
        if both:
            agreement = fmean(a == b for a, b in both)
            kappa = cohen_kappa([a for a, _ in both], [b for _, b in both])
            pairs.append(PairAgreement(first, second, len(both), agreement, kappa))
    return pairs


def jury_kappa(answers: Mapping[str, Mapping[str, float]]) -> tuple[int, float | None]:
    """Comparisons that every evaluator answered, and Fleiss' kappa on them; None for a single evaluator."""
    names = {name for found in answers.values() for name in found}
    rated = [[side_of(prob) for prob in found.values()] for found in answers.values() if set(found) == names]
    return len(rated), fleiss_kappa(rated) if len(names) > 1 else None


def judged_by_people(labels: Iterable[Label], people: Iterable["HumanLabel"]) -> list[Judged]:
    """Each evaluator's answer to each question that a person answered: same comparison, same wording.

    The calibration slice: probabilities beside what people say.
    """
    by_comparison: dict[str, list[Label]] = defaultdict(list)
    for row in labels:
        by_comparison[row.comparison_id].append(row)
    return [
        Judged(person.prompt_id, person.principle_id, opinion.evaluator, opinion.prob_a, person.better)
        for person in people
        for opinion in opinions_of(by_comparison[person.comparison_id], "keep", "off")
        if opinion.principle_hash == person.principle_hash and opinion.prob_a is not None
    ]


def human_agreement(judged: Sequence[Judged]) -> list[HumanAgreement]:
    """Agreement with people by evaluator: over all principles, then under each."""
    groups: dict[tuple[str, str], list[Judged]] = defaultdict(list)
    for row in judged:
        groups[row.evaluator, ALL].append(row)
        groups[row.evaluator, row.principle_id].append(row)
    order = sorted(groups, key=lambda group: (group[0], group[1] != ALL, group[1]))
    return [agreement_with_people(principle, who, groups[who, principle]) for who, principle in order]


def agreement_with_people(principle: str, evaluator: str, judged: Sequence[Judged]) -> HumanAgreement:
    sides = [(side_of(row.prob_a), row.better) for row in judged]
    interval = bootstrap_mean([agrees(*pair) for pair in sides], [row.unit for row in judged])
    kappa = cohen_kappa([model for model, _ in sides], [person for _, person in sides])
    low, high = (interval.low, interval.high) if interval.num_units > 1 else (0.0, 1.0)
    return HumanAgreement(principle, evaluator, len(sides), interval.mean, low, high, kappa)


def agrees(model: Side, person: Side) -> float:
    if model == person:
        return 1.0
    return 0.5 if "tie" in (model, person) else 0.0
