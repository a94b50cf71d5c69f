"""What becomes of a version and of an attempt: registers that are written once, so that gc and others must agree.

gc condemns a version, then reads pins and tags, then decides. Whoever finds a condemned version decides that it is
kept. The decision is one key, created if absent: the first one stands. A reader pins before it looks: if it does not
see the condemnation, gc will see the pin.
"""

import json
import re
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import NamedTuple

from tasks.schema import Frozen
from tasks.store import keys
from tasks.store.backend import Backend, Entry
from tasks.store.errors import Corrupt, StoreError, StoreUnavailable
from tasks.store.identity import canonical_json
from tasks.store.manifest import Manifest, parse_manifest

_NAME = re.compile(r"([0-9]+)\.([0-9]+)\.(condemned|decided)\.json")
_KEPT = canonical_json({"fate": "kept"})
_EXPELLED = canonical_json({"state": "expelled"})


class Standing(NamedTuple):
    """Where a version stands between its commit and its removal."""

    generation: int
    """How often it was removed: the generation that is live, or would be if it were made now."""
    round: int
    """Number of the condemnation that is open, or of the next one."""
    condemned: bool
    """Whether one is open."""


class Tombstone(Frozen):
    """What gc removed."""

    manifest: Manifest
    when: str
    """UTC by the place's clock."""


def standing(backend: Backend, dataset: str, version: str, names: Iterable[str] | None = None) -> Standing:
    """Where the version stands; `names` are the keys of its fates where they were listed already."""
    prefix = _prefix(dataset, version)
    found = [_parse(key) for key in (backend.keys(prefix) if names is None else names)]
    if not found:
        return Standing(0, 1, False)
    generation = max(g for g, _, _ in found)
    decided = max((n for g, n, kind in found if (g, kind) == (generation, "decided")), default=0)
    if decided and not _is_kept(backend, f"{prefix}{generation}.{decided}.decided.json"):
        return Standing(generation + 1, 1, False)
    open_round = (generation, decided + 1, "condemned")
    return Standing(generation, decided + 1, open_round in found)


def settle(backend: Backend, dataset: str, version: str) -> int:
    """The version's generation, after an open condemnation was answered: a version that is looked up is kept."""
    now = standing(backend, dataset, version)
    if now.condemned and not decide_kept(backend, dataset, version, now):
        return now.generation + 1
    return now.generation


def read_manifest(backend: Backend, dataset: str, version: str, generation: int) -> Manifest | None:
    """The manifest of one generation, or None. Raises: Corrupt."""
    key = keys.manifest_key(dataset, version, generation)
    data = keys.get_or_none(backend, key)
    return parse_manifest(data, dataset, version, backend.location(key)) if data is not None else None


def live_versions(backend: Backend, dataset: str) -> dict[str, int]:
    """Version -> generation of every version that exists, sorted. Nothing is kept by being listed."""
    names = group_by_version(backend.keys(keys.folder(dataset, "fates")))
    split = [keys.split_manifest_key(key) for key in backend.keys(keys.folder(dataset, "versions"))]
    committed = {found for found in split if found}
    wanted = sorted({version for version, _ in committed})
    live = {version: standing(backend, dataset, version, names.get(version, [])).generation for version in wanted}
    return {version: generation for version, generation in live.items() if (version, generation) in committed}


def group_by_version(fate_keys: Iterable[str]) -> dict[str, list[str]]:
    """The keys of the fates of each version."""
    found: dict[str, list[str]] = {}
    for key in fate_keys:
        found.setdefault(version_of(key), []).append(key)
    return found


def condemn(backend: Backend, dataset: str, version: str, at: Standing) -> None:
    """Announce that a version may be removed. Pins and tags must be read after this."""
    backend.put_if_absent(f"{_prefix(dataset, version)}{at.generation}.{at.round}.condemned.json", b"{}")


def decide_kept(backend: Backend, dataset: str, version: str, at: Standing) -> bool:
    """Decide that a condemned version stays. False: it was decided already that it goes."""
    return _decide(backend, dataset, version, at, _KEPT) == _KEPT


def decide_dead(backend: Backend, manifest: Manifest, at: Standing) -> bool:
    """Decide that a condemned version goes, and keep its manifest as the tombstone. False: it was decided to stay."""
    data = canonical_json({"fate": "dead", "manifest": json.loads(manifest.to_bytes())})
    return _decide(backend, manifest.dataset, manifest.version, at, data) != _KEPT


def tombstones(backend: Backend, dataset: str) -> list[Tombstone]:
    """What gc removed of a dataset, oldest first."""
    entries = [entry for entry in backend.entries(keys.folder(dataset, "fates")) if is_decision(entry.key)]
    found = [(entry.modified, entry.key, read_tombstone(backend, entry, dataset)) for entry in entries]
    dead = sorted((modified, key, stone) for modified, key, stone in found if stone)
    return [
        Tombstone(manifest=stone, when=datetime.fromtimestamp(modified, UTC).isoformat(timespec="seconds"))
        for modified, _, stone in dead
    ]


def read_tombstone(backend: Backend, entry: Entry, dataset: str) -> Manifest | None:
    """The manifest of what was removed; None where the decision was to keep it. Raises: Corrupt."""
    if _is_kept(backend, entry.key):
        return None
    where, body = backend.location(entry.key), json.loads(backend.get(entry.key))
    return parse_manifest(canonical_json(body["manifest"]), dataset, version_of(entry.key), where)


def is_decision(fate_key: str) -> bool:
    return _parse(fate_key)[2] == "decided"


def version_of(fate_key: str) -> str:
    return fate_key.split("/")[-2]


def may_publish(backend: Backend, attempt: str, generation: int) -> None:
    """Enter an attempt in its register: from here on gc leaves its files until this generation is settled.

    Raises: StoreError: gc took the attempt for a dead one and was first.
    """
    wanted = canonical_json({"state": "publishing", "generation": generation})
    if keys.register(backend, _attempt_key(attempt), wanted) != wanted:
        raise StoreError(
            f"store {backend.uri}: gc removed the files of this attempt ({attempt}): its process stood still for "
            "longer than gc's grace. Nothing was published; run the stage again, finished chunks are kept"
        )


def expel(backend: Backend, attempt: str) -> int | None:
    """Keep an attempt from publishing. None: it never will; else the generation that it is publishing."""
    data = keys.register(backend, _attempt_key(attempt), _EXPELLED)
    return None if data == _EXPELLED else int(json.loads(data)["generation"])


def generation_in_work(backend: Backend, attempt: str) -> int | None:
    """What `expel` would answer now."""
    data = keys.get_or_none(backend, _attempt_key(attempt))
    return None if data in (None, _EXPELLED) else int(json.loads(data or b"{}")["generation"])


def forget(backend: Backend, attempt: str) -> None:
    """Remove the register of an attempt that has published or lost for good, where this process may delete."""
    with suppress(StoreUnavailable):  # what is left is small, and says nothing of any other attempt
        backend.delete(_attempt_key(attempt))


def _decide(backend: Backend, dataset: str, version: str, at: Standing, data: bytes) -> bytes:
    key = f"{_prefix(dataset, version)}{at.generation}.{at.round}.decided.json"
    return keys.register(backend, key, data)


def _is_kept(backend: Backend, key: str) -> bool:
    data = backend.get(key)
    if data != _KEPT and not data.startswith(b'{"fate":"dead",'):
        raise Corrupt(f"{backend.location(key)}: neither kept nor dead; restore this file from a copy")
    return data == _KEPT


def _prefix(dataset: str, version: str) -> str:
    return f"{keys.folder(dataset, 'fates')}{keys.check_version(version)}/"


def _attempt_key(attempt: str) -> str:
    return f"{keys.ATTEMPTS}{attempt}.json"


def _parse(key: str) -> tuple[int, int, str]:
    """Generation, round, kind. Any other file there is somebody's mistake, and of a round that never comes."""
    match = _NAME.fullmatch(key.rpartition("/")[2])
    return (int(match[1]), int(match[2]), match[3]) if match else (0, 0, "unknown")
