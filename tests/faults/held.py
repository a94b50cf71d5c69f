"""Stages that a test can hold or fail in their middle: what their deployments in `tests.prefect_stack` import.

Orders are files in the folder that SOLON_TEST_ORDERS names: `hold-revise` lets the stage wait before its second chunk
for as long as the file is there, `fail-revise` fails it there. A training fails after its first logged step, a stage
that has neither chunks nor steps at its start. What ran is noted in `ran`, a chunk or step a line.
"""

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from prefect import flow

from flows import execution, stages
from flows.align import align
from flows.config import AlignConfig
from flows.given import gather
from flows.runner import Run
from tasks import train
from tasks.respond import RespondStage
from tasks.schema import DatasetRef
from tasks.start_gates import StartGatesStage
from tasks.training.job import TrainingJob
from tasks.training.launch_config import LaunchConfig

ORDERS = "SOLON_TEST_ORDERS"
"""Names the folder of orders, in the environment."""
PATIENCE_SECONDS = 6.0
"""So that a test need not wait as long as the product for a claim whose holder was killed."""

CHEAP = {name for name, made in stages.FLOWS.items() if made.fn.__annotations__["stage"].cheap}
"""Stages without chunks and steps."""
RAN = "ran"
"""File beside the orders: `revise chunk`, `rl step 3`, `rl failed`."""

ordinary_chunk, ordinary_progress, ordinary_launch = execution.chunk, execution.StageProgress, train.launch


def chunk(name: str, work: Callable[[], object]) -> object:
    """A chunk as ever, once there is no order against it. Its name is `revise rows 17 and on`."""
    stage, _, first_row, *_ = name.split()
    if first_row != "1":
        while (orders() / f"hold-{stage}").exists():
            (orders() / f"held-{stage}").touch()
            time.sleep(0.1)
        fail_if_told(stage)
    made = ordinary_chunk(name, work)
    note(stage, "chunk")
    return made


def progress(stage: str) -> execution.StageProgress:
    """What every stage makes at its start."""
    if stage in CHEAP:
        fail_if_told(stage)
    return ordinary_progress(stage)


def launch(job: TrainingJob, config: LaunchConfig, on_log: Callable[[dict[str, Any]], None], *rest: Any) -> Any:
    """A training as ever; each step that it logs is noted, and may be its last."""
    stage = job.run_name.partition("/")[0]

    def log(line: dict[str, Any]) -> None:
        on_log(line)
        note(stage, f"step {line['step']}")
        fail_if_told(stage)

    return ordinary_launch(job, config, log, *rest)


def fail_if_told(stage: str) -> None:
    if (orders() / f"fail-{stage}").exists():
        note(stage, "failed")
        raise ValueError(f"{stage} was told to fail")


def note(stage: str, what: str) -> None:
    with (orders() / RAN).open("a") as file:
        file.write(f"{stage} {what}\n")


def orders() -> Path:
    return Path(os.environ[ORDERS])


if ORDERS in os.environ:  # a run's process; who only deploys these flows keeps the ordinary ones
    execution.chunk = chunk  # type: ignore[assignment]
    execution.StageProgress = progress  # type: ignore[assignment,misc]
    train.launch = launch
    execution.claim = partial(execution.claim, patience_seconds=PATIENCE_SECONDS, beat_seconds=1.0, poll_seconds=0.5)
__all__ = ["align", "begin"]  # a deployment of this module is held too, where it makes stages itself
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
