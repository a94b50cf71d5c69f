"""The constitution that the run was given, and how often each principle was drawn."""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import pyarrow as pa

from constitutions import Constitution, Principle


class Article(NamedTuple):
    """One principle in the table; a count is None in a phase it does not serve."""

    principle: Principle
    critiques: str
    labels: str


def articles(constitution: Constitution, revisions: pa.Table, labels: pa.Table) -> list[Article]:
    """Every principle in the order of the file, with its draws in both phases."""
    critiques, judged = critique_draws(revisions), label_draws(labels)
    return [
        Article(
            principle,
            draws(critiques, principle, principle.critique_request),
            draws(judged, principle, principle.comparison_question),
        )
        for principle in constitution.principles
    ]


def critique_draws(revisions: pa.Table) -> Counter[str]:
    """Rounds by the principle that they were asked under; a skipped round was not asked."""
    columns = (revisions.column(c).to_pylist() for c in ("principle_id", "status"))
    return Counter(principle for principle, status in zip(*columns, strict=True) if status != "skipped")


def label_draws(labels: pa.Table) -> Counter[str]:
    """Comparisons by the principle that they were judged under; both orders of one count once."""
    columns = (labels.column(c).to_pylist() for c in ("comparison_id", "principle_id", "status"))
    asked = {
        (comparison, principle) for comparison, principle, status in zip(*columns, strict=True) if status != "skipped"
    }
    return Counter(principle for _, principle in asked)


def draws(counts: Mapping[str, int], principle: Principle, text: str | None) -> str:
    """Count and share of the phase's draws; a dash for a principle without a part in the phase."""
    if text is None or not principle.enabled:
        return "–"
    return f"{counts.get(principle.id, 0)} ({counts.get(principle.id, 0) / max(sum(counts.values()), 1):.0%})"
