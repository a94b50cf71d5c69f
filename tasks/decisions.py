"""What people decided about a change of a constitution: kept in the store, so that nobody is asked twice.

A decision is a tag of `constitutions` at the version it is about. Its log says who, when and why; the first move of it
counts. Its name holds the move of the constitution's own tag and a digest of the run it was asked for: approving one
run approves no other.
"""

from typing import Literal

from tasks.publish import DATASET
from tasks.schema import Frozen
from tasks.store import Store
from tasks.store.identity import digest
from tasks.store.tags import Tag

Word = Literal["approved", "rejected"]
WORDS: tuple[Word, ...] = ("rejected", "approved")  # of two that were somehow both said, the one that costs nothing


class Subject(Frozen):
    """What is decided: whether this run follows this move."""

    constitution: str
    """Its id."""
    sequence: int
    """Of the move, in the log of the constitution's tag."""
    version: str
    """Of the constitution, in the store."""
    run: str
    """Digest of the run's config."""

    @property
    def key(self) -> str:
        """Names the run that follows this move: the same one, however often it is asked for."""
        return f"{self.constitution}:{self.sequence}:{self.run}"


class Decision(Frozen):
    """What was decided, by whom and when."""

    word: Word
    by: str
    """Who, and why, in their own words."""
    at: str
    """UTC, for people."""


def decided(store: Store, subject: Subject) -> Decision | None:
    """The decision, or None where nobody has decided yet."""
    for word in WORDS:
        history = store.tag_history(DATASET, tag_name(subject, word))
        if history:
            return decision_of(history[-1], word)
    return None


def decide(store: Store, subject: Subject, word: Word, by: str) -> Decision:
    """Keep a decision, and return the one that holds: an earlier one stays as it is."""
    found = decided(store, subject)
    if found is None:
        store.tag(DATASET, tag_name(subject, word), subject.version, by)
        found = decided(store, subject)
    assert found is not None
    return found


def decision_of(tag: Tag, word: Word) -> Decision:
    return Decision(word=word, by=tag.by, at=tag.at)


def tag_name(subject: Subject, word: Word) -> str:
    """Short enough for a tag however long the constitution's id is; the version it stands at says which one it is."""
    return f"{word}.move-{subject.sequence}.{digest(subject.run)[:12]}"
