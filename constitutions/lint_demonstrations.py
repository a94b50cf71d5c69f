"""What lint says of demonstrations: their sides, their reasoning, what was left to be filled in."""

import re
from collections.abc import Iterator, Sequence
from typing import Literal

from constitutions import wording
from constitutions.demonstrations import ComparisonDemonstration, RevisionDemonstration, in_seeded_order
from constitutions.model import Constitution

Parts = tuple[str, Literal["error", "warning", "note"], str, str]  # code, level, message, advice
_CONCLUSION = re.compile(r"(?:\(|\b(?i:option|response|completion|answer|reply) )([AB])\b")


def findings(constitution: Constitution) -> Iterator[Parts]:
    """Code, level, message and advice of each finding."""
    yield from answers(constitution.comparison_demonstrations)
    yield from twice(constitution.revision_demonstrations)
    yield from twice(constitution.comparison_demonstrations)
    for d in constitution.comparison_demonstrations:
        yield from one_comparison(d)
    for shown in constitution.revision_demonstrations:
        left = wording.placeholders(f"{shown.critique_request} {shown.revision_request}")
        if left:
            message = f"demonstration {shown.id}: {', '.join(left)} is left in its requests"
            yield "placeholder", "error", message, "write what is meant"
    changed = [d for d in constitution.revision_demonstrations if d.revision != d.completion]
    if constitution.revision_demonstrations and not changed:
        message = "every revision demonstration leaves its completion as it was: it teaches to change nothing"
        yield "no-change", "warning", message, "add one that changes something"


def answers(demonstrations: tuple[ComparisonDemonstration, ...]) -> Iterator[Parts]:
    """How often each side is the answer: separately with and without reasoning, which are shown apart."""
    for kind, apart in (("with reasoning", True), ("without reasoning", False)):
        group = [d for d in demonstrations if (d.reasoning is not None) is apart]
        num_a, num_b = sides(group)
        if abs(num_a - num_b) <= 1:
            continue
        message = f"{num_b} B to {num_a} A are the answers of the {len(group)} comparison demonstrations {kind}"
        shown_a, shown_b = sides(in_seeded_order(group, 0))
        if abs(shown_a - shown_b) <= 1:
            advice = "the seeded order in which they are shown evens this out; exchange the sides of some all the same"
            yield "answer-imbalance", "note", message, advice
        else:
            message += f", and {shown_b} to {shown_a} as they are shown: the others cannot be exchanged"
            yield "answer-imbalance", "warning", message, "write (A) and (B) in those, or exchange the sides of some"


def sides(demonstrations: Sequence[ComparisonDemonstration]) -> tuple[int, int]:
    num_a = sum(d.answer == "A" for d in demonstrations)
    return num_a, len(demonstrations) - num_a


def twice(demonstrations: Sequence[RevisionDemonstration | ComparisonDemonstration]) -> Iterator[Parts]:
    """The same texts under two ids: a row would show one lesson as two."""
    first: dict[str, str] = {}
    for d in demonstrations:
        other = first.setdefault(d.hash, d.id)
        if other != d.id:
            yield "duplicate", "error", f"demonstration {d.id} says the same as {other}", "remove one"


def one_comparison(d: ComparisonDemonstration) -> Iterator[Parts]:
    if d.fixed_because:
        message = f"demonstration {d.id}: its sides cannot be exchanged, {d.fixed_because}"
        yield "fixed-sides", "note", message, "write (A) and (B), or option A and option B"
    concluded = _CONCLUSION.findall(d.reasoning or "")
    if concluded and concluded[-1] != d.answer:
        message = f"demonstration {d.id}: its reasoning ends with {concluded[-1]} and its answer is {d.answer}"
        yield "contradiction", "error", message, "mend one of the two: it would teach to contradict itself"
    left = wording.placeholders(d.question or "")
    if left:
        yield "placeholder", "error", f"demonstration {d.id}: {', '.join(left)} is left in its question", "write it"
