"""Why a stage has to be made: its derivation beside the nearest one there is, in words."""

from typing import Any

from constitutions import Constitution, Principle
from tasks.constitution import read_constitution
from tasks.schema import DatasetRef, is_pending
from tasks.store import Derivation, Manifest, Store, StoreError


def nearest(store: Store, derivation: Derivation) -> Manifest | None:
    """The version of the same stage that differs in the fewest things; of equal ones the newest."""
    found = [m for m in store.versions(derivation.dataset) if m.derivation.stage == derivation.stage]
    return min(reversed(found), key=lambda m: len(differing(m.derivation, derivation)), default=None)


def differing(old: Derivation, new: Derivation) -> list[tuple[str, Any, Any]]:
    """(path, old, new) of everything in the identity that differs."""
    before, after = flat(old), flat(new)
    paths = dict.fromkeys([*before, *after])
    return [(path, before.get(path), after.get(path)) for path in paths if before.get(path) != after.get(path)]


def flat(derivation: Derivation) -> dict[str, Any]:
    body = derivation.model_dump(exclude={"cites", "stage", "dataset"})
    body["inputs"] = {role: ref["content_hash"] for role, ref in body["inputs"].items()}
    return dict(leaves(body, ""))


def leaves(value: Any, path: str) -> list[tuple[str, Any]]:
    if not isinstance(value, dict):
        return [(path, value)]
    return [leaf for key, inner in value.items() for leaf in leaves(inner, f"{path}.{key}" if path else key)]


def explain(store: Store, new: Derivation, earlier: Manifest | None) -> list[str]:
    """What changed since the nearest earlier version, one line each; that nothing was ever made, if so."""
    if earlier is None:
        return ["never made before"]
    old = earlier.derivation
    lines = [line for change in differing(old, new) for line in words(store, old, new, *change)]
    return lines or [f"version {new.version[:12]} was removed"]


def words(store: Store, old: Derivation, new: Derivation, path: str, before: Any, after: Any) -> list[str]:
    head, _, rest = path.partition(".")
    if head == "constitution":
        return principle_changes(store, old, new) or ["the principles of this phase changed"]
    if head == "inputs":
        return [f"input {rest} is not made yet" if is_pending(after) else f"input {rest} has other rows"]
    if head == "models":
        return [f"model {rest} is not made yet" if is_pending(after) else f"model {rest} is another"]
    if head == "code_version":
        return [f"code version {before} -> {after}"]
    if head == "force":
        return [f"forced by {after!r}" if after else f"no longer forced by {before!r}"]
    if head == "config":
        return [f"setting {rest.removeprefix('config.')}: {shown(before)} -> {shown(after)}"]
    return [f"{path}: {shown(before)} -> {shown(after)}"]


def shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def principle_changes(store: Store, old: Derivation, new: Derivation) -> list[str]:
    """Each principle of the phase that changed between the constitutions of two derivations."""
    before, after = (cited_constitution(store, d) for d in (old, new))
    if before is None or after is None:
        return []
    phase = "revision" if new.stage == "revise" else "comparison"
    ours, theirs = phase_principles(before, phase), phase_principles(after, phase)
    lines = [f"principle {name} added" for name in theirs if name not in ours]
    lines += [f"principle {name} removed" for name in ours if name not in theirs]
    for name in (name for name in ours if name in theirs):
        old_principle, new_principle = ours[name], theirs[name]
        if getattr(old_principle, f"{phase}_hash") != getattr(new_principle, f"{phase}_hash"):
            lines.append(f"principle {name} reworded")
        if old_principle.weight != new_principle.weight:
            lines.append(f"principle {name} reweighted {old_principle.weight:g} -> {new_principle.weight:g}")
    return lines


def phase_principles(constitution: Constitution, phase: str) -> dict[str, Principle]:
    chosen = constitution.revision_principles() if phase == "revision" else constitution.comparison_principles()
    return {principle.id: principle for principle in chosen}


def cited_constitution(store: Store, derivation: Derivation) -> Constitution | None:
    """The constitution that a derivation was made under; None where it is no longer kept."""
    dataset, _, version = derivation.cites.get("constitution", "").rpartition("/")
    if not dataset:
        return None
    try:
        return read_constitution(store, DatasetRef(dataset=dataset, version=version, content_hash="", rows=0))
    except StoreError:
        return None
