"""How a stage is run: reused where the store has its result, else made here or by its deployment, and then read back.

Prefect decides when and where; the store decides whether it is done (design idea 1). A run keeps its inference
servers between stages and stops them when it ends, however it ends.
"""

import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Protocol, Self, TypeVar

from prefect import get_run_logger
from prefect.runtime import flow_run

from flows.artifacts import publish_result
from flows.children import STAGE_DEPLOYMENT, run_child
from flows.execution import in_run
from flows.watch import watched
from tasks.keep import KeepConfig, keep_policy
from tasks.policy_stage import PolicyStage
from tasks.schema import DatasetRef, Frozen, Metric, ModelRef, Row
from tasks.serving import close_all
from tasks.sft import SFTStage
from tasks.stage import RunContext, Stage, StageFailed
from tasks.store import Store, resolve_external_model
from tasks.store.identity import table_to_rows

RowT = TypeVar("RowT", bound=Row)


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

    def kept_policies(self, stage: PolicyStage) -> dict[int, ModelRef]:
        """The policies along the way of a training, by the steps behind them."""
        ...

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


class Run:
    """One alignment run: runs stages, keeps what came of each, and owns the inference servers."""

    def __init__(self, context: RunContext) -> None:
        self.context = context
        self.store = Store.open(context.store)
        self.outcomes: list[StageOutcome] = []

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(close_all)
            stack.callback(self.store.release)
            stack.enter_context(watched())
            stack.callback(in_run.reset, in_run.set(True))
            self._leaving = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leaving.__exit__(kind, error, trace)

    def outside_model(self, name: str) -> ModelRef:
        """A model from outside the store, pinned to its exact weights."""
        return resolve_external_model(name)

    def keeping(self, stage: SFTStage, config: KeepConfig) -> SFTStage:
        """The stage, told to keep an earlier policy if so few of its revisions changed."""
        return keep_policy(self.store, stage, config)

    def kept_policies(self, stage: PolicyStage) -> dict[int, ModelRef]:
        """Those in the store. A training that stopped early has fewer; one whose policies were removed is told so."""
        kept = stage.kept(self.store)
        missing = stage.missing(self.store, kept)
        for ref in kept.values():
            self.store.hold(ref.model, ref.version)
        if missing:
            get_run_logger().warning(
                "%s: the policies after steps %s are not in the store any more and are not evaluated; "
                "run.force=[%s] trains again and keeps them",
                stage.stage,
                missing,
                stage.stage,
            )
        return kept

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
        started, version = time.monotonic(), stage.derivation(self.store).version
        self.store.hold(stage.dataset, version)  # first held, then looked for
        reused = stage.result(self.store) is not None
        if not reused:
            self.make(stage, version)
        ref = stage.result(self.store)  # the store is asked again: no flow state is believed
        if ref is None:
            raise StageFailed(f"{stage.stage}: ended without committing {stage.dataset}; see its log")
        self.note(stage, ref, reused, time.monotonic() - started)
        return ref

    def make(self, stage: Stage, version: str) -> None:
        """Run the stage's flow: in this process, or where its deployment's worker is.

        A stage of seconds would take longer to find a worker and start a process than to be made.
        """
        from flows.stages import FLOWS  # it is the stages' flows that import what runs them

        if self.context.executor == "inline" or stage.cheap:
            FLOWS[stage.stage](stage)
            return
        run_child(
            f"{stage.stage}/{STAGE_DEPLOYMENT}",
            key=f"{flow_run.id}:{stage.stage}:{version}",
            parameters={"stage": stage.model_dump(mode="json", exclude_none=True)},
            done=lambda: stage.result(self.store) is not None,
        )

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
        """Write report and figures as files, publish the artifacts, and return what the run made."""
        from tasks.report import read_report

        path = Path(".solon/reports") / f"{made.report.version[:12]}.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(read_report(self.store, made.report), encoding="utf-8")
        self.tell_figures(made, path.with_suffix(".jsonl"))
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

    def tell_figures(self, made: Made, path: Path) -> None:
        """The figures beside the page, and in the tracker unless an earlier run told them."""
        from tasks.evaluation.tracked import json_lines, track

        metrics = self.known_rows(made.metrics, Metric)
        path.write_text(json_lines(metrics), encoding="utf-8")
        if any(o.dataset == made.metrics.dataset and not o.reused for o in self.outcomes):
            track(self.context.training, f"evaluate/{made.metrics.version[:12]}", metrics, list(made.policies))
