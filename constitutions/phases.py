"""The two phases that use a constitution: which principles serve each, and what a row of it is asked."""

from typing import Literal, get_args

from constitutions.model import Constitution, ConstitutionError, Principle

Phase = Literal["revision", "comparison"]
PHASES: tuple[Phase, ...] = get_args(Phase)

PHASE_TEXTS: dict[Phase, tuple[str, ...]] = {
    "revision": ("critique_request", "revision_request"),
    "comparison": ("comparison_question",),
}


def principles_of(constitution: Constitution, phase: Phase) -> tuple[Principle, ...]:
    """The principles that serve the phase, by id; none where no principle does."""
    try:
        return constitution.revision_principles() if phase == "revision" else constitution.comparison_principles()
    except ConstitutionError:
        return ()


def constraints_of(constitution: Constitution, phase: Phase) -> tuple[Principle, ...]:
    """The hard constraints that the phase asks beside every draw, by id; often none."""
    return constitution.revision_constraints() if phase == "revision" else constitution.comparison_constraints()


def slice_of(constitution: Constitution, phase: Phase) -> str | None:
    """Hash of what the phase uses; None where no principle serves it."""
    if not principles_of(constitution, phase):
        return None
    return constitution.revision_slice() if phase == "revision" else constitution.comparison_slice()


def text_hash(principle: Principle, phase: Phase) -> str:
    """Hash of the text that the phase uses; rows keep it as `principle_hash`."""
    return principle.revision_hash if phase == "revision" else principle.comparison_hash


def asked_hashes(constitution: Constitution, drawn: Principle, phase: Phase) -> tuple[str, ...]:
    """Hashes of what a row that drew `drawn` is asked: a critique names the hard constraints too, each text once.

    In the comparison phase each hard constraint is a question, and so a row, of its own.
    """
    if phase == "comparison":
        return (text_hash(drawn, phase),)
    beside = [c for c in constraints_of(constitution, phase) if c.id != drawn.id]
    return (text_hash(drawn, phase), *(text_hash(c, phase) for c in beside))


def demonstrations_hashes(constitution: Constitution, phase: Phase) -> tuple[str, ...]:
    """Hashes of the demonstrations that requests of the phase are preceded by, in order."""
    return tuple(shown.hash for shown in getattr(constitution, f"{phase}_demonstrations"))
