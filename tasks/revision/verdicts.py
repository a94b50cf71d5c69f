"""How a round ends: what its critique and its revision are worth."""

from typing import Any

from tasks.generation import PLANNED, verdict
from tasks.revision.checks import read_checks
from tasks.revision.points_of_view import confused_critique, confused_revision, without_label
from tasks.revision.wording import CritiqueForm
from tasks.serving import Generation

Ended = dict[str, str | None]
"""Status and reason of a row."""
OK: Ended = {"status": "ok", "reason": None}
NO_OP: Ended = {"status": "skipped", "reason": "no-op: the revision repeats the text"}
ALL_PASSED: Ended = {"status": "skipped", "reason": "all four checks passed: nothing to revise"}


def read_critique(critique: Generation, text: str, form: CritiqueForm) -> tuple[Ended | None, dict[str, Any]]:
    """How the round ends without a revision, or None where one is to be asked for; and the columns of the checks."""
    ended = verdict(critique, "critique")
    if ended["status"] != "ok":
        return ended, {}
    said = critique.text or ""
    confused = confused_critique(said, text)
    if confused:
        return confusion(confused), {}
    if form == "plain" or critique.finish_reason == PLANNED:  # a plan takes it that there is something to revise
        return None, {}
    checks = read_checks(said)
    if checks.problem:
        return unparsable(f"critique: {checks.problem}"), checks.columns
    return (ALL_PASSED if checks.all_passed else None), checks.columns


def read_revision(revision: Generation, text: str, critique: str) -> Ended:
    """How the round ends with a revision of `text`."""
    ended = verdict(revision, "revision")
    if ended["status"] != "ok":
        return ended
    said = without_label(revision.text or "", "revision")
    if not said.strip():
        return unparsable("the revision is empty")
    confused = confused_revision(said, critique)
    if confused:
        return confusion(confused)
    return NO_OP if said.split() == text.split() else OK


def confusion(what: str) -> Ended:
    return unparsable(f"point-of-view confusion: {what}")


def unparsable(reason: str) -> Ended:
    return {"status": "unparsable", "reason": reason}
