"""Tags: names that people move from version to version. The log of moves is only ever added to.

An entry's key counts down, so that the newest lists first; it is created if absent, so that of two who move a tag at
once both moves stand in the log, one after the other.
"""

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime

from tasks.schema import Frozen
from tasks.store import keys
from tasks.store.backend import Backend
from tasks.store.errors import Corrupt, InvalidName, NotCommitted, TagMoved
from tasks.store.identity import canonical_json, check_name

MIN_PREFIX = 6
"""Characters of a version id by which people may call it."""

_LAST = 10**12
_VERSION = re.compile(r"[0-9a-f]{32}")
_KEY = re.compile(r"[0-9]{13}")


class Tag(Frozen):
    """One entry of a tag's log."""

    tag: str
    version: str
    sequence: int
    """From 1, without gaps."""
    by: str
    """Who moved it, in their own words."""
    at: str
    """For people: UTC by the mover's clock. Nothing is decided by it."""


def check_tag(tag: str) -> str:
    """The tag itself. Raises: InvalidName: no safe name, or one that could be a version id."""
    if not is_tag(check_name(tag, "tag")):
        raise InvalidName(f"tag {tag!r}: it looks like a version id; choose a word")
    return tag


def is_tag(name: str) -> bool:
    """Whether the name could be a tag, not a whole version id. Raises: InvalidName."""
    return not _VERSION.fullmatch(check_name(name))


def complete(name: str, versions: Sequence[str], dataset: str) -> str:
    """The one version that begins with `name`, of six characters or more.

    Raises: NotCommitted: none or several do; lists candidates.
    """
    fits = [version for version in versions if version.startswith(name)]
    if name in fits or (len(fits) == 1 and len(name) >= MIN_PREFIX):
        return name if name in fits else fits[0]
    candidates = ", ".join((fits or sorted(versions))[:8]) or "none"
    raise NotCommitted(
        f"{dataset} {name!r}: {len(fits)} versions begin with it; expected a tag, a version or at least the first "
        f"{MIN_PREFIX} characters of one; candidates: {candidates}"
    )


def history(backend: Backend, dataset: str, tag: str) -> list[Tag]:
    """Every move of a tag, newest first; empty where there is no such tag. Raises: Corrupt: an entry is missing."""
    found = [_read(backend, key, tag) for key in backend.keys(_prefix(dataset, tag))]
    if [entry.sequence for entry in found] != list(range(len(found), 0, -1)):
        raise Corrupt(f"{backend.location(_prefix(dataset, tag))}: entries are missing or stand twice")
    return found


def newest(backend: Backend, dataset: str, tag: str) -> Tag | None:
    """Where a tag stands; None where there is no such tag."""
    found = backend.keys(_prefix(dataset, tag))
    return _read(backend, found[0], tag) if found else None


def heads(backend: Backend, dataset: str) -> dict[str, Tag]:
    """Where each tag of a dataset stands, by name."""
    names = backend.folders(keys.folder(dataset, "tags"))
    found = ((name, newest(backend, dataset, name)) for name in names)
    return {name: entry for name, entry in found if entry}


def append(backend: Backend, dataset: str, tag: str, version: str, by: str) -> Tag:
    """Move a tag. Where it stands there already, nothing is written."""
    while True:
        head = newest(backend, dataset, tag)
        if head and head.version == version:
            return head
        entry = _put(backend, dataset, tag, version, by, head.sequence + 1 if head else 1)
        if entry:
            return entry


def append_after(backend: Backend, dataset: str, tag: str, version: str, by: str, sequence: int) -> Tag:
    """Move a tag as the very next move after `sequence`, which was read before; 0 where there was no such tag.

    Raises: TagMoved: somebody else moved it meanwhile.
    """
    entry = _put(backend, dataset, tag, version, by, sequence + 1)
    if entry is None:
        raise TagMoved(
            f"{dataset} tag {tag!r}: somebody else moved it after move {sequence}, expected none; look, then try again"
        )
    return entry


def _put(backend: Backend, dataset: str, tag: str, version: str, by: str, sequence: int) -> Tag | None:
    """The entry, or None where the log has one of this number."""
    at = datetime.now(UTC).isoformat(timespec="microseconds")
    entry = Tag(tag=tag, version=version, sequence=sequence, by=by, at=at)
    written = backend.put_if_absent(_key(dataset, tag, sequence), canonical_json(entry.model_dump()))
    return entry if written else None


def _read(backend: Backend, key: str, tag: str) -> Tag:
    where, name = backend.location(key), key.rpartition("/")[2].removesuffix(".json")
    try:
        entry = Tag.model_validate(json.loads(backend.get(key)))
    except ValueError as error:
        raise Corrupt(f"{where}: not an entry of a tag ({error})") from None
    if not _KEY.fullmatch(name) or (entry.tag, entry.sequence) != (tag, _LAST - int(name)):
        raise Corrupt(f"{where}: it is entry {entry.sequence} of tag {entry.tag!r}, which has another key")
    return entry


def _prefix(dataset: str, tag: str) -> str:
    return f"{keys.folder(dataset, 'tags')}{check_tag(tag)}/"


def _key(dataset: str, tag: str, sequence: int) -> str:
    return f"{_prefix(dataset, tag)}{_LAST - sequence:013d}.json"
