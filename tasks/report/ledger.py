"""Where every row and second went: how rows ended, and what each version cost."""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import pyarrow as pa

from tasks.schema import Status
from tasks.store import Manifest

STATUSES: tuple[Status, ...] = ("ok", "refused", "unparsable", "skipped", "failed")
NUM_REASONS = 6
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
