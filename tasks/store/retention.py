"""Which versions are needed, and why. Nothing here touches the store."""

from collections.abc import Iterable, Iterator, Mapping

from pydantic import Field

from tasks.schema import Frozen
from tasks.store.manifest import Manifest
from tasks.store.survey import Name, Record

DAY_SECONDS = 86400.0


class Retention(Frozen):
    """What gc keeps beside what tags and live processes need. What is kept keeps what it came from."""

    newest: int = Field(3, ge=0)
    """Versions of each dataset, the last ones committed."""
    days: float = Field(7, ge=0)
    """Anything younger."""
    reuse_days: float = Field(90, ge=0)
    """Generated rows that a rerun may take, and chunks that were never committed: cheap bytes, dear GPU hours."""


def needed(
    records: Iterable[Record], tagged: Mapping[Name, str], held: Mapping[Name, str], retention: Retention, now: float
) -> dict[Name, str]:
    """Version -> why it is needed, for people. `now` in seconds by the clock of `Record.modified`."""
    found = {record.name: record for record in records if record.live}
    newest = _newest(found.values(), retention.newest)
    reasons: dict[Name, str] = {}
    for name, record in found.items():
        reason = _own_reason(record, tagged, held, newest, retention, now)
        if reason:
            reasons[name] = reason
    return with_ancestors(reasons, Lineage(found.values()))


def with_ancestors(reasons: Mapping[Name, str], lineage: "Lineage") -> dict[Name, str]:
    """The same, and everything that these versions came from."""
    closed, waiting = dict(reasons), list(reasons)
    while waiting:
        dataset, version = waiting.pop()
        for ancestor in lineage.ancestors((dataset, version)):
            if ancestor not in closed:
                closed[ancestor] = f"ancestor of {dataset} {version[:12]}"
                waiting.append(ancestor)
    return closed


class Lineage:
    """Who came from whom among the versions that exist."""

    def __init__(self, records: Iterable[Record]) -> None:
        self.manifests: dict[Name, Manifest] = {r.name: r.manifest for r in records if r.live and r.manifest}
        self._by_version: dict[str, list[Name]] = {}
        self._by_content: dict[str, list[Name]] = {}
        for name, manifest in self.manifests.items():
            self._by_version.setdefault(name[1], []).append(name)
            if manifest.kind == "model":
                self._by_content.setdefault(manifest.content_hash, []).append(name)

    def ancestors(self, name: Name) -> set[Name]:
        """What a version was made from: inputs by version, models by the content of their weights, citations."""
        if name not in self.manifests:
            return set()
        derivation = self.manifests[name].derivation
        cited = {(dataset, version) for dataset, _, version in (c.rpartition("/") for c in derivation.cites.values())}
        found = {ancestor for ancestor in cited if ancestor in self.manifests}
        found.update(a for ref in derivation.inputs.values() for a in self._by_version.get(ref.version, []))
        found.update(a for content in derivation.models.values() for a in self._by_content.get(content, []))
        return found - {name}

    def descendants_first(self, records: Iterable[Record]) -> list[Record]:
        """The records so ordered that each comes before what it was made from."""
        by_name = {record.name: record for record in records}
        ordered: list[Name] = []
        seen: set[Name] = set()
        for start in sorted(by_name):
            path = [] if start in seen else [(start, self._among(start, by_name))]
            while path:  # depth first, without recursion: a chain may be long
                name, ancestors = path[-1]
                seen.add(name)
                following = next((ancestor for ancestor in ancestors if ancestor not in seen), None)
                if following:
                    path.append((following, self._among(following, by_name)))
                else:
                    ordered.append(path.pop()[0])
        return [by_name[name] for name in reversed(ordered)]

    def _among(self, name: Name, wanted: Mapping[Name, Record]) -> Iterator[Name]:
        return iter(sorted(self.ancestors(name) & wanted.keys()))


def _newest(records: Iterable[Record], count: int) -> set[Name]:
    by_dataset: dict[str, list[tuple[float, Name]]] = {}
    for record in records:
        by_dataset.setdefault(record.name[0], []).append((record.modified, record.name))
    return {name for found in by_dataset.values() for _, name in sorted(found, reverse=True)[:count]}


def _own_reason(
    record: Record,
    tagged: Mapping[Name, str],
    held: Mapping[Name, str],
    newest: set[Name],
    retention: Retention,
    now: float,
) -> str | None:
    days, name = max(0.0, now - record.modified) / DAY_SECONDS, record.name  # a server tells its time in whole seconds
    if record.manifest is None:
        return "its manifest is damaged"
    if name in tagged:
        return f"tag {tagged[name]}"
    if name in held:
        return f"pin of {held[name]}"
    if name in newest:
        return f"one of the newest {retention.newest}"
    if days < retention.days:
        return f"younger than {retention.days:g} days"
    if record.manifest.reuse and days < retention.reuse_days:
        return f"rows to reuse, younger than {retention.reuse_days:g} days"
    return None
