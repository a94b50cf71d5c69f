"""A flow as a run of its deployment: created, attached to where it is there already, or retried where it ended badly.

The key of a run is what it is for, so that a retried parent finds the child it started. Whether a stage is done is
never read off a state: the caller asks the store (design idea 1). A server that is away is waited for.
"""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
from prefect import get_run_logger
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun, State
from prefect.deployments import run_deployment
from prefect.exceptions import Abort, TerminationSignal
from prefect.runtime import flow_run
from prefect.states import AwaitingRetry, Cancelling
from prefect.types._datetime import now

from flows.api import ask, is_away, patiently, pauses
from tasks.stage import StageFailed

STAGE_DEPLOYMENT = "stage"
"""Every stage has one deployment of this name: `revise/stage`."""
SETTLED = timedelta(seconds=10)
"""A crash may be reported twice, seconds apart (by the process and by its worker): retried before, a run would be
crashed again while it works."""
ENDED_SECONDS = 20.0
"""By when a cancelled run has been ended by its worker, or by itself (`flows.watch`)."""
UNTAKEN = timedelta(seconds=60)
"""A worker takes a run within seconds: where none did for so long, the log says so, and again after as long."""


def never() -> bool:
    """Nothing makes the child needless."""
    return False


def run_child(deployment: str, key: str, parameters: dict[str, Any], done: Callable[[], bool] | None = None) -> FlowRun:
    """The run of `deployment` (`flow/name`) with this key, ended; one that had ended badly before runs once more.

    `done` says whether the child's work is there. Where it is, neither the child's state matters nor a server that
    went away; where it is not, a child that completed before runs once more. Without it, the state says so.

    Raises: StageFailed: it ended badly, now. ServerAway. PrefectHTTPStatusError: the deployment is not there, or
    refuses the parameters.
    """
    run = patiently(lambda: run_deployment(deployment, parameters=parameters, idempotency_key=key, timeout=0), never)
    assert isinstance(run, FlowRun)
    needless = done or never
    try:
        if state_of(run).is_cancelling():
            run = wait_for(run, needless)
        run = settled(run)
        if ended_badly(run) or (done and state_of(run).is_completed() and not done()):
            retry_in_place(run)
        run = wait_for(run, needless)
    except (TerminationSignal, Abort):
        cancel_with_parent(run.id)
        raise
    if ended_badly(run) and not needless():
        wait_if_cancelled()
        state = state_of(run)
        raise StageFailed(f"{deployment}: run {run.name!r} is {state.name}: {state.message or 'it says no more'}")
    return run


def wait_for(run: FlowRun, done: Callable[[], bool]) -> FlowRun:
    """The run once it has ended, for good; as it was seen last, where its work is done and the server is away."""
    told = now("UTC")
    for pause in pauses():
        seen = read_patiently(run.id, done)
        if seen is None:
            return run
        run = settled(seen)
        if state_of(run).is_final():
            return run
        if is_untaken(run) and now("UTC") - told > UNTAKEN:
            tell_untaken(run)
            told = now("UTC")
        time.sleep(pause)
    raise AssertionError("pauses do not end")


def is_untaken(run: FlowRun) -> bool:
    """Whether it is due for so long that a worker should have taken it."""
    return state_of(run).is_scheduled() and bool(
        run.expected_start_time and now("UTC") - run.expected_start_time > UNTAKEN
    )


def tell_untaken(run: FlowRun) -> None:
    assert run.expected_start_time
    minutes = (now("UTC") - run.expected_start_time).total_seconds() / 60
    get_run_logger().warning(
        "run %r has waited for %.0f min: no worker of pool %s has taken it; start one, or look at the pool's limits",
        run.name,
        minutes,
        run.work_pool_name,
    )


def settled(run: FlowRun) -> FlowRun:
    """The run once its crash has been reported by all who report it: perhaps it works again by then."""
    while state_of(run).is_crashed() and now("UTC") - state_of(run).timestamp < SETTLED:
        time.sleep(SETTLED.total_seconds())
        again = read_patiently(run.id, never)
        assert again
        if state_of(again).id == state_of(run).id:
            break
        run = again
    return run


def retry_in_place(run: FlowRun) -> None:
    """Send the same run through its deployment once more, as the button in the UI does."""
    state: State[Any] = AwaitingRetry(message="Its parent was run again.")
    patiently(lambda: ask(lambda client: client.set_flow_run_state(run.id, state, force=True)), never)


def cancel_with_parent(child: UUID) -> None:
    """A run that is cancelled takes its child with it at once; one that ends otherwise leaves it at work."""
    try:
        if is_cancelled(ask(read_ourselves)):
            state: State[Any] = Cancelling(message="Its parent was cancelled.")
            ask(lambda client: client.set_flow_run_state(child, state))
    except httpx.HTTPError as error:
        if not is_away(error):
            raise  # a child that cannot be told sees its parent's state for itself (`flows.watch`)


def wait_if_cancelled() -> None:
    """A run whose child was cancelled with it waits until it is ended: if it failed first, it would stay Cancelling."""
    us = patiently(lambda: ask(read_ourselves), never)
    if us and is_cancelled(us):
        time.sleep(ENDED_SECONDS)


def read_ourselves(client: SyncPrefectClient) -> FlowRun:
    return client.read_flow_run(UUID(flow_run.id))


def read_patiently(run_id: UUID, needless: Callable[[], bool]) -> FlowRun | None:
    return patiently(lambda: ask(lambda client: client.read_flow_run(run_id)), needless)


def state_of(run: FlowRun) -> State[Any]:
    assert run.state, f"flow run {run.id} has no state"
    return run.state


def ended_badly(run: FlowRun) -> bool:
    state = state_of(run)
    return state.is_final() and not state.is_completed()


def is_cancelled(run: FlowRun) -> bool:
    """Whether it is cancelled, or about to be."""
    return state_of(run).is_cancelling() or state_of(run).is_cancelled()
