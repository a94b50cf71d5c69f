"""Make the rows that no version holds yet, chunk by chunk, each a Prefect task and a resume point in the store.

What is made is written as soon as it is there, so that a killed stage loses at most the chunk in flight: run again,
it finds the rows by their keys, as it finds those of earlier versions. How the work is cut enters no identity.
"""

import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from itertools import islice
from typing import Any

from tasks.generation import PLANNED, Core, GeneratingStage, Recipe
from tasks.reuse import Kept
from tasks.schema import DatasetRef, Frozen, Row
from tasks.serving import (
    Choice,
    ChoiceRequest,
    Generation,
    GenerationRequest,
    Sampling,
    ServingConfig,
    TextGenerator,
)
from tasks.stage import Ledger, Session
from tasks.store import Store
from tasks.store.identity import arrow_schema, digest, rows_to_table
from tasks.store.reuse import ReuseIndex

MAX_GROWTH = 32
"""Where nearly every row is kept, a chunk takes in up to this many times the items: the model gets full batches."""

PLAN_ROWS = 2048
"""Items that a plan looks at together."""


class RowForecast(Frozen):
    """What making a stage would take, in rows."""

    rows: int
    """Rows the version will have."""
    to_make: int
    """Rows a model would have to write."""
    exact: bool
    """False: at most so many, since an input is not there yet."""


class OnDemand:
    """A model that is fetched and served when the first row needs it: a stage whose rows are all kept starts none."""

    def __init__(self, stage: GeneratingStage, session: Session) -> None:
        self.stage = stage
        self.session = session
        self.stack = ExitStack()
        self.opened: TextGenerator | None = None
        self.seconds_starting = 0.0

    def __enter__(self) -> "OnDemand":
        return self

    def __exit__(self, *error: Any) -> None:
        self.opened = None
        self.stack.close()

    def generate(self, requests: Sequence[GenerationRequest], sampling: Sampling) -> list[Generation]:
        return self._generator().generate(requests, sampling) if requests else []

    def choose(self, requests: Sequence[ChoiceRequest], answers: tuple[str, ...]) -> list[Choice]:
        return self._generator().choose(requests, answers) if requests else []

    def _generator(self) -> TextGenerator:
        if self.opened is None:
            started = time.monotonic()
            model = self.stage.writer
            folder = self.session.store.fetch_model(model)
            serving: AbstractContextManager[TextGenerator]
            serving = self.session.open_generator(model, folder, self.stage.run.serving)
            self.opened = self.stack.enter_context(serving)
            self.seconds_starting = time.monotonic() - started
        return self.opened


class Unwritten:
    """Stands for the model in a plan: its texts never repeat, so nothing that follows from one is found."""

    def __init__(self) -> None:
        self.num_texts = 0

    def generate(self, requests: Sequence[GenerationRequest], sampling: Sampling) -> list[Generation]:
        first, self.num_texts = self.num_texts, self.num_texts + len(requests)
        return [Generation(f"not yet written {first + i}", PLANNED) for i in range(len(requests))]

    def choose(self, requests: Sequence[ChoiceRequest], answers: tuple[str, ...]) -> list[Choice]:
        return [Choice(tuple(0.0 for _ in answers)) for _ in requests]


def make_in_chunks(stage: GeneratingStage, session: Session) -> DatasetRef:
    """Commit the stage's rows in the order of its items; what is kept under the same key is taken, the rest made.

    Raises: StageFailed: too many rows are not ok.
    """
    store, recipe = session.store, stage.recipe()
    core, index = stage.core(store), open_index(stage, store, recipe)
    work = Work(stage, session, stage.num_rows(store))

    def count_to_make(items: Sequence[Any]) -> int:
        return rows_to_make(core, items, index)[1] if index.num_keys else stage.run.chunk_rows

    with store.writer(stage.derivation(store)) as writer:
        for items in batches_to_make(stage.items(store), stage.run.chunk_rows, count_to_make):

            def make(items: Sequence[Any] = items) -> tuple[Sequence[Row], Kept, float]:
                kept = Kept(index)  # a chunk that is tried again counts anew
                with OnDemand(stage, session) as generator:
                    return core(items, generator, kept), kept, generator.seconds_starting

            rows, kept, starting = session.call(f"{stage.stage} rows {work.num_rows + 1} and on", make)
            work.finished(items, rows, kept, recipe)
            work.seconds_starting += starting
            writer.append(rows_to_table(rows, stage.row_type))
        if not work.num_rows:
            writer.append(rows_to_table([], stage.row_type))  # a version without rows has its columns
        work.ledger.check(stage.stage, stage.run.max_failed_fraction)
        return writer.commit(metrics={}, cost=work.cost(), reuse=recipe.digest, sources=dict(work.sources))


def forecast_rows(stage: GeneratingStage, store: Store) -> RowForecast:
    """What `make_in_chunks` would have to make now: the same core, with nobody to write.

    Exact where texts never repeat; where a text comes out as it was before, less may turn out to be needed.
    """
    core, index = stage.core(store), open_index(stage, store, stage.recipe())
    items, rows, to_make = stage.items(store), 0, 0
    while batch := list(islice(items, PLAN_ROWS)):
        counts = rows_to_make(core, batch, index)
        rows, to_make = rows + counts[0], to_make + counts[1]
    return RowForecast(rows=rows, to_make=to_make, exact=True)


def rows_to_make(core: Core, items: Sequence[Any], index: ReuseIndex) -> tuple[int, int]:
    """How many rows there would be, and how many of them a model would have to write."""
    kept = Kept(index)
    return len(core(items, Unwritten(), kept)), len(kept.made)


def open_index(stage: GeneratingStage, store: Store, recipe: Recipe) -> ReuseIndex:
    return ReuseIndex.build(store, stage.dataset, recipe.digest, arrow_schema(stage.row_type))


def batches_to_make(
    items: Iterator[Any], size: int, count_to_make: Callable[[Sequence[Any]], int]
) -> Iterator[list[Any]]:
    """Items in order, as many at a time as leave `size` rows to make: what is kept costs the model nothing."""
    batch, to_make = list[Any](), 0
    while part := list(islice(items, size)):
        batch += part
        to_make += count_to_make(part)
        if to_make >= size or len(batch) >= MAX_GROWTH * size:
            yield batch
            batch, to_make = [], 0
    if batch:
        yield batch


def num_gpus(serving: ServingConfig) -> int:
    """GPUs that a served model keeps busy; one that is served elsewhere is taken to have them, at each URL."""
    num_servers = len(serving.urls) or bool(shutil.which("nvidia-smi"))
    return serving.tensor_parallel_size * num_servers


class Work:
    """How far a stage is, and what it took."""

    def __init__(self, stage: GeneratingStage, session: Session, total: int) -> None:
        self.stage, self.session, self.total = stage, session, total
        self.derivation = stage.derivation(session.store)
        self.started = time.monotonic()
        self.ledger = Ledger()
        self.sources: Counter[str] = Counter()
        self.num_rows = self.num_made = self.num_tokens = self.num_chunks = 0
        self.seconds_starting = 0.0

    def finished(self, items: Sequence[Any], rows: Sequence[Row], kept: Kept, recipe: Recipe) -> None:
        """Keep what was made of a chunk, count it and show it."""
        made = [row for row in rows if row.reuse_key in kept.made]
        if made:
            name = f"{recipe.digest[:12]}-{self.num_chunks:05d}-{digest([row.reuse_key for row in made])[:16]}"
            table = rows_to_table(made, self.stage.row_type)
            self.session.store.chunk_put(self.derivation.dataset, self.derivation.version, name, table)
            self.num_chunks += 1
        self.ledger.add(rows)
        self.sources.update(kept.sources)
        self.num_rows += len(rows)
        self.num_made += len(made)
        self.num_tokens += sum(getattr(row, "num_tokens", 0) for row in made)
        self.session.progress.rows(rows, items)
        self.session.progress.update(self.num_rows, self.total, self.note())

    def note(self) -> str:
        """Empty where no model is asked."""
        kept = self.sources.total()
        return f"{self.num_made} made, {kept} kept" if self.num_made or kept else ""

    def cost(self) -> dict[str, float]:
        """What was spent on this version; rows that were kept cost nothing."""
        return {
            "seconds": time.monotonic() - self.started,
            "seconds_starting": self.seconds_starting,
            "gpus": num_gpus(self.stage.run.serving),
            "chunks_made": self.num_chunks,
            "rows_made": self.num_made,
            "rows_kept": self.sources.total(),
            "num_tokens": self.num_tokens,
        }
