"""Why a stage has to be made: its derivation beside the nearest one there is, in words."""

from typing import Any

from constitutions import Constitution
from constitutions.diff import PrincipleChange, diff_constitutions
from constitutions.phases import PHASE_TEXTS, Phase, principles_of
from tasks.constitution import read_constitution
from tasks.schema import DatasetRef, is_pending
from tasks.store import Derivation, Manifest, Store, StoreError

HASH_DIGITS = 64
"""Of a content hash, of which people see the first eight."""


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
    changes = differing(old, new)
    waiting = [path.partition(".")[2] for path, _, after in changes if is_pending(after)]
    lines = [line for change in changes if not is_pending(change[2]) for line in words(store, old, new, *change)]
    lines += [f"waits for {', '.join(waiting)}"] if waiting else []
    return lines or [f"version {new.version[:12]} was removed"]


def words(store: Store, old: Derivation, new: Derivation, path: str, before: Any, after: Any) -> list[str]:
    head, _, rest = path.partition(".")
    if head == "constitution":
        return principle_changes(store, old, new) or ["the principles of this phase changed"]
    if head == "inputs":
        return [f"input {rest} has other rows"]
    if head == "models":
        return [f"model {rest} is another"]
    if head == "code_version":
        return [f"code version {before} -> {after}"]
    if head == "force":
        return [f"forced by {after!r}" if after else f"no longer forced by {before!r}"]
    if head == "config":
        name = rest.removeprefix("config.")
        is_list = isinstance(before, list) or isinstance(after, list)
        return [f"setting {name} is another" if is_list else f"setting {name}: {shown(before)} -> {shown(after)}"]
    return [f"{path}: {shown(before)} -> {shown(after)}"]


def shown(value: Any) -> str:
    if isinstance(value, str) and len(value) == HASH_DIGITS:
        return value[:8]
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def principle_changes(store: Store, old: Derivation, new: Derivation) -> list[str]:
    """Each principle of the phase that changed between the constitutions of two derivations."""
    before, after = (cited_constitution(store, d) for d in (old, new))
    if before is None or after is None:
        return []
    phase: Phase = "revision" if new.stage == "revise" else "comparison"
    serving = {p.id for constitution in (before, after) for p in principles_of(constitution, phase)}
    diff = diff_constitutions(before, after)
    if new.stage == "preferences":  # which reads who prevails, and no text
        return [line for change in diff.changed for line in setting_changes(change, ("priority", "hard_constraint"))]
    lines = [f"{phase} demonstrations changed" for field in diff.header if field.name == f"{phase} demonstrations"]
    lines += [f"principle {p.id} added" for p in diff.added if p.id in serving]
    lines += [f"principle {p.id} removed" for p in diff.removed if p.id in serving]
    return lines + [line for c in diff.changed if c.id in serving for line in principle_change(c, phase)]


def principle_change(change: PrincipleChange, phase: Phase) -> list[str]:
    lines = [f"principle {change.old_id} renamed {change.id}"] if change.renamed else []
    lines += [f"principle {change.id} reworded"] if change.changed(*PHASE_TEXTS[phase]) else []
    return lines + setting_changes(change, ("weight", "enabled", "hard_constraint"))


def setting_changes(change: PrincipleChange, names: tuple[str, ...]) -> list[str]:
    counted = [field for field in change.fields if field.name in names]
    return [f"principle {change.id}: {field.name} {field.old} -> {field.new}" for field in counted]


def cited_constitution(store: Store, derivation: Derivation) -> Constitution | None:
    """The constitution that a derivation was made under; None where it is no longer kept."""
    dataset, _, version = derivation.cites.get("constitution", "").rpartition("/")
    if not dataset:
        return None
    try:
        return read_constitution(store, DatasetRef(dataset=dataset, version=version, content_hash="", rows=0))
    except StoreError:
        return None
