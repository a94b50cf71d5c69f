"""How a stage is run: reused where the store has its result, else made inline, and then read back.

Prefect decides when and where; the store decides whether it is done (design idea 1). A run keeps its inference
servers between stages and stops them when it ends, however it ends.
"""

import os
import socket
import time
from collections.abc import Callable
from contextlib import nullcontext
from contextvars import ContextVar
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self, TypeVar

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from flows.artifacts import StageProgress, publish_result
from tasks.keep import KeepConfig, keep_policy
from tasks.schema import DatasetRef, Frozen, ModelRef, Row
from tasks.serving import TransientServingError, close_all
from tasks.sft import SFTStage
from tasks.stage import RunContext, Session, Stage, StageFailed
from tasks.store import Derivation, Store, resolve_external_model
from tasks.store.claims import claim
from tasks.store.external import EXTERNAL
from tasks.store.identity import table_to_rows

T = TypeVar("T")
RowT = TypeVar("RowT", bound=Row)
_in_run: ContextVar[bool] = ContextVar("in_run", default=False)


class StageOutcome(Frozen):
    """How one stage of a run went."""

    stage: str
    dataset: str
    version: str
    reused: bool
    """The store had it already; nothing was made."""
    seconds: float
    rows: int
    statuses: dict[str, int]
    """Rows by how they ended."""


class Made(NamedTuple):
    """What the method makes."""

    policies: dict[str, ModelRef]
    metrics: DatasetRef
    samples: dict[str, DatasetRef]
    report: DatasetRef


class StageRunner(Protocol):
    """What the method asks of whoever goes through it: a run, or a plan of one."""

    def outside_model(self, name: str) -> ModelRef: ...

    def dataset(self, stage: Stage) -> DatasetRef: ...

    def model(self, stage: Stage) -> ModelRef: ...

    def keeping(self, stage: SFTStage, config: KeepConfig) -> SFTStage: ...

    def known_rows(self, ref: DatasetRef, row_type: type[RowT]) -> list[RowT] | None:
        """The rows of a small dataset that the method decides by; None where a plan cannot know them."""
        ...


class AlignResult(Frozen):
    """What a run made."""

    store: str
    policies: dict[str, ModelRef]
    metrics: DatasetRef
    report: DatasetRef
    report_path: str
    """The page as a file."""
    stages: list[StageOutcome]


def is_transient(task: Any, task_run: Any, state: Any) -> bool:
    """Whether a failed chunk is worth another try: the server or the network failed, not the work."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, TransientServingError | ConnectionError | TimeoutError)


@task(
    task_run_name="{name}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=2,
    retry_delay_seconds=[2, 20],
    retry_condition_fn=is_transient,
)
def chunk(name: str, work: Callable[[], T]) -> T:
    """One chunk of a stage: a resume point."""
    return work()


def execute(stage: Stage) -> DatasetRef | ModelRef:
    """The body of every stage flow: make the stage's result unless it exists."""
    store, progress = Store.open(stage.run.store), StageProgress(stage.stage)
    derivation = stage.derivation(store)
    try:
        hold_inputs(store, derivation)
        work = claim(store, derivation.dataset, derivation.version, holder(), waiting=progress.waiting)
        with work or nullcontext():  # no claim: somebody else has made it meanwhile
            return stage.result(store) or stage.make(Session(store, chunk, progress))
    finally:
        store.release()
        if not _in_run.get():  # a stage that is its own process leaves no server behind
            close_all()


def hold_inputs(store: Store, derivation: Derivation) -> None:
    """Keep what a stage reads, and what it makes, from being removed meanwhile."""
    store.hold(derivation.dataset, derivation.version)
    for cited in derivation.cites.values():
        dataset, _, version = cited.rpartition("/")
        if dataset != EXTERNAL:
            store.hold(dataset, version)


def holder() -> str:
    """Who makes a stage, for those who wait for it."""
    return f"{socket.gethostname()} process {os.getpid()}"


class Run:
    """One alignment run: runs stages, keeps what came of each, and owns the inference servers."""

    def __init__(self, context: RunContext) -> None:
        self.context = context
        self.store = Store.open(context.store)
        self.outcomes: list[StageOutcome] = []

    def __enter__(self) -> Self:
        self._token = _in_run.set(True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _in_run.reset(self._token)
        self.store.release()
        close_all()

    def outside_model(self, name: str) -> ModelRef:
        """A model from outside the store, pinned to its exact weights."""
        return resolve_external_model(name)

    def keeping(self, stage: SFTStage, config: KeepConfig) -> SFTStage:
        """The stage, told to keep an earlier policy if so few of its revisions changed."""
        return keep_policy(self.store, stage, config)

    def known_rows(self, ref: DatasetRef, row_type: type[RowT]) -> list[RowT]:
        return table_to_rows(self.store.read(ref), row_type)

    def dataset(self, stage: Stage) -> DatasetRef:
        ref = self.run_stage(stage)
        assert isinstance(ref, DatasetRef)
        return ref

    def model(self, stage: Stage) -> ModelRef:
        ref = self.run_stage(stage)
        assert isinstance(ref, ModelRef)
        return ref

    def run_stage(self, stage: Stage) -> DatasetRef | ModelRef:
        """The stage's result: from the store, or made now.

        Raises: StageFailed: the stage ended but committed nothing.
        """
        from flows.stages import FLOWS  # the flows call `execute` above

        started = time.monotonic()
        self.store.hold(stage.dataset, stage.derivation(self.store).version)  # first held, then looked for
        reused = stage.result(self.store) is not None
        if not reused:
            FLOWS[stage.stage](stage)
        ref = stage.result(self.store)  # the store is asked again: no flow state is believed
        if ref is None:
            raise StageFailed(f"{stage.stage}: ended without committing {stage.dataset}; see its log")
        self.note(stage, ref, reused, time.monotonic() - started)
        return ref

    def note(self, stage: Stage, ref: DatasetRef | ModelRef, reused: bool, seconds: float) -> None:
        manifest = self.store.manifest(stage.dataset, ref.version)
        outcome = StageOutcome(
            stage=stage.stage,
            dataset=stage.dataset,
            version=ref.version,
            reused=reused,
            seconds=seconds,
            rows=manifest.rows,
            statuses=manifest.statuses,
        )
        self.outcomes.append(outcome)
        did = "reused" if reused else f"made in {seconds:.1f} s"
        get_run_logger().info("%s: %s, %s %s", stage.stage, did, stage.dataset, ref.version[:12])

    def finish(self, made: Made) -> AlignResult:
        """Write the report as a file, publish the artifacts, and return what the run made."""
        from tasks.report import read_report

        path = Path(".solon/reports") / f"{made.report.version[:12]}.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(read_report(self.store, made.report), encoding="utf-8")
        result = AlignResult(
            store=self.context.store,
            policies=made.policies,
            metrics=made.metrics,
            report=made.report,
            report_path=str(path),
            stages=self.outcomes,
        )
        publish_result(self.store, result, made.samples)
        return result
