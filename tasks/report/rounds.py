"""What became of each round of critique and revision, and whether it made its text better."""

from collections import Counter, defaultdict
from typing import NamedTuple

import pyarrow as pa
from markupsafe import Markup

from tasks.gates.intervals import Measured, mean
from tasks.report.charts import Dot, dot_chart
from tasks.report.judged import rows_of
from tasks.revision.verdicts import ALL_PASSED, confusion
from tasks.revision.verdicts import NO_OP as UNCHANGED

FOUND, NO_OP, PASSED, CONFUSED, FAILED = "revised", "no-op", "all checks passed", "point of view confused", "not ok"
ENDINGS = (FOUND, NO_OP, PASSED, CONFUSED, FAILED)
"""How a round may end that was asked."""
CONFUSION = confusion("")["reason"] or ""
"""What the reason of a confused round begins with."""


class Round(NamedTuple):
    """One round over all prompts."""

    number: int
    """From 1."""
    counts: list[int]
    """By `ENDINGS`."""
    not_asked: int
    improved: Measured | None
    """P(the revision is better than the text before it), a no-op at 0.5; None where it was not measured."""


def ending(status: str, reason: str | None) -> str | None:
    """How a round ended; None for one that had nothing to start from."""
    if status == "ok":
        return FOUND
    if status == "skipped":
        return {UNCHANGED["reason"]: NO_OP, ALL_PASSED["reason"]: PASSED}.get(reason)
    return CONFUSED if (reason or "").startswith(CONFUSION) else FAILED


def rounds(revisions: pa.Table, improvements: pa.Table | None) -> list[Round]:
    """Every round, in order."""
    ended: dict[int, Counter[str | None]] = defaultdict(Counter)
    for number, status, reason in rows_of(revisions, ("round", "status", "reason")):
        ended[number][ending(status, reason)] += 1
    better: dict[int, list[float]] = defaultdict(list)
    for number, prob in rows_of(improvements, ("round", "win_prob")) if improvements is not None else ():
        better[number] += [] if prob is None else [prob]
    return [
        Round(
            number=number + 1,
            counts=[ended[number][end] for end in ENDINGS],
            not_asked=ended[number][None],
            improved=mean(better[number]) if better[number] else None,
        )
        for number in sorted(ended)
    ]


def improvement_chart(found: list[Round]) -> Markup | None:
    """P(better) of each round with its interval; None where no round was measured."""
    dots = [
        Dot(2, f"{each.number}", each.improved.value, each.improved.low, each.improved.high)
        for each in found
        if each.improved is not None
    ]
    return dot_chart("P(revision is better), by round", [("Round: P(better)", dots)]) if dots else None
