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
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.exceptions import PrefectHTTPStatusError
from prefect.states import Scheduled
from prefect.types._datetime import now

from tasks.stage import StageFailed

STAGE_DEPLOYMENT = "stage"
"""Every stage has one deployment of this name: `revise/stage`."""
POLL_SECONDS = (1.0, 15.0)
"""First and longest pause between two looks at a child."""
SETTLED = timedelta(seconds=10)
"""A crash may be reported twice, seconds apart (by the process and by its worker): retried before, a run would be
crashed again while it works."""
SERVER_AWAY_SECONDS = 900.0
"""How long a server that does not answer is waited for."""


def never() -> bool:
    """Nothing makes the child needless."""
    return False


def run_child(deployment: str, key: str, parameters: dict[str, Any], done: Callable[[], bool] = never) -> FlowRun:
    """The finished run of `deployment` (`flow/name`) with this key; a bad one that was there already runs once more.

    `done` says whether the child's work is there: with it a server that went away is not waited for.

    Raises: StageFailed: it ended badly, now. PrefectHTTPStatusError: the deployment is not there, or refuses them.
    """
    run = patiently(lambda: run_deployment(deployment, parameters=parameters, idempotency_key=key, timeout=0), never)
    assert isinstance(run, FlowRun)
    if ended_badly(run):
        run = retry_in_place(run)
    run = wait_for(run, done)
    if ended_badly(run) and not done():
        assert run.state
        raise StageFailed(f"{deployment}: run {run.name!r} is {run.state.name}: {run.state.message or 'it says no more'}")
    return run
