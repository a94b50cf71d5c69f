"""Flows that fail, wait or ask, so that every button of a run's page has something to do."""

import time
from pathlib import Path
from typing import Literal

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from pydantic import Field


class Answer(RunInput):
    """What a person says before a run goes on."""

    decision: Literal["approve", "reject"] = Field(description="What becomes of the plan.")
    reason: str = Field(default="", description="Why.")


@flow(name="fails-once")
def fails_once(marker: str) -> str:
    """Fails until this file is there, which the first try makes."""
    if not Path(marker).exists():
        Path(marker).touch()
        raise ValueError(f"{marker} was not there")
    create_markdown_artifact("# Done\n\nThe second try.", key="fails-once")
    return "done"


@flow(name="ticks")
def ticks() -> None:
    """Ends at once."""


@flow(name="waits")
def waits(seconds: int = 600) -> None:
    """Does nothing for so long."""
    time.sleep(seconds)


@flow(name="asks")
def asks(to: str) -> None:
    """Goes on when a person has answered, and writes the answer into this file."""
    answer = suspend_flow_run(wait_for_input=Answer, timeout=600)
    Path(to).write_text(f"{answer.decision}: {answer.reason}")
