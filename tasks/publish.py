"""Publishing a constitution: an immutable copy in the store, and a tag by its id that says which copy holds.

The tag's log is only added to, so that going back to an earlier text is a move of its own. What reacts to a change is
told by its sequence number: ten messages of one move are one change.
"""

from constitutions import Constitution
from tasks.constitution import ConstitutionStage, read_constitution
from tasks.schema import DatasetRef, Frozen
from tasks.stage import RunContext, Session
from tasks.store import Store
from tasks.store.tags import Tag

DATASET = "constitutions"


class Published(Frozen):
    """Where the tag of a constitution stands, and how it got there."""

    constitution: Constitution
    """The one it stands at."""
    move: Tag
    """The newest move of its tag."""
    before: Constitution | None
    """What it stood at before that move; None where it is the first, or gc removed it."""
    before_version: str | None
    moved: bool
    """Whether this call moved it."""


def publish(store: Store, constitution: Constitution, by: str) -> Published:
    """Keep a copy of the constitution and move its tag there, unless it stands at the same content already.

    Raises: ConstitutionError: a phase without principles. TagMoved: somebody else published it meanwhile.
    """
    found = newest(store, constitution.id)
    if found and found.constitution.hash == constitution.hash:
        return found
    stage = ConstitutionStage(run=RunContext(store=store.uri), document=constitution.model_dump(mode="json"))
    ref = stage.result(store) or stage.make(Session(store))
    assert isinstance(ref, DatasetRef)
    move = store.tag_after(DATASET, constitution.id, ref.version, by, found.move.sequence if found else 0)
    return Published(
        constitution=constitution,
        move=move,
        before=found.constitution if found else None,
        before_version=found.move.version if found else None,
        moved=True,
    )


def newest(store: Store, name: str) -> Published | None:
    """Where the tag of a constitution stands; None where it was never published."""
    history = store.tag_history(DATASET, name)
    if not history:
        return None
    move, before = history[0], history[1].version if len(history) > 1 else None
    there = store.find(DATASET, before) if before else None
    return Published(
        constitution=read_constitution(store, store.manifest(DATASET, move.version).dataset_ref()),
        move=move,
        before=read_constitution(store, there.dataset_ref()) if there else None,
        before_version=before,
        moved=False,
    )
