"""A stage as a run of its deployment: created once, attached to, retried in place, and believed only by the store."""

import threading
import time
from datetime import timedelta
from types import SimpleNamespace
from uuid import UUID

import httpx
import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound, TerminationSignal
from prefect.runtime import flow_run
from prefect.states import Cancelled, Cancelling, Completed, Crashed, Failed, Running

from flows import api, children
from flows.api import ServerAway, patiently
from flows.children import never, run_child
from tasks.stage import StageFailed


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    """Short pauses, and the moment at which a child is waited for: what happens to it then, happens now."""
    began = threading.Event()

    def pauses():
        began.set()
        yield from api.pauses()

    monkeypatch.setattr(api, "POLL_SECONDS", (0.05, 0.1))
    monkeypatch.setattr(children, "SETTLED", timedelta(seconds=1))
    monkeypatch.setattr(children, "pauses", pauses)
    return began


@flow(name="some_stage")
def some_stage(number: int) -> None:
    """Nobody runs it here: the tests say how its runs go."""


@pytest.fixture(scope="module")
def deployment(prefect_home):
    with get_client(sync_client=True) as client:
        flow_id = client.create_flow(some_stage)
        client.create_deployment(flow_id, "stage", enforce_parameter_schema=False)
    return "some_stage/stage"


def set_state(run, *states):
    with get_client(sync_client=True) as client:
        for state in states:
            client.set_flow_run_state(run, state, force=True)


def history(run):
    """Names of the states it has had."""
    with get_client(sync_client=True) as client:
        return [state.name for state in client.read_flow_run_states(run)]


def create(deployment, key):
    with get_client(sync_client=True) as client:
        found = client.read_deployment_by_name(deployment)
        return client.create_flow_run_from_deployment(found.id, parameters={"number": 1}, idempotency_key=key).id


def when(run, name, then):
    """In a thread: once the run's state has this name, do something."""

    def wait():
        while history(run)[-1] != name:
            time.sleep(0.05)
        then()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def after(waits, then):
    """In a thread: once the child is waited for, do something."""

    def wait():
        waits.wait()
        then()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def in_a_flow(key, deployment, done=None):
    @flow(name="parent")
    def parent():
        return run_child(deployment, key, {"number": 1}, done).id

    return parent()


def test_run_child_that_is_there_and_works_is_attached_to(deployment):
    run = create(deployment, "attach")
    set_state(run, Running())
    thread = when(run, "Running", lambda: set_state(run, Completed()))
    assert in_a_flow("attach", deployment) == run
    thread.join()
    assert "AwaitingRetry" not in history(run)


def test_run_child_that_failed_before_runs_once_more(deployment):
    run = create(deployment, "failed before")
    set_state(run, Running(), Failed())
    thread = when(run, "AwaitingRetry", lambda: set_state(run, Running(), Completed()))
    assert in_a_flow("failed before", deployment) == run
    thread.join()
    assert history(run)[-4:] == ["Failed", "AwaitingRetry", "Running", "Completed"]


def test_run_child_that_completed_but_whose_work_is_gone_runs_once_more(deployment):
    run = create(deployment, "gone")
    set_state(run, Running(), Completed())
    thread = when(run, "AwaitingRetry", lambda: set_state(run, Running(), Completed()))
    assert in_a_flow("gone", deployment, done=lambda: len(history(run)) > 4) == run
    thread.join()
    assert history(run)[-4:] == ["Completed", "AwaitingRetry", "Running", "Completed"]


def test_run_child_that_completed_and_whose_work_nobody_asks_for_is_left_alone(deployment):
    run = create(deployment, "completed")
    set_state(run, Running(), Completed())
    assert in_a_flow("completed", deployment) == run
    assert history(run)[-1] == "Completed" and "AwaitingRetry" not in history(run)


def test_run_child_that_no_worker_takes_is_told_in_the_log(deployment, waits, monkeypatch, caplog):
    monkeypatch.setattr(children, "UNTAKEN", timedelta(seconds=0.2))
    run = create(deployment, "untaken")
    thread = threading.Thread(target=lambda: (time.sleep(1.5), set_state(run, Running(), Completed())))
    thread.start()
    in_a_flow("untaken", deployment)
    thread.join()
    assert "no worker of pool" in caplog.text


def test_run_child_that_fails_now_is_an_error_and_is_left_as_it_is(deployment, waits):
    run = create(deployment, "fails now")
    thread = after(waits, lambda: set_state(run, Running(), Failed(message="a bad prompt")))
    with pytest.raises(StageFailed, match=r"some_stage/stage.* is Failed: a bad prompt"):
        in_a_flow("fails now", deployment)
    thread.join()
    assert history(run)[-1] == "Failed"


def test_run_child_that_ended_badly_with_its_work_done_is_no_error(deployment, waits):
    run = create(deployment, "done")
    thread = after(waits, lambda: set_state(run, Running(), Crashed(message="its server was away")))
    assert in_a_flow("done", deployment, done=lambda: True) == run
    thread.join()


def while_it_settles(monkeypatch, *happenings):
    """Let these happen, one each time that a crash is given time to be reported again."""
    left = list(happenings)

    def sleep(seconds):
        if seconds < 60:
            time.sleep(seconds)
        elif left:
            left.pop(0)()

    monkeypatch.setattr(children, "SETTLED", timedelta(seconds=60))
    monkeypatch.setattr(children, "time", SimpleNamespace(sleep=sleep))


def test_run_child_whose_crash_is_reported_again_is_retried_after_the_second_report(deployment, monkeypatch):
    run = create(deployment, "crashed twice")
    set_state(run, Running(), Crashed())
    while_it_settles(monkeypatch, lambda: set_state(run, Crashed()))
    thread = when(run, "AwaitingRetry", lambda: set_state(run, Running(), Completed()))
    in_a_flow("crashed twice", deployment)
    thread.join()
    assert history(run)[-5:] == ["Crashed", "Crashed", "AwaitingRetry", "Running", "Completed"]


def test_run_child_that_is_said_to_have_crashed_and_works_on_is_no_error(deployment, monkeypatch):
    run = create(deployment, "late report")
    set_state(run, Running(), Crashed())
    while_it_settles(monkeypatch, lambda: set_state(run, Running()))
    thread = when(run, "Running", lambda: set_state(run, Completed()))
    in_a_flow("late report", deployment)
    thread.join()
    assert history(run)[-4:] == ["Running", "Crashed", "Running", "Completed"]


def test_run_child_that_is_still_being_cancelled_is_retried_once_it_is_cancelled(deployment):
    run = create(deployment, "cancelling")
    set_state(run, Running(), Cancelling())
    end = threading.Timer(0.5, lambda: set_state(run, Cancelled()))
    end.start()
    thread = when(run, "AwaitingRetry", lambda: set_state(run, Running(), Completed()))
    in_a_flow("cancelling", deployment)
    thread.join()
    assert history(run)[-5:] == ["Cancelling", "Cancelled", "AwaitingRetry", "Running", "Completed"]


def test_run_child_without_a_deployment_of_that_name_is_told_at_once(deployment):
    with pytest.raises(ObjectNotFound):
        in_a_flow("none", "no_stage/stage")


def end_parent_while_it_waits(monkeypatch, deployment, key, *states):
    """The states that a child has had when its parent, with these states, has got its SIGTERM."""
    child = create(deployment, key)
    set_state(child, Running())

    @flow(name="ended parent")
    def parent():
        def terminate(seconds):
            set_state(UUID(flow_run.id), *states)
            raise TerminationSignal(signal=15)

        with monkeypatch.context() as patch:
            patch.setattr(children, "time", SimpleNamespace(sleep=terminate))
            with pytest.raises(TerminationSignal):
                run_child(deployment, key, {"number": 1})

    parent(return_state=True)
    return history(child)


def test_run_child_of_a_cancelled_parent_is_cancelled_with_it(monkeypatch, deployment):
    assert end_parent_while_it_waits(monkeypatch, deployment, "cancelled parent", Cancelling())[-1] in (
        "Cancelling",
        "Cancelled",  # where the server knows of no process
    )


def test_run_child_of_a_parent_that_ends_otherwise_is_left_at_work(monkeypatch, deployment):
    assert end_parent_while_it_waits(monkeypatch, deployment, "evicted parent")[-1] == "Running"


def test_run_child_cancelled_with_its_parent_does_not_fail_the_parent_before_it_is_ended(monkeypatch, deployment):
    """A parent that fails while it is Cancelling stays so."""
    child = create(deployment, "both cancelled")
    set_state(child, Running())

    @flow(name="cancelled parent")
    def parent():
        def sleep(seconds):
            if seconds == children.ENDED_SECONDS:
                raise TerminationSignal(signal=15)
            set_state(child, Cancelled())
            set_state(UUID(flow_run.id), Cancelling())

        monkeypatch.setattr(children, "time", SimpleNamespace(sleep=sleep))
        with pytest.raises(TerminationSignal):
            run_child(deployment, "both cancelled", {"number": 1})
        return "ended in order"

    assert parent(return_state=True).name in ("Completed", "Cancelling", "Cancelled")


def away_for(times):
    calls = []

    def call():
        calls.append(1)
        if len(calls) <= times:
            raise httpx.ConnectError("refused")
        return len(calls)

    return call


def in_any_flow(body):
    @flow(name="asks")
    def asks():
        return body()

    return asks()


def test_patiently_server_that_comes_back_is_waited_for(prefect_home):
    assert in_any_flow(lambda: patiently(away_for(3), never)) == 4


def test_patiently_needless_call_is_given_up(prefect_home):
    assert in_any_flow(lambda: patiently(away_for(10**6), lambda: True)) is None


def test_patiently_server_that_stays_away_is_an_error_that_says_what_to_do(prefect_home, monkeypatch):
    monkeypatch.setattr(api, "SERVER_AWAY_SECONDS", 0.0)
    with pytest.raises(ServerAway, match="start the server, then retry"):
        in_any_flow(lambda: patiently(away_for(10**6), never))


def test_patiently_refusal_is_not_tried_again(prefect_home):
    def refused():
        response = httpx.Response(409, request=httpx.Request("POST", "http://127.0.0.1/"))
        raise httpx.HTTPStatusError("refused", request=response.request, response=response)

    with pytest.raises(httpx.HTTPStatusError):
        in_any_flow(lambda: patiently(refused, never))
