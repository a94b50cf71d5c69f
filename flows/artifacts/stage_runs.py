"""Which flow runs made the stages of a run: what the summary links to."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterId,
    FlowRunFilter,
    FlowRunFilterParentFlowRunId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.runtime import flow_run

from flows.artifacts.live import shown

if TYPE_CHECKING:
    from flows.runner import StageOutcome

MOST_RUNS = 200


def completed_runs() -> dict[str, list[UUID]]:
    """Completed runs below the running flow, by the stage whose flow they are, in the order of their starts."""
    found: dict[str, list[UUID]] = defaultdict(list)
    if not flow_run.id:
        return found
    below = FlowRunFilter(
        parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[UUID(flow_run.id)]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.COMPLETED])),
    )
    with shown("links to stages"), get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_run_filter=below, sort=FlowRunSort.START_TIME_ASC, limit=MOST_RUNS)
        flows = client.read_flows(flow_filter=FlowFilter(id=FlowFilterId(any_=list({run.flow_id for run in runs}))))
        names = {flow.id: flow.name for flow in flows}
        for run in runs:
            found[names[run.flow_id]].append(run.id)
    return found


def runs_of(stages: Sequence["StageOutcome"], found: Mapping[str, list[UUID]]) -> list[UUID | None]:
    """The run of each stage; None where another run's stage made it, or it cannot be told which did."""
    runs: list[UUID | None] = [None] * len(stages)
    for name, candidates in found.items():
        every = [place for place, stage in enumerate(stages) if stage.stage == name]
        made = [place for place in every if not stages[place].reused]
        for places in (every, made):  # a retried run reuses what it made itself before
            if len(places) == len(candidates):
                for place, run in zip(places, candidates, strict=True):
                    runs[place] = run
                break
    return runs
