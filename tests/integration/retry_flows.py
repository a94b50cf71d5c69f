"""Flows that note what of them runs, and fail the first time: what `test_retry_matrix.py` retries."""

import threading
from pathlib import Path

from prefect import flow, task
from prefect.cache_policies import DEFAULT, INPUTS, NO_CACHE
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.runtime import flow_run

from flows.children import run_child

# What is noted, as the rows of the table.
PERSISTED = "task, persisted"
MAPPED = "task, persisted, mapped"
PLAIN = "task, plain"
UNCACHED = "task, persisted, NO_CACHE"
UNHASHABLE = "task, persisted, argument that cannot be hashed"
UNHASHED = "task, persisted, that argument left out of the key"
NO_ARGUMENTS = "task, persisted, INPUTS, no arguments"
SUBFLOW_PERSISTED = "inline subflow that completed, persisted"
SUBFLOW_PLAIN = "inline subflow that completed, plain"
SUBFLOW_FAILED = "inline subflow that failed"
TASK_OF_FAILED = "persisted task of the inline subflow that failed"
CHILD_UNKEYED = "deployment that completed, no key"
CHILD_KEYED_FAILED = "deployment that failed, key"
CHILD_ATTACHED = "deployment that completed, run_child"
CHILD_RETRIED = "deployment that failed, run_child"
TASK_OF_RETRIED = "persisted task of the deployment that failed, run_child"


def note(marks: str, row: str) -> None:
    with Path(marks).open("a") as file:
        file.write(row + "\n")


def fail_once(marks: str, row: str) -> None:
    """Note the row; raise if it is the first time."""
    note(marks, row)
    if Path(marks).read_text().splitlines().count(row) == 1:
        raise RuntimeError(f"{row}: fails the first time")


@task(persist_result=True)
def persisted(marks: str, row: str) -> None:
    note(marks, row)


@task(persist_result=True)
def mapped(marks: str, number: int) -> None:
    note(marks, MAPPED)


@task
def plain(marks: str) -> None:
    note(marks, PLAIN)


@task(persist_result=True, cache_policy=NO_CACHE)
def uncached(marks: str) -> None:
    note(marks, UNCACHED)


@task(persist_result=True)
def unhashable(marks: str, lock: object) -> None:
    note(marks, UNHASHABLE)


@task(persist_result=True, cache_policy=DEFAULT - "lock")
def unhashed(marks: str, lock: object) -> None:
    note(marks, UNHASHED)


@task(persist_result=True, cache_policy=INPUTS)
def no_arguments() -> None:
    note(str(flow_run.parameters["marks"]), NO_ARGUMENTS)


@flow(persist_result=True)
def subflow_persisted(marks: str) -> None:
    note(marks, SUBFLOW_PERSISTED)


@flow(persist_result=False)
def subflow_plain(marks: str) -> None:
    note(marks, SUBFLOW_PLAIN)


@flow
def subflow_failing(marks: str) -> None:
    persisted(marks, TASK_OF_FAILED)
    fail_once(marks, SUBFLOW_FAILED)


@flow
def inline(marks: str) -> None:
    """Everything in one process."""
    persisted(marks, PERSISTED)
    mapped.map(marks, [1, 2]).wait()
    plain(marks)
    uncached(marks)
    unhashable(marks, threading.Lock())
    unhashed(marks, threading.Lock())
    no_arguments()
    subflow_persisted(marks)
    subflow_plain(marks)
    subflow_failing(marks)


@flow
def child(marks: str, row: str, fails: bool) -> None:
    """A stage that is a deployment."""
    if row == CHILD_RETRIED:
        persisted(marks, TASK_OF_RETRIED)
    if fails:
        fail_once(marks, row)
    else:
        note(marks, row)


@flow
def unkeyed(marks: str) -> None:
    """A child without a key, and a failure after it."""
    run_deployment("child/retried", parameters={"marks": marks, "row": CHILD_UNKEYED, "fails": False}, poll_interval=1)
    if flow_run.run_count == 1:
        raise RuntimeError("fails the first time")


@flow
def keyed(marks: str) -> None:
    """A child with a key, whose failure is the parent's."""
    run = run_deployment(
        "child/retried",
        parameters={"marks": marks, "row": CHILD_KEYED_FAILED, "fails": True},
        idempotency_key=f"{flow_run.id}:child",
        poll_interval=1,
    )
    assert isinstance(run, FlowRun)
    if run.state_name != "Completed":
        raise RuntimeError(f"child: {run.state_name}")


@flow
def attached(marks: str) -> None:
    """Two children as Solon starts them."""
    for row, fails in ((CHILD_ATTACHED, False), (CHILD_RETRIED, True)):
        run_child("child/retried", f"{flow_run.id}:{row}", {"marks": marks, "row": row, "fails": fails})
