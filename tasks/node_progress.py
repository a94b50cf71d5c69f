"""How a training over several nodes shows: the first node writes its progress beside the version, the launcher reads.

For people alone; nothing derives from it, and a store that does not take it stops nothing.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tasks.schema import Row
from tasks.stage import Progress
from tasks.store import Derivation, NotCommitted, Store, StoreError

BLOB = "progress.json"
WRITE_SECONDS = 5.0
HISTORY_LINES = 500
"""Lines of a history that a manifest holds, or that is shown: enough for a curve, however long the training was."""

logger = logging.getLogger(__name__)


def thinned(lines: list[dict[str, Any]], limit: int = HISTORY_LINES) -> list[dict[str, Any]]:
    """At most `limit` of the lines at even distances, the first and the last among them."""
    if len(lines) <= limit:
        return lines
    return [lines[round(i * (len(lines) - 1) / (limit - 1))] for i in range(limit)]


class StoredProgress:
    """Progress of the first node, written at most every `WRITE_SECONDS`, and at the end."""

    def __init__(self, store: Store, derivation: Derivation, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._store, self._derivation, self._monotonic = store, derivation, monotonic
        self._said: dict[str, Any] = {}
        self._written = float("-inf")

    def update(self, done: int, total: int, note: str) -> None:
        self._said |= {"done": done, "total": total, "note": note}

    def rows(self, rows: Sequence[Row], items: Sequence[Any]) -> None:
        return None

    def trained(self, kind: str, metrics: Mapping[str, Any]) -> None:
        self._said |= {"kind": kind, "history": thinned(metrics.get("history", []))}
        now = self._monotonic()
        if now - self._written >= WRITE_SECONDS or self._said.get("done") == self._said.get("total"):
            self._written = now
            self._write()

    def _write(self) -> None:
        try:
            data = json.dumps(self._said, ensure_ascii=False).encode()
            self._store.put_blob(self._derivation.dataset, self._derivation.version, BLOB, data)
        except StoreError as error:
            logger.warning("progress was not written, the training goes on: %s", error)


class ShownProgress:
    """What the launcher passes on of it, each thing once."""

    def __init__(self, store: Store, derivation: Derivation, progress: Progress) -> None:
        self._store, self._derivation, self._progress = store, derivation, progress
        self._shown = b""

    def show(self, waiting: str) -> None:
        """What the first node has written since; before it runs, what is waited for."""
        data = self._read()
        if data and data != self._shown:
            self._shown = data
            said = json.loads(data)
            self._progress.update(said["done"], said["total"], said["note"])
            self._progress.trained(said["kind"], {"history": said["history"]})
        elif waiting:
            self._progress.update(0, 1, waiting)

    def _read(self) -> bytes | None:
        try:
            return self._store.get_blob(self._derivation.dataset, self._derivation.version, BLOB)
        except NotCommitted:  # nothing is written yet
            return None
        except StoreError as error:
            logger.warning("progress cannot be read now, the training goes on: %s", error)
            return None
