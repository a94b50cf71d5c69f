"""Which files are garbage: of dead attempts, of versions removed a grace ago; chunks, resume points and side files of
no more use.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby

from tasks.store import fates, keys
from tasks.store.backend import TEMPORARY, Backend, Entry
from tasks.store.retention import DAY_SECONDS, Retention
from tasks.store.survey import Name, Record, Survey, attempts_of

_KEY = re.compile(rf"{keys.ROOT}/((?:models/)?[^/]+)/(data|chunks|checkpoints|blobs)/([^/]+)/(.+)")


class Sweep:
    """Judges files by what was surveyed after they were listed.

    `removed` are the versions that go in this very run. `publishing` tells of an attempt which generation it is
    publishing, or None where it never will: with `fates.expel` that is so from then on.
    """

    def __init__(
        self,
        backend: Backend,
        seen: Survey,
        removed: Iterable[Record],
        retention: Retention,
        now: float,
        grace_seconds: float,
        publishing: Callable[[Backend, str], int | None],
    ) -> None:
        gone = {record.key for record in removed}
        self.publishing: list[str] = []
        """Attempts whose files were left, because they may yet publish."""
        self._backend, self._seen, self._expel = backend, seen, publishing
        self._before = now - grace_seconds
        self._reuse_before = now - retention.reuse_days * DAY_SECONDS
        self._records: dict[Name, list[Record]] = {}
        for record in seen.records:
            self._records.setdefault(record.name, []).append(record)
        self._live = {record.name: record for record in seen.records if record.live and record.key not in gone}
        self._removed_now = {(record.name, attempt) for record in removed for attempt in attempts_of(record.manifest)}

    def delete(self, objects: list[Entry]) -> Iterator[Entry]:
        """Delete garbage; yields what went."""
        for entry in self.garbage(objects):
            self._backend.delete(entry.key)
            yield entry

    def garbage(self, objects: list[Entry]) -> Iterator[Entry]:
        """What of `objects` (sorted) nobody needs, and pins that are no longer believed."""
        for (name, kind, part), group in groupby(objects, _place):
            entries = list(group)
            if kind == "data":
                yield from self._of_attempt(name, part, entries)
            elif kind in ("chunks", "checkpoints"):
                yield from self._of_work(name, kind, entries)
            elif kind == "blobs":
                kept = name in self._live or name in self._seen.pins.holds
                yield from (e for e in entries if not kept and self._old([e]))
            elif self._old(entries):
                yield from entries
        yield from self._seen.pins.expired

    def _of_work(self, name: Name, kind: str, entries: list[Entry]) -> Iterator[Entry]:
        """What is there to go on with: of use until the version is committed. A resume point goes as a whole."""
        if name in self._seen.pins.holds:
            return
        before = self._before if name in self._live else self._reuse_before
        if kind == "chunks":
            yield from (entry for entry in entries if entry.modified < before)
        elif max(entry.modified for entry in entries) < before:
            yield from sorted(entries, key=lambda entry: not entry.key.endswith(f"/{keys.CHECKPOINT_COMPLETE}"))

    def _of_attempt(self, name: Name, attempt: str, entries: list[Entry]) -> Iterator[Entry]:
        live = self._live.get(name)
        if live and live.manifest is None:
            return
        listed = _listed(live) if live else set[str]()
        garbage = [entry for entry in entries if entry.key not in listed]
        if not garbage or attempt in self._seen.pins.attempts or not self._old(garbage):
            return
        if live and attempt in attempts_of(live.manifest):
            yield from garbage
        elif (name, attempt) in self._removed_now:
            return
        elif attempt in (dead := self._dead_attempts(name)):
            yield from garbage if dead[attempt] < self._before else []
        elif self._may_yet_publish(name, attempt):
            self.publishing.append(attempt)
        else:
            yield from garbage

    def _dead_attempts(self, name: Name) -> dict[str, float]:
        """Attempts of removed generations -> when these were removed."""
        found = {}
        for entry in self._seen.fates.get(name, []):
            stone = fates.read_tombstone(self._backend, entry, name[0]) if fates.is_decision(entry.key) else None
            for part in stone.parts if stone else ():
                found[part.path.partition("/")[0]] = entry.modified
        return found

    def _may_yet_publish(self, name: Name, attempt: str) -> bool:
        """Whether an attempt that no manifest was seen to list has published by now, or still can."""
        generation = self._expel(self._backend, attempt)
        if generation is None:  # expelled; looked at after that: it may have published since, and left the register
            current = fates.standing(self._backend, *name).generation
            return attempt in attempts_of(fates.read_manifest(self._backend, *name, current))
        fate_keys = [entry.key for entry in self._seen.fates.get(name, [])]
        removed = generation < fates.standing(self._backend, *name, fate_keys).generation
        return not removed and all(record.generation != generation for record in self._records.get(name, []))

    def _old(self, entries: list[Entry]) -> bool:
        return max(entry.modified for entry in entries) < self._before


def _place(entry: Entry) -> tuple[Name, str, str]:
    """(dataset, version), kind, and the attempt of data or the name of a resume point.

    Of other files their folder, so that they go together.
    """
    match = _KEY.fullmatch(entry.key)
    if match:
        part = match[4].partition("/")[0] if match[2] in ("data", "checkpoints") else ""
        return (match[1], match[3]), match[2], part
    return ("", ""), "", entry.key if entry.key.startswith(TEMPORARY) else entry.key.rpartition("/")[0]


def _listed(record: Record) -> set[str]:
    base = keys.data_key(*record.name)
    return {f"{base}/{part.path}" for part in record.manifest.parts} if record.manifest else set()
