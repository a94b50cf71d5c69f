"""What lint says of demonstrations: their sides, their reasoning, what was left to be filled in."""

import re
from collections.abc import Iterator
from typing import Literal

from constitutions import wording
from constitutions.demonstrations import ComparisonDemonstration
from constitutions.model import Constitution

Parts = tuple[str, Literal["error", "warning", "note"], str, str]  # code, level, message, advice
_CONCLUSION = re.compile(r"(?:\(|\b(?i:option|response|completion|answer|reply) )([AB])\b")


def findings(constitution: Constitution) -> Iterator[Parts]:
    """Code, level, message and advice of each finding."""
    yield from answers(constitution.comparison_demonstrations)
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
        num_a = sum(d.answer == "A" for d in group)
        num_b = len(group) - num_a
        if abs(num_a - num_b) > 1:
            message = f"{num_b} B to {num_a} A are the answers of the {len(group)} comparison demonstrations {kind}"
            advice = "show them through in_seeded_order, which evens this out, or exchange the sides of some"
            yield "answer-imbalance", "warning", message, advice


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
