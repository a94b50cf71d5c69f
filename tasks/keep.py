"""Keeping an SL policy when an amendment touches few revisions: a choice that costs fidelity and saves the rest.

Without it, one reworded critique principle makes another SL policy, and so everything after it again. With it, the
new revisions are kept and the old policy stands in for one trained on them; its lineage says so.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from pydantic import Field

from tasks.schema import DatasetRef, Settings
from tasks.sft import SFTStage
from tasks.store import Manifest, Store
from tasks.store.diff import diff_versions


class KeepConfig(Settings):
    """Whether an amendment that touches few revisions trains a new SL policy."""

    max_touched_fraction: float = Field(0.0, ge=0, le=1)
    """Keep an SL policy while at most this share of the revisions it learned from changed; 0 always trains anew."""


class Touched(NamedTuple):
    """How many revisions differ from those that a policy was trained on."""

    rows: int
    of: int

    @property
    def fraction(self) -> float:
        return self.rows / max(self.of, 1)


Count = Callable[[Store, DatasetRef, DatasetRef], Touched]


def count_touched(store: Store, old: DatasetRef, new: DatasetRef) -> Touched:
    """Rows that were changed, added or removed."""
    diff = diff_versions(store, old, new, num_examples=0)
    return Touched(diff.changed + diff.added + diff.removed, max(old.rows, new.rows))


def keep_policy(store: Store, stage: SFTStage, config: KeepConfig, count: Count = count_touched) -> SFTStage:
    """The stage as it is, or told to keep the trained policy whose revisions are nearest, if they are near enough.

    Nearness is measured from what a policy was trained on, never from a run that kept it, so that many small
    amendments add up.
    """
    if config.max_touched_fraction == 0 or stage.result(store) is not None:
        return stage
    choices = [(count(store, old, stage.revisions), manifest) for manifest, old in trained_alike(store, stage)]
    touched, nearest = min(choices, key=lambda choice: choice[0].rows, default=(None, None))
    if touched is None or nearest is None or touched.fraction > config.max_touched_fraction:
        return stage
    note = (
        f"keeps {nearest.dataset}/{nearest.version}: {touched.rows} of {touched.of} revisions changed, "
        f"the limit is {config.max_touched_fraction:.1%}"
    )
    return stage.model_copy(update={"keep": nearest.model_ref(), "keep_note": note})


def trained_alike(store: Store, stage: SFTStage) -> list[tuple[Manifest, DatasetRef]]:
    """Policies that were trained, not kept, and differ from the stage in their revisions alone."""
    wanted = without_revisions(stage.derivation(store).identity())
    found = []
    for manifest in store.versions(stage.dataset):
        source = manifest.derivation.inputs.get("revisions")
        if source is None or without_revisions(manifest.derivation.identity()) != wanted:
            continue
        revisions = store.find(stage.revisions.dataset, source.version)
        if revisions is not None and revisions.content_hash == source.content_hash:
            found.append((manifest, revisions.dataset_ref()))
    return found


def without_revisions(identity: dict[str, Any]) -> dict[str, Any]:
    inputs = {role: content for role, content in identity["inputs"].items() if role != "revisions"}
    return identity | {"inputs": inputs}
