"""A run that was ended elsewhere ends its process, so that no GPU and no model's server stays with it.

Prefect ends a process through its worker. The worker may be dead, may have stopped looking for cancelled runs (it does
after half a minute without a server), or the server may have written Crashed or Cancelled while the process worked
on. So every process of a deployment's run looks for itself. A server that is away is no reason to stop.
"""

import contextvars
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from uuid import UUID

import httpx
from prefect import get_run_logger
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import TaskRunFilter, TaskRunFilterId
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext
from prefect.exceptions import Abort, ObjectNotFound, TerminationSignal
from prefect.states import Cancelled

from flows.api import ask
from flows.children import is_cancelled, state_of

LOOK_SECONDS = 5.0
"""Between two looks at the own run and its parent's."""
EXIT_SECONDS = 20.0
"""What a process has to leave: a training to write its resume point, a model's server to end."""
LINGER_SECONDS = 180.0
"""What a process has to report its end. Prefect tries for two minutes to write the state; after that, each event that
is queued for a server that is away would cost 7 s more, hours for a long stage."""
STARTED_FOR = "PREFECT__FLOW_RUN_ID"
"""Where a worker names the run for which it starts a process."""
LEAVE = signal.SIGUSR1
"""Not SIGTERM: Prefect's engine writes Crashed for one that no worker sent, over the Cancelled that is true."""


@contextmanager
def watched() -> Iterator[None]:
    """Inside, the process ends when its run has ended elsewhere, or the run is cancelled or its parent is.

    Does nothing for a run that shares its process with whoever called it.

    Raises: Abort: that is so already; or later, wherever the main thread is.
    """
    run = run_of_this_process()
    if run is None:
        yield
        return
    watch = Watch(run)
    if reason := watch.look():
        watch.tell(reason)
        raise Abort(reason)
    with watch.going_on():
        yield


def run_of_this_process() -> FlowRun | None:
    """The running flow, if it is what this process was started for."""
    context = FlowRunContext.get()
    run, started_for = context.flow_run if context else None, os.environ.get(STARTED_FOR)
    return run if run and started_for and UUID(started_for) == run.id else None


class Watch:
    """Looks after one run from a thread of its own."""

    def __init__(self, run: FlowRun) -> None:
        self.run = run
        self.was_cancelling = False
        self._over = threading.Event()
        self._lock = threading.Lock()  # so that a process which is done with its work is not sent away

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Look again and again, until the end of the block."""
        signal.signal(LEAVE, leave)
        context = contextvars.copy_context()  # the thread's log lines belong to the run
        threading.Thread(target=context.run, args=(self._live,), name="watch", daemon=True).start()
        threading.Thread(target=print_without_reader, name="printing", daemon=True).start()
        try:
            yield
        finally:
            with self._lock:
                self._over.set()

    def _live(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            if reason := self.look():
                self._end(reason)
        time.sleep(LINGER_SECONDS)
        os._exit(1)

    def look(self) -> str | None:
        """Why this process should end, in words; None: no reason, or nobody there to ask."""
        try:
            us, parent = ask(self._read)
        except (httpx.HTTPError, ObjectNotFound):  # the work is done all the same, and the store keeps it
            return None
        reason = why_leave(us, parent, self.was_cancelling)
        self.was_cancelling = state_of(us).is_cancelling()
        return reason

    def _read(self, client: SyncPrefectClient) -> tuple[FlowRun, FlowRun | None]:
        us, task = client.read_flow_run(self.run.id), self.run.parent_task_run_id
        above = client.read_flow_runs(task_run_filter=TaskRunFilter(id=TaskRunFilterId(any_=[task]))) if task else []
        return us, above[0] if above else None

    def tell(self, reason: str) -> None:
        """Say in the log and in the run's state why it ends; a run that has ended keeps its state."""
        get_run_logger().warning("leaving: %s", reason)
        with suppress(httpx.HTTPError, ObjectNotFound):
            us = ask(lambda client: client.read_flow_run(self.run.id))
            if not state_of(us).is_final():
                ask(lambda client: client.set_flow_run_state(self.run.id, Cancelled(message=f"Left: {reason}.")))

    def _end(self, reason: str) -> None:
        self.tell(reason)
        with self._lock:
            if self._over.is_set():
                return
            main = threading.main_thread().ident
            assert main
            signal.pthread_kill(main, LEAVE)
        time.sleep(EXIT_SECONDS)
        os._exit(0)  # its state is written: for the worker nothing has gone wrong


def print_without_reader() -> None:
    """Once nobody reads what this process prints, let it print to nowhere.

    The reader is the worker. Where it was killed, the next line of the log would end the run: rich, with which Prefect
    writes its log, exits when it meets a broken pipe.
    """
    pipes, nowhere = select.poll(), os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        pipes.register(stream, 0)  # errors are reported unasked
    for _ in range(2):
        for stream, _ in pipes.poll():
            pipes.unregister(stream)
            os.dup2(nowhere, stream)


def why_leave(us: FlowRun, parent: FlowRun | None, was_cancelling: bool) -> str | None:
    """Why a run should leave, given its own state and its parent's. None: it should go on.

    A run that is being cancelled gives its worker one look's time, since a worker ends it in order.
    """
    if state_of(us).is_final():
        return f"this run is {state_of(us).name}"
    if parent and is_cancelled(parent):
        return f"the parent run is {state_of(parent).name}"
    if state_of(us).is_cancelling() and was_cancelling:
        return "this run is cancelled, and no worker has ended it"
    return None


def leave(*_: object) -> None:
    """End the main thread's work in order, as a cancelled run's: once, and undisturbed."""
    if is_leaving(sys.exception()):
        return
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Abort("this run was ended elsewhere")


def is_leaving(error: BaseException | None) -> bool:
    """Whether the main thread is on its way out, since somebody asked it to go before."""
    while error and not isinstance(error, TerminationSignal | Abort):
        error = error.__context__
    return error is not None
