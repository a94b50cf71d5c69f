"""What each principle did: how often it was drawn, what came of it, and which never were or contradict each other."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import pyarrow as pa

from constitutions import Constitution, Principle
from tasks.gates.intervals import share
from tasks.preference.combine import NO_OPINION
from tasks.report.judged import ALL, Judged, rows_of
from tasks.report.rounds import CONFUSED, FAILED, FOUND, NO_OP, PASSED, ending

NUM_CONFLICTS = 12


class Critiques(NamedTuple):
    """What the rounds of revision under some principles came to."""

    asked: int
    found: int
    """The text was revised."""
    no_op: int
    passed: int
    """All four checks passed."""
    confused: int
    failed: int


class Verdicts(NamedTuple):
    """What the judgements under some principles came to, by comparison and evaluator."""

    asked: int
    flips: int
    """Both orders chose the same position."""
    num_placed: int
    """Those that were shown both completions together, so that they could flip."""
    margins: float
    """Sum of |P - 0.5|."""

    @property
    def flip_rate(self) -> float | None:
        return self.flips / self.num_placed if self.num_placed else None

    @property
    def margin(self) -> float | None:
        return self.margins / self.asked if self.asked else None


NO_CRITIQUES, NO_VERDICTS = Critiques(0, 0, 0, 0, 0, 0), Verdicts(0, 0, 0, 0.0)


class Article(NamedTuple):
    """One principle, or a whole cluster, in the table; None in a phase that it does not serve."""

    name: str
    principle: Principle | None
    critiques: Critiques | None
    critique_share: float
    """Of the phase's rounds."""
    verdicts: Verdicts | None
    verdict_share: float


class Dead(NamedTuple):
    """A principle that no draw of a phase chose."""

    principle: str
    phase: str
    expected: float
    """Draws that its weight lets one expect; with few, chance alone may leave it out."""


class Conflict(NamedTuple):
    """Two principles that were asked of the same comparisons."""

    first: str
    second: str
    asked: int
    opposed: int
    """One clearly preferred one completion, the other the other."""


def clusters(constitution: Constitution, revisions: pa.Table, pairs: Sequence[Judged]) -> list[list[Article]]:
    """For each cluster its own line and then its principles', in the order of the file."""
    critiques, verdicts = critiques_of(revisions), verdicts_of(pairs)
    totals = sum(c.asked for c in critiques.values()), sum(v.asked for v in verdicts.values())
    grouped: dict[str, list[Article]] = defaultdict(list)
    for p in constitution.principles:
        asked = critiques.get(p.id, NO_CRITIQUES) if serves(p, p.critique_request) else None
        judged = verdicts.get(p.id, NO_VERDICTS) if serves(p, p.comparison_question) else None
        grouped[p.cluster].append(article(p.id, p, asked, judged, totals))
    return [[cluster_line(name, found, totals), *found] for name, found in grouped.items()]


def serves(principle: Principle, text: str | None) -> bool:
    return principle.enabled and text is not None


def article(
    name: str, principle: Principle | None, asked: Critiques | None, judged: Verdicts | None, totals: tuple[int, int]
) -> Article:
    nums = asked.asked if asked else 0, judged.asked if judged else 0
    return Article(name, principle, asked, nums[0] / max(totals[0], 1), judged, nums[1] / max(totals[1], 1))


def cluster_line(name: str, articles: Sequence[Article], totals: tuple[int, int]) -> Article:
    """The sum of its principles."""
    asked = [a.critiques for a in articles if a.critiques is not None]
    judged = [a.verdicts for a in articles if a.verdicts is not None]
    return article(
        name,
        None,
        Critiques(*map(sum, zip(*asked, strict=True))) if asked else None,
        Verdicts(*map(sum, zip(*judged, strict=True))) if judged else None,
        totals,
    )


def critiques_of(revisions: pa.Table) -> dict[str, Critiques]:
    """Rounds by the principle that was drawn for them; a round that had nothing to start from was not asked."""
    endings = Counter(
        (principle, end)
        for principle, status, reason in rows_of(revisions, ("principle_id", "status", "reason"))
        if (end := ending(status, reason)) is not None
    )
    order = (FOUND, NO_OP, PASSED, CONFUSED, FAILED)
    counts = {name: [endings[name, end] for end in order] for name in dict.fromkeys(name for name, _ in endings)}
    return {name: Critiques(sum(found), *found) for name, found in counts.items()}


def verdicts_of(pairs: Iterable[Judged]) -> dict[str, Verdicts]:
    """Judgements by the principle that was drawn for them; what a hard constraint was asked is not a draw."""
    by_principle: dict[str, list[Judged]] = defaultdict(list)
    for pair in pairs:
        if not pair.constraint:
            by_principle[pair.principle].append(pair)
    return {
        name: Verdicts(
            asked=len(found),
            flips=sum(p.same_position for p in found),
            num_placed=sum(p.shown_together for p in found),
            margins=sum(abs(p.mean - 0.5) for p in found),
        )
        for name, found in by_principle.items()
    }


def dead_principles(constitution: Constitution, revisions: pa.Table, pairs: Sequence[Judged]) -> list[Dead]:
    """Principles that no draw chose, phase by phase; where all were asked at once none was drawn."""
    drawn = {"critiques": counted(critiques_of(revisions)), "labels": counted(verdicts_of(pairs))}
    phases = {
        "critiques": [p for p in constitution.principles if serves(p, p.critique_request)],
        "labels": [p for p in constitution.principles if serves(p, p.comparison_question)],
    }
    return [dead for phase, usable in phases.items() for dead in never_drawn(phase, usable, drawn[phase])]


def counted(found: Mapping[str, Critiques] | Mapping[str, Verdicts]) -> dict[str, int]:
    return {name: each.asked for name, each in found.items()}


def never_drawn(phase: str, usable: Sequence[Principle], draws: Mapping[str, int]) -> list[Dead]:
    if ALL in draws or not sum(draws.values()):
        return []
    total, weight = sum(draws.values()), sum(p.weight for p in usable)
    return [Dead(p.id, phase, total * p.weight / weight) for p in usable if not draws.get(p.id)]


def conflicts(pairs: Iterable[Judged]) -> list[Conflict]:
    """Principles that an ensemble asked of the same comparisons, those first that surely disagree most often."""
    slots: dict[tuple[str, str], list[Judged]] = defaultdict(list)
    for pair in pairs:
        if not pair.constraint:
            slots[pair.comparison, pair.evaluator].append(pair)
    told: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for found in slots.values():
        for a, b in combinations(sorted(found, key=lambda pair: pair.principle), 2):
            told[a.principle, b.principle].append(opposed(a, b))
    ranked = sorted(told.items(), key=lambda item: (-share(sum(item[1]), len(item[1])).low, item[0]))
    return [Conflict(*names, len(said), sum(said)) for names, said in ranked if any(said)][:NUM_CONFLICTS]


def opposed(a: Judged, b: Judged) -> bool:
    clear = min(abs(a.mean - 0.5), abs(b.mean - 0.5)) >= NO_OPINION
    return clear and (a.mean > 0.5) != (b.mean > 0.5)
