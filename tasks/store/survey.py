"""What gc knows of a store at one moment: live pins, where tags stand, every manifest and its fate.

The order of reading carries the protocol: objects before pins, pins before tags, tags before manifests. Whoever lets
go of a pin has first published the manifest or moved the tag that the pin was for; so what is needed is seen as a
pin, or, if that is gone already, as a tag or a manifest. Read the other way round, it could be missed as all three.
"""

from typing import NamedTuple

from tasks.store import fates, keys, tags
from tasks.store.backend import Backend, Entry
from tasks.store.errors import Corrupt
from tasks.store.manifest import Manifest
from tasks.store.pins import LivePins, read_pins

Name = tuple[str, str]
"""Dataset and version."""


class Record(NamedTuple):
    """One manifest that stands in the store."""

    name: Name
    key: str
    generation: int
    modified: float
    """When it was committed, in seconds by the place's clock."""
    manifest: Manifest | None
    """None: it is damaged, so that nobody knows what it needs."""
    standing: fates.Standing

    @property
    def live(self) -> bool:
        """False: it is of a generation that was removed, left by a gc that was killed or a writer that came late."""
        return self.generation >= self.standing.generation


class Survey(NamedTuple):
    """What was read, in this order."""

    pins: LivePins
    tagged: dict[Name, str]
    """Version -> one of the tags that stand at it."""
    records: list[Record]
    fates: dict[Name, list[Entry]]


def survey(backend: Backend, now: float, grace_seconds: float, known: dict[str, Manifest | None]) -> Survey:
    """Read everything that decides what is needed; `known` saves reading a manifest twice: none ever changes."""
    pins = read_pins(backend, now, grace_seconds)
    names = keys.dataset_names(backend)
    heads = {name: tags.heads(backend, name) for name in names}
    tagged = {(name, head.version): head.tag for name in names for head in heads[name].values()}
    records: list[Record] = []
    fates_of: dict[Name, list[Entry]] = {}
    for dataset in names:
        committed = backend.entries(keys.folder(dataset, "versions"))
        for entry in backend.entries(keys.folder(dataset, "fates")):
            fates_of.setdefault((dataset, fates.version_of(entry.key)), []).append(entry)
        found = (_record(backend, dataset, entry, fates_of, known) for entry in committed)
        records += [record for record in found if record]
    return Survey(pins, tagged, records, fates_of)


def _record(
    backend: Backend, dataset: str, entry: Entry, fates_of: dict[Name, list[Entry]], known: dict[str, Manifest | None]
) -> Record | None:
    """None: no manifest, or one that another gc has just deleted."""
    split = keys.split_manifest_key(entry.key)
    if split is None:
        return None
    version, generation = split
    standing = fates.standing(backend, dataset, version, [e.key for e in fates_of.get((dataset, version), [])])
    if entry.key not in known:
        try:
            manifest = fates.read_manifest(backend, dataset, version, generation)
        except Corrupt:
            known[entry.key] = None
        else:
            if manifest is None:
                return None
            known[entry.key] = manifest
    return Record((dataset, version), entry.key, generation, entry.modified, known[entry.key], standing)


def attempts_of(manifest: Manifest | None) -> set[str]:
    """The attempts that wrote a version's files: one, unless somebody put the manifest together by hand."""
    return {part.path.partition("/")[0] for part in manifest.parts} if manifest else set()
