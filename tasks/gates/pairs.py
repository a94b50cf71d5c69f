"""What a gate needs of a label set, read once and row by row: each comparison's two orders, and how its rows ended."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from statistics import fmean
from typing import NamedTuple

from tasks.gates.refusals import declines
from tasks.schema import Comparison, Label
from tasks.stage import StageFailed


class Pair(NamedTuple):
    """One comparison as an evaluator judged it."""

    ab: float
    """P(a is better) where a was shown first."""
    ba: float
    """P(a is better) where a was shown second."""
    longer: int
    """1: a is longer, -1: b is, 0: they are as long."""

    @property
    def averaged(self) -> float:
        return (self.ab + self.ba) / 2


@dataclass
class LabelSet:
    """One evaluator's labels, as far as gates look at them."""

    pairs: list[Pair] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    """Of rows that are refused, unparsable or failed."""
    num_shown_together: int = 0
    """Rows that compare two completions under a drawn principle, whatever became of them."""
    num_refusing: int = 0
    """Rows where the model was asked to judge and said something else."""
    num_reasoned: int = 0
    num_concluding: int = 0
    """Reasoned rows whose reasoning says which is better."""
    num_contradicting: int = 0

    @property
    def num_asked(self) -> int:
        return self.statuses.total() - self.statuses["skipped"]

    @property
    def num_bad(self) -> int:
        return self.num_asked - self.statuses["ok"]


def read_label_set(comparisons: Iterable[Comparison], labels: Iterable[Label]) -> LabelSet:
    """The labels, which come in the order of their comparisons; a million of them take a pair of numbers each."""
    found = LabelSet()
    for comparison, rows in beside_comparisons(comparisons, labels):
        for row in rows:
            count(found, row)
        pair = pair_of(comparison, rows)
        if pair is not None:
            found.pairs.append(pair)
    return found


def beside_comparisons(
    comparisons: Iterable[Comparison], labels: Iterable[Label]
) -> Iterator[tuple[Comparison, list[Label]]]:
    """Each comparison that has labels, with them.

    Raises: StageFailed: labels of a comparison that does not follow; they are of another version.
    """
    following = iter(comparisons)
    for name, rows in groupby(labels, key=lambda row: row.comparison_id):
        comparison = next((c for c in following if c.row_id == name), None)
        if comparison is None:
            raise StageFailed(f"labels of {name!r}: no such comparison follows in the comparisons of this run")
        yield comparison, list(rows)


def count(found: LabelSet, row: Label) -> None:
    found.statuses[row.status] += 1
    if row.status not in ("ok", "skipped"):
        found.reasons[row.reason or row.status] += 1
    found.num_refusing += is_declined(row)
    found.num_shown_together += row.order in ("ab", "ba") and not is_constraint(row)
    if row.form == "reasoned" and row.status == "ok":
        found.num_reasoned += 1
        found.num_concluding += row.contradicts is not None
        found.num_contradicting += row.contradicts is True


def is_declined(row: Label) -> bool:
    """Refused by the server, refused in the reasoning, or with next to no probability on any answer."""
    without_answer = row.status == "failed" and row.logprob_a is not None
    return row.status == "refused" or without_answer or declines(row.reasoning or "")


def is_constraint(row: Label) -> bool:
    """Whether it was asked a hard constraint, beside what was drawn."""
    return row.slot.startswith("hard/")


def pair_of(comparison: Comparison, labels: Sequence[Label]) -> Pair | None:
    """Mean over drawn principles and samples in each order; None where no principle was answered in both orders.

    Hard constraints stay out: most pairs are equal by them, and a tie in two orders tells nothing of a bias.
    """
    slots: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in labels:
        if row.status == "ok" and row.prob_a is not None and not is_constraint(row):
            slots[row.slot][row.order].append(row.prob_a)
    both = [(fmean(orders["ab"]), fmean(orders["ba"])) for orders in slots.values() if {"ab", "ba"} <= orders.keys()]
    if not both:
        return None
    lengths = len(comparison.completion_a or ""), len(comparison.completion_b or "")
    return Pair(
        fmean(ab for ab, _ in both), fmean(ba for _, ba in both), (lengths[0] > lengths[1]) - (lengths[0] < lengths[1])
    )
