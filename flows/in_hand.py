"""Which run has a change in hand: the first that asks for it. The others say so and end; a failed one goes on.

Events of one move may come ten times, and at once. Prefect creates a variable of a name once, so the run whose id
stands in it is the one. (An idempotency key would need a second run, and its start-up, for the same.)
"""

from uuid import UUID

from prefect import get_run_logger
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import VariableCreate, VariableUpdate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterIdempotencyKey,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.runtime import flow_run
from prefect.states import Cancelled

from flows.children import retry_in_place, settled


def run_in_hand(name: str, key: str) -> FlowRun | None:
    """The other run that has this change in hand; None where it is this one, which is called `name` from now on."""
    me = UUID(flow_run.get_id())
    with get_client(sync_client=True) as client:
        other = holder(client, key.replace(":", "-"), me)
        if other is None:
            client.update_flow_run(me, name=name)
    return other


def holder(client: SyncPrefectClient, variable: str, me: UUID) -> FlowRun | None:
    """Whoever's id stands in the variable, unless it is mine or of a run that was deleted: then it is mine now."""
    try:
        client.create_variable(VariableCreate(name=variable, value=str(me), tags=["solon"]))
        return None
    except ObjectAlreadyExists:
        found = client.read_variable_by_name(variable)
    if found is None or found.value == str(me):
        return None
    try:
        return client.read_flow_run(UUID(str(found.value)))
    except ObjectNotFound:
        client.update_variable(VariableUpdate(name=variable, value=str(me)))
        return None


def go_on_with(run: FlowRun) -> str:
    """Leave a change to the run that has it; where that one failed it runs once more. Says what was done.

    A cancelled one stays so: somebody wanted it.
    """
    state = run.state
    assert state
    if state.is_failed() or state.is_crashed():
        retry_in_place(settled(run))
        return f"run {run.name!r} was {state.name} and runs once more"
    hint = "; retry it there, should it run after all" if state.is_cancelled() else ""
    return f"run {run.name!r} has it in hand and is {state.name}{hint}"


def withdraw_older(constitution: str, sequence: int) -> None:
    """Cancel the runs that still ask about an earlier move: nobody should approve what is superseded."""
    with get_client(sync_client=True) as client:
        deployment = client.read_flow_run(UUID(flow_run.get_id())).deployment_id
        if deployment is None:
            return
        asking = FlowRunFilter(
            deployment_id=FlowRunFilterDeploymentId(any_=[deployment]),
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PAUSED])),
        )
        for run in client.read_flow_runs(flow_run_filter=asking, limit=200):
            if run.name.startswith(f"{constitution} move "):
                client.set_flow_run_state(run.id, Cancelled(message=f"superseded by move {sequence}"), force=True)
                get_run_logger().info("withdrew the question of run %s", run.name)


def is_cancelled(key: str) -> bool:
    """Whether the run with this idempotency key was cancelled."""
    wanted = FlowRunFilter(idempotency_key=FlowRunFilterIdempotencyKey(any_=[key]))
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_run_filter=wanted, limit=1)
    return bool(runs and runs[0].state and runs[0].state.is_cancelled())
