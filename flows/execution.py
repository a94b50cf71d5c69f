"""The body of every stage flow: claim the version, make it in chunks, leave nothing behind."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE

from flows.artifacts import StageProgress
from flows.watch import watched
from tasks.schema import DatasetRef, ModelRef
from tasks.serving import TransientServingError, close_all
from tasks.stage import Session, Stage, hold_inputs
from tasks.store import Store
from tasks.store.claims import claim
from tasks.store.errors import StoreUnavailable

T = TypeVar("T")
in_run: ContextVar[bool] = ContextVar("in_run", default=False)
"""Set where a run makes its stages in its own process: it watches, and keeps servers, for all of them."""


def is_transient(task: Any, task_run: Any, state: Any) -> bool:
    """Whether a failed chunk is worth another try: a server or the network failed, not the work."""
    error = state.result(raise_on_failure=False)
    if isinstance(error, StoreUnavailable):
        return error.is_transient
    return isinstance(error, TransientServingError | ConnectionError | TimeoutError)


@task(
    task_run_name="{name}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=2,
    retry_delay_seconds=[2, 20],
    retry_condition_fn=is_transient,
)
def chunk(name: str, work: Callable[[], T]) -> T:
    """One chunk of a stage: a resume point."""
    return work()


def execute(stage: Stage) -> DatasetRef | ModelRef:
    """The body of every stage flow: make the stage's result unless it exists."""
    with nullcontext() if in_run.get() else alone():
        store, progress = Store.open(stage.run.store), StageProgress(stage.stage)
        derivation = stage.derivation(store)
        try:
            hold_inputs(store, derivation)
            work = claim(store, derivation.dataset, derivation.version, holder(), waiting=progress.waiting)
            with work or nullcontext():  # no claim: somebody else has made it meanwhile
                return stage.result(store) or stage.make(Session(store, chunk, progress))
        finally:
            store.release()


@contextmanager
def alone() -> Iterator[None]:
    """For a stage that is a process: it ends when its run is ended elsewhere, and leaves no server behind."""
    try:
        with watched():
            yield
    finally:
        close_all()


def holder() -> str:
    """Who makes a stage, for those who wait for it."""
    return f"{socket.gethostname()} process {os.getpid()}"
