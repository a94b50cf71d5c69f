"""Where every row, version and second went: how rows ended, what was made from what, and what it cost."""

import json
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import pyarrow as pa

from tasks.schema import Status
from tasks.store import Derivation, Manifest

STATUSES: tuple[Status, ...] = ("ok", "refused", "unparsable", "skipped", "failed")
NUM_REASONS = 4
MAX_REASON = 160


class Account(NamedTuple):
    """How the rows of one dataset ended."""

    name: str
    rows: int
    counts: list[int]
    """By `STATUSES`."""
    reasons: list[tuple[int, str, str]]
    """Count, status and reason of rows that are not ok, the commonest first."""
    left_out: int
    """Rows that have yet other reasons."""


class Ancestor(NamedTuple):
    """One input of a version; `anchor` is empty where the page does not have it."""

    role: str
    version: str
    anchor: str


class Version(NamedTuple):
    """One committed version and where it came from."""

    name: str
    version: str
    content: str
    stage: str
    inputs: list[Ancestor]
    commit: str
    libraries: str
    created: str
    config: str


class Cost(NamedTuple):
    """What making a version took; `share` is of all seconds known."""

    name: str
    seconds: float | None
    share: float
    tokens: int
    rest: str


def account(name: str, table: pa.Table) -> Account:
    """How the rows of a table ended and why."""
    statuses, reasons = table.column("status").to_pylist(), table.column("reason").to_pylist()
    counts = Counter(statuses)
    bad = Counter((s, clip_reason(r)) for s, r in zip(statuses, reasons, strict=True) if s != "ok")
    top = sorted(bad.items(), key=lambda item: (-item[1], item[0]))[:NUM_REASONS]
    listed = [(count, status, reason) for (status, reason), count in top]
    left_out = sum(bad.values()) - sum(count for count, _, _ in listed)
    return Account(name, table.num_rows, [counts[status] for status in STATUSES], listed, left_out)


def clip_reason(reason: str | None) -> str:
    text = reason or "no reason given"
    return text if len(text) <= MAX_REASON else text[:MAX_REASON] + " …"


def lineage(manifests: Mapping[str, Manifest]) -> list[Version]:
    """Every version in the order of the method, with what it was made from."""
    known = {manifest.content_hash: (manifest.version, anchor(name)) for name, manifest in manifests.items()}
    return [version_of(name, manifest, known) for name, manifest in manifests.items()]


def anchor(name: str) -> str:
    return "version-" + name.replace("/", "-")


def ancestors(made: Derivation, known: Mapping[str, tuple[str, str]]) -> list[Ancestor]:
    """Inputs by version; models of the store likewise, outside ones by the hash of their files."""
    inputs = [(role, ref.version, ref.content_hash) for role, ref in sorted(made.inputs.items())]
    models = [(role, known.get(content, (content, ""))[0], content) for role, content in sorted(made.models.items())]
    found = [Ancestor(role, version, known.get(content, ("", ""))[1]) for role, version, content in inputs + models]
    slice_ = [Ancestor("constitution slice", made.constitution, anchor("constitution"))] if made.constitution else []
    return found + slice_


def version_of(name: str, manifest: Manifest, known: Mapping[str, tuple[str, str]]) -> Version:
    made = manifest.derivation
    libraries = ", ".join(f"{library} {version}" for library, version in sorted(manifest.libraries.items()))
    return Version(
        name=name,
        version=manifest.version,
        content=manifest.content_hash,
        stage=f"{made.stage} v{made.code_version}",
        inputs=ancestors(made, known),
        commit=manifest.code_commit or "unknown",
        libraries=libraries,
        created=manifest.created_at,
        config=json.dumps(made.config, indent=1, sort_keys=True, ensure_ascii=False),
    )


def costs(manifests: Mapping[str, Manifest]) -> tuple[list[Cost], float]:
    """What each version took, and the seconds of all together; None where a stage keeps no time."""
    total = sum(manifest.cost.get("seconds", 0.0) for manifest in manifests.values())
    return [cost_of(name, manifest.cost, total) for name, manifest in manifests.items()], total


def cost_of(name: str, cost: Mapping[str, float], total: float) -> Cost:
    seconds = cost.get("seconds")
    shown = {key: value for key, value in cost.items() if value and key not in ("seconds", "num_tokens")}
    rest = ", ".join(f"{key.removeprefix('num_').replace('_', ' ')} {value:g}" for key, value in shown.items())
    share = (seconds or 0.0) / total if total else 0.0
    return Cost(name, seconds, share, int(cost.get("num_tokens", 0)), rest)


def short(name: str) -> str:
    """As much of a version or hash as tells it from others on a page."""
    return name[:10]


def duration(seconds: float | None) -> str:
    """`3.2 s`, `4 min 05 s`, `2 h 10 min`; a dash where unknown."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
