"""When a run's process leaves by itself; that it does is tested with real workers (test_stage_runs.py)."""

import subprocess
import sys
import uuid

import pytest
from prefect import flow
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import Abort, TerminationSignal
from prefect.runtime import flow_run
from prefect.states import Cancelled, Cancelling, Completed, Crashed, Failed, Pending, Running, Scheduled

from flows.watch import STARTED_FOR, Watch, is_leaving, watched, why_leave


def run_in(state):
    return FlowRun(id=uuid.uuid4(), flow_id=uuid.uuid4(), name="r", state=state)


@pytest.mark.parametrize("ended", [Crashed(), Cancelled(), Failed(), Completed()])
def test_why_leave_run_that_is_over_leaves(ended):
    assert ended.name in why_leave(run_in(ended), None, was_cancelling=False)


@pytest.mark.parametrize("ending", [Cancelling(), Cancelled()])
def test_why_leave_cancelled_parent_takes_its_stage_with_it(ending):
    assert "parent" in why_leave(run_in(Running()), run_in(ending), was_cancelling=False)


@pytest.mark.parametrize("parent", [Running(), Crashed(), Failed(), Scheduled(), Completed()])
def test_why_leave_parent_that_ended_otherwise_leaves_its_stage_at_work(parent):
    assert why_leave(run_in(Running()), run_in(parent), was_cancelling=False) is None


@pytest.mark.parametrize("state", [Running(), Pending(), Scheduled()])
def test_why_leave_run_that_is_not_over_goes_on(state):
    assert why_leave(run_in(state), None, was_cancelling=False) is None


def test_why_leave_run_that_is_being_cancelled_leaves_its_worker_the_time_of_one_look():
    assert why_leave(run_in(Cancelling()), None, was_cancelling=False) is None
    assert "no worker" in why_leave(run_in(Cancelling()), None, was_cancelling=True)


def test_is_leaving_sees_the_signal_behind_what_was_raised_while_leaving():
    for signal in (TerminationSignal(signal=15), Abort()):
        try:
            try:
                raise signal
            except BaseException:
                raise OSError("while a file was closed") from None
        except OSError as error:
            assert is_leaving(error)
    assert not is_leaving(OSError("of the work itself"))
    assert not is_leaving(None)


def test_look_server_that_is_away_is_no_reason_to_leave(prefect_home, monkeypatch):
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from tasks.processes import free_port

    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api"}):
        assert Watch(run_in(Running())).look() is None


def test_look_run_that_the_server_does_not_know_is_no_reason_to_leave(prefect_home):
    assert Watch(run_in(Running())).look() is None


@pytest.mark.parametrize("started_for", [None, "00000000-0000-4000-8000-000000000000"])
def test_watched_run_that_shares_its_process_is_not_watched(prefect_home, monkeypatch, started_for):
    monkeypatch.setattr(Watch, "look", lambda self: "it was ended")
    if started_for:
        monkeypatch.setenv(STARTED_FOR, started_for)

    @flow(name="shares its process")
    def shares():
        with watched():
            return "went on"

    assert shares() == "went on"


def test_watched_run_of_its_own_process_leaves_at_once_where_it_is_over(prefect_home, monkeypatch):
    monkeypatch.setattr(Watch, "look", lambda self: "it was ended")

    @flow(name="has its process")
    def alone():
        monkeypatch.setenv(STARTED_FOR, flow_run.id)
        with watched():
            return "went on"

    with pytest.raises(Abort, match="it was ended"):
        alone()


CHATTY = """
import sys, threading, time
from rich.console import Console
if sys.argv[1] == "outlives":
    from flows.watch import print_without_reader
    threading.Thread(target=print_without_reader, daemon=True).start()
print("begins", flush=True)
sys.stdin.read()
time.sleep(0.5)
Console(file=sys.stderr).print("a line of the log")
print("another one", flush=True)
"""


@pytest.mark.parametrize(("kind", "code"), [("outlives", 0), ("does not", 1)])
def test_process_whose_worker_was_killed_goes_on_printing_to_nowhere(kind, code):
    """What does not take care ends at its first line: without that, this would test nothing."""
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", CHATTY, kind], stdin=pipe, stdout=pipe, stderr=pipe)
    assert process.stdin and process.stdout and process.stderr
    assert process.stdout.readline() == b"begins\n"
    process.stdout.close()
    process.stderr.close()
    process.stdin.close()
    assert process.wait(60) == code
