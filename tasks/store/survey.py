"""What gc knows of a store at one moment: live pins, where tags stand, every manifest and its fate.

The order of reading carries the protocol: objects before pins, pins before tags, tags before manifests. Whoever lets
go of a pin has first published the manifest or moved the tag that the pin was for; so what is needed is seen as a
pin, or, if that is gone already, as a tag or a manifest. Read the other way round, it could be missed as all three.
"""

from typing import NamedTuple

from tasks.store import fates, keys, tags
from tasks.store.backend import Backend, Entry
from tasks.store.errors import Corrupt
from tasks.store.manifest import Manifest, parse_manifest
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
    found_fates: dict[Name, list[Entry]] = {}
    for dataset in names:
        committed = backend.entries(keys.folder(dataset, "versions"))
        for entry in backend.entries(keys.folder(dataset, "fates")):
            found_fates.setdefault((dataset, fates.version_of(entry.key)), []).append(entry)
        records += [_record(backend, dataset, entry, found_fates, known) for entry in committed]
    return Survey(pins, tagged, [record for record in records if record.key in known], found_fates)


def _record(
    backend: Backend,
    dataset: str,
    entry: Entry,
    found_fates: dict[Name, list[Entry]],
    known: dict[str, Manifest | None],
) -> Record:
    version, generation = keys.split_manifest_key(entry.key)
    names = [fate.key for fate in found_fates.get((dataset, version), [])]
    standing = fates.standing(backend, dataset, version, names)
    if entry.key not in known:
        _read(backend, dataset, version, entry.key, known)
    manifest = known.get(entry.key)
    return Record((dataset, version), entry.key, generation, entry.modified, manifest, standing)


def _read(backend: Backend, dataset: str, version: str, key: str, known: dict[str, Manifest | None]) -> None:
    """A manifest that another gc has just deleted stays unknown."""
    data = keys.get_or_none(backend, key)
    if data is None:
        return
    try:
        known[key] = parse_manifest(data, dataset, version, backend.location(key))
    except Corrupt:
        known[key] = None
