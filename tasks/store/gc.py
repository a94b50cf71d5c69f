"""Garbage collection: removes versions that nobody needs, and files that no version lists.

A version goes in two steps. It is condemned, then pins and tags are read once more, then its fate is decided in a
register that whoever looks it up may win (`fates.py`). Its manifest is deleted at once and stays as a tombstone; its
files go a grace later, so that readers without a hold can finish. No clock decides what is needed: the grace says only
how long a silent process is believed to live, and even one that outlives it cannot publish what was swept away.
"""

from collections.abc import Iterable, Iterator

from tasks.schema import Frozen
from tasks.store import fates, keys
from tasks.store.backend import TEMPORARY, Backend, Entry
from tasks.store.manifest import Manifest
from tasks.store.retention import Lineage, Retention, needed, with_ancestors
from tasks.store.store import Store
from tasks.store.survey import Name, Record, Survey, survey
from tasks.store.sweep import Sweep

DEFAULT_GRACE_SECONDS = 24 * 3600.0


class Judged(Frozen):
    """What gc decided about one version."""

    dataset: str
    version: str
    reason: str
    """Why it is kept, in words; `not needed` for one that goes."""
    bytes: int
    """Of its files."""


class GcReport(Frozen):
    """What was removed, or would be."""

    removed: tuple[Judged, ...]
    """Versions whose manifests went. Their files go with the first run after the grace."""
    kept: tuple[Judged, ...]
    objects: int
    """Files that went: of versions removed earlier, of dead attempts, chunks, resume points, side files, expired pins
    and claims."""
    bytes: int
    publishing: tuple[str, ...]
    """Attempts that stopped between entering the register and publishing; their files are left."""


def plan_garbage(store: Store, retention: Retention, grace_seconds: float = DEFAULT_GRACE_SECONDS) -> GcReport:
    """What `collect_garbage` would do now. Nothing is removed or condemned. Raises: StoreUnavailable. Corrupt."""
    backend = store.backend
    now, objects = backend.now(), list_objects(backend)
    seen = survey(backend, now, grace_seconds, {})
    reasons = needed(seen.records, seen.tagged, seen.pins.holds, retention, now)
    removed = [record for record in seen.records if record.live and record.name not in reasons]
    sweep = Sweep(backend, seen, removed, retention, now, grace_seconds, fates.generation_in_work)
    return _report(removed, seen, reasons, list(sweep.garbage(objects)), sweep)


def collect_garbage(store: Store, retention: Retention, grace_seconds: float = DEFAULT_GRACE_SECONDS) -> GcReport:
    """Remove what nobody needs. May run beside anything, itself included, and be killed at any point.

    Raises: StoreUnavailable. Corrupt: a tag's log or a fate is damaged; nothing more is removed.
    """
    backend = store.backend
    now, objects = backend.now(), list_objects(backend)
    known: dict[str, Manifest | None] = {}
    first = survey(backend, now, grace_seconds, known)
    reasons = needed(first.records, first.tagged, first.pins.holds, retention, now)
    candidates = {record.key: record for record in first.records if record.live and record.name not in reasons}
    for record in candidates.values():
        fates.condemn(backend, *record.name, record.standing)
    again = survey(backend, now, grace_seconds, known)  # only now: see fates.py
    new = {record.name: "new" for record in again.records if record.live and record.key not in candidates}
    reasons = new | needed(again.records, again.tagged, again.pins.holds, retention, now)
    removed = list(_decide(backend, candidates.values(), reasons, Lineage(again.records)))
    for key in [record.key for record in removed] + [record.key for record in again.records if not record.live]:
        backend.delete(key)
    sweep = Sweep(backend, again, removed, retention, now, grace_seconds, fates.expel)
    return _report(removed, again, reasons, list(sweep.delete(objects)), sweep)


def list_objects(backend: Backend) -> list[Entry]:
    """Every file that can be garbage, sorted. To be read before pins: what is written later is not in it."""
    kinds: tuple[keys.Kind, ...] = ("data", "chunks", "checkpoints", "blobs")
    prefixes = [keys.folder(name, kind) for name in keys.dataset_names(backend) for kind in kinds]
    return sorted(entry for prefix in [*prefixes, keys.CLAIMS, TEMPORARY] for entry in backend.entries(prefix))


def _decide(
    backend: Backend, candidates: Iterable[Record], reasons: dict[Name, str], lineage: Lineage
) -> Iterator[Record]:
    """Settle what was condemned; yields what goes. `reasons` gains what others looked up meanwhile.

    Descendants first: where one of them is kept, what it came from is not decided yet, and kept as well.
    """
    reasons |= with_ancestors(reasons, lineage)
    for record in lineage.descendants_first(candidates):
        if record.name in reasons:
            stays = fates.decide_kept(backend, *record.name, record.standing)
        else:
            stays = record.manifest is None or not fates.decide_dead(backend, record.manifest, record.standing)
        if not stays:
            yield record
        elif record.name not in reasons:
            reasons |= with_ancestors({record.name: "looked up meanwhile"}, lineage)


def _report(
    removed: list[Record], seen: Survey, reasons: dict[Name, str], garbage: list[Entry], sweep: Sweep
) -> GcReport:
    gone = {record.key for record in removed}
    kept = [record for record in seen.records if record.live and record.key not in gone]
    return GcReport(
        removed=tuple(_judged(record, "not needed") for record in sorted(removed, key=lambda r: r.key)),
        kept=tuple(_judged(record, reasons[record.name]) for record in sorted(kept, key=lambda r: r.key)),
        objects=len(garbage),
        bytes=sum(entry.size for entry in garbage),
        publishing=tuple(sweep.publishing),
    )


def _judged(record: Record, reason: str) -> Judged:
    size = sum(part.bytes for part in record.manifest.parts) if record.manifest else 0
    return Judged(dataset=record.name[0], version=record.name[1], reason=reason, bytes=size)
