"""A stage while it works: how far it is, its newest rows, its label distribution or training curves."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prefect import get_run_logger

from flows.artifacts.live import LiveArtifact
from flows.artifacts.pictures import LabelCounts, pictures, training_pictures
from flows.artifacts.rate import RateMeter, describe, in_time
from flows.artifacts.samples import NewestRows
from flows.artifacts.text import bounded, plain
from tasks.schema import Row

PROGRESS_SECONDS, SAMPLES_SECONDS, PICTURES_SECONDS = 2.0, 5.0, 10.0
"""At most so often each of them is shown anew."""
LOG_SECONDS = 30.0
TRAININGS = ("sft", "reward", "held_out_reward", "rl")


class StageProgress:
    """Shows a stage on the page of its run, and says now and then in the log how far it is."""

    def __init__(self, stage: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.stage = stage
        self._monotonic, self._started, self._logged = monotonic, monotonic(), float("-inf")
        self._meter = RateMeter(monotonic=monotonic)
        self._rows, self._labels = NewestRows(), LabelCounts()
        self._progress = LiveArtifact(f"progress-{stage}", "progress", PROGRESS_SECONDS, monotonic)
        self._samples = LiveArtifact(f"samples-{stage}", "markdown", SAMPLES_SECONDS, monotonic)
        self._pictures = LiveArtifact(f"pictures-{stage}", "markdown", PICTURES_SECONDS, monotonic)

    def waiting(self, holder: str) -> None:
        """Somebody else is making the same version."""
        waited = in_time(self._monotonic() - self._started)
        if self._progress.is_due():
            words = f"waiting for {plain(holder)}, who is making this version, for {waited} so far"
            self._progress.show(0.0, words)
        self._log(f"{holder} is making this version; waiting for it, {waited} so far")

    def update(self, done: int, total: int, note: str) -> None:
        """So many of all rows or steps are done; the last state always shows."""
        unit, is_last = "steps" if self.stage in TRAININGS else "rows", done >= total
        self._meter.count(done)
        words = describe(done, total, unit, self._meter) + (f"; {note}" if note else "")
        if is_last or self._progress.is_due():
            self._progress.show(round(100.0 * done / total, 1) if total else 100.0, words)
        self._show_rows(is_last)
        self._log(words, at_once=is_last)

    def rows(self, rows: Sequence[Row], items: Sequence[Any]) -> None:
        """Rows of a finished chunk, and the items they are of; they show with the next `update`."""
        self._rows.add(rows, items)
        self._labels.add(rows)

    def trained(self, kind: str, metrics: Mapping[str, Any]) -> None:
        """What a `kind` of training has logged (`history`); with `final` it is at its end."""
        if metrics.get("final") or self._pictures.is_due():
            drawn = training_pictures(kind, metrics)
            self._pictures.show(bounded(pictures(drawn)), ", ".join(each.title for each in drawn))

    def _show_rows(self, is_last: bool) -> None:
        if self._rows and (is_last or self._samples.is_due()):
            self._samples.show(bounded(self._rows.blocks()), self._rows.heading())
        if self._labels and (is_last or self._pictures.is_due()):
            drawn = self._labels.drawn()
            self._pictures.show(bounded(pictures([drawn])), f"Distribution of {drawn.title}")

    def _log(self, words: str, at_once: bool = False) -> None:
        if at_once or self._monotonic() - self._logged >= LOG_SECONDS:
            self._logged = self._monotonic()
            get_run_logger().info("%s: %s", self.stage, words)
