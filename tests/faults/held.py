"""Stages that a test can hold or fail between two chunks: what their deployments in `tests.prefect_stack` import.

Orders are files in the folder that SOLON_TEST_ORDERS names: `hold-revise` lets the stage wait before its second chunk
for as long as the file is there, `fail-revise` fails it there.
"""

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from prefect import flow

from flows import execution, stages
from flows.config import AlignConfig
from flows.given import gather
from flows.runner import Run
from tasks.respond import RespondStage
from tasks.schema import DatasetRef
from tasks.start_gates import StartGatesStage

ORDERS = "SOLON_TEST_ORDERS"
"""Names the folder of orders, in the environment."""
PATIENCE_SECONDS = 6.0
"""So that a test need not wait as long as the product for a claim whose holder was killed."""

ordinary_chunk = execution.chunk


def chunk(name: str, work: Callable[[], object]) -> object:
    """A chunk as ever, once there is no order against it. Its name is `revise rows 17 and on`."""
    stage, _, first_row, *_ = name.split()
    orders = Path(os.environ[ORDERS])
    if first_row != "1":
        while (orders / f"hold-{stage}").exists():
            (orders / f"held-{stage}").touch()
            time.sleep(0.1)
        if (orders / f"fail-{stage}").exists():
            raise ValueError(f"{stage} was told to fail")
    return ordinary_chunk(name, work)


execution.chunk = chunk  # type: ignore[assignment]
execution.claim = partial(execution.claim, patience_seconds=PATIENCE_SECONDS, beat_seconds=1.0, poll_seconds=0.5)
globals().update({stage.fn.__name__: stage for stage in stages.FLOWS.values()})


@flow(name="begin", flow_run_name="begin seed {config.run.seed}")
def begin(config: AlignConfig) -> list[DatasetRef]:
    """The first stages of an alignment: enough to run, kill and retry."""
    with Run(config.run) as run:
        given = gather(run, config)
        completions = run.dataset(
            RespondStage(run=config.run, prompts=given.prompts, helpful_only=given.helpful_only, config=config.respond)
        )
        gates = run.dataset(
            StartGatesStage(run=config.run, prompts=given.prompts, completions=completions, config=config.gates)
        )
        return [given.constitution, given.prompts, completions, gates]
