"""The method as plain function calls: no flow, no task, no server. What `benchmarks.orchestration` measures against."""

from typing import TypeVar

from flows.align import constitutional_ai
from flows.config import AlignConfig
from flows.runner import Made
from tasks.keep import KeepConfig, keep_policy
from tasks.report import read_report
from tasks.rl import RLStage
from tasks.schema import DatasetRef, ModelRef, Row
from tasks.serving import close_all
from tasks.sft import SFTStage
from tasks.stage import Session, Stage
from tasks.store import Store, resolve_external_model
from tasks.store.identity import table_to_rows

RowT = TypeVar("RowT", bound=Row)


def align_plainly(config: AlignConfig) -> Made:
    """Everything that the flow `align` makes, the report's page among it."""
    runner = PlainCalls(config.run.store)
    try:
        made = constitutional_ai(runner, config)
        read_report(runner.store, made.report)
        return made
    finally:
        close_all()


class PlainCalls:
    """Makes each stage that the store lacks, and that is all: no claim, no hold, no progress."""

    def __init__(self, store: str) -> None:
        self.store = Store.open(store)

    def outside_model(self, name: str) -> ModelRef:
        return resolve_external_model(name)

    def make(self, stage: Stage) -> DatasetRef | ModelRef:
        return stage.result(self.store) or stage.make(Session(self.store))

    def dataset(self, stage: Stage) -> DatasetRef:
        ref = self.make(stage)
        assert isinstance(ref, DatasetRef)
        return ref

    def model(self, stage: Stage) -> ModelRef:
        ref = self.make(stage)
        assert isinstance(ref, ModelRef)
        return ref

    def keeping(self, stage: SFTStage, config: KeepConfig) -> SFTStage:
        return keep_policy(self.store, stage, config)

    def kept_policies(self, stage: RLStage) -> dict[int, ModelRef]:
        return stage.kept(self.store)

    def known_rows(self, ref: DatasetRef, row_type: type[RowT]) -> list[RowT]:
        return table_to_rows(self.store.read(ref), row_type)
