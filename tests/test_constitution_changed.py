"""From an event to a run, on a real server: one plan, one form and one run for each move of a tag.

Runs are executed in threads of this process; `tests/integration/test_amendments.py` does it with a worker's processes.
"""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from prefect.client.orchestration import get_client
from prefect.states import Failed

from tasks.decisions import decided
from tests.amended import Town, amended, read, state_name, worker
from tests.prefect_stack import eventually


@pytest.fixture(scope="module")
def town(prefect_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """Whose `align` only says that it was started; a constitution of another id for each test."""
    made = Town(tmp_path_factory.mktemp("town"), "stub", "tests.align_stub")
    made.listen()
    with worker(made):
        yield made


def test_event_asks_and_runs_when_approved(town):
    published = town.publish(amended("asked"))
    town.announce(published)
    eventually(lambda: bool(town.changes("asked")), "the event started nothing")
    (run,) = town.changes("asked")
    town.asked(run.id)
    plan, form = town.artifact(run.id, "plan"), town.form(run.id)
    assert "stages to make" in plan["description"] and "respond" in plan["data"]
    assert plan["description"] in form and "first publication" in form and "| stage |" in form
    for answer in ({"decision": "perhaps", "by": "anna"}, {"decision": "approve"}, {"by": "anna"}):
        assert town.answer(run.id, **answer)["status"] == "REJECT"
    assert state_name(run.id) == "Suspended" and town.aligned(published) == []
    assert town.answer(run.id, decision="approve", by="anna", note="go")["status"] == "ACCEPT"
    town.reaches(run.id, "Aligned")
    (child,) = town.aligned(published)
    assert child.parameters["config"]["constitution_version"] == published.move.version
    assert "approved** by anna: go" in town.artifact(run.id, "decision")["data"]


def test_event_ten_of_one_move_are_one_form_and_one_run(town):
    published = [town.publish(amended("often")) for _ in range(10)]
    assert [p.moved for p in published] == [True] + [False] * 9 and published[0].move == published[9].move
    before = len(town.runs(town.changed))
    for number in range(10):  # five times the same event, which Prefect itself knows again, and five that are told anew
        town.announce(published[number], **({} if number < 5 else {"id": uuid4()}))
    eventually(lambda: len(town.runs(town.changed)) >= before + 6, "events started no runs")
    eventually(lambda: bool(town.changes("often")), "nobody took it in hand")
    (run,) = town.changes("often")
    town.asked(run.id)
    for other in [other for other in town.runs(town.changed)[before:] if other.id != run.id]:
        assert "has it in hand" in town.reaches(other.id, "Handled").state.message
    assert town.changes("often") == [read(run.id)]
    town.answer(run.id, decision="approve", by="anna")
    town.reaches(run.id, "Aligned")
    town.reaches(town.start(published[0]), "Handled")
    assert len(town.aligned(published[0])) == 1


def test_reject_runs_nothing_and_is_remembered_where_prefect_forgets(town):
    published = town.publish(amended("unwanted"))
    run = town.start(published)
    town.asked(run)
    town.answer(run, decision="reject", by="ben", note="too dear")
    assert "ben: too dear" in town.reaches(run, "Rejected").state.message
    assert "rejected** by ben: too dear" in town.artifact(run, "decision")["data"]
    with get_client(sync_client=True) as client:
        client.delete_flow_run(run)
    assert "ben: too dear" in town.reaches(town.start(published), "Rejected").state.message
    assert town.aligned(published) == []


def test_change_there_and_back_is_three_runs(town):
    for number, text in enumerate(["", "Truly?", ""], start=1):
        published = town.publish(amended("restless", text))
        assert published.move.sequence == number
        town.reaches(town.start(published, policy="auto"), "Aligned")
        assert len(town.aligned(published)) == 1
    keys = [run.idempotency_key for run in town.runs(town.align) if (run.idempotency_key or "").startswith("restless:")]
    assert [key.split(":")[1] for key in keys] == ["1", "2", "3"] and keys[0].split(":")[2] == keys[2].split(":")[2]


def test_change_superseded_is_withdrawn_and_never_runs(town):
    old = town.publish(amended("moving"))
    run = town.start(old)
    town.asked(run)
    new = town.publish(amended("moving", "Truly?"))
    later = town.start(new)
    town.asked(later)
    assert town.reaches(run, "Cancelled").state.message == "superseded by move 2"
    assert "there is move 2" in town.reaches(town.start(old), "Superseded").state.message
    assert "reworded (comparison)" in town.form(later)
    assert town.aligned(old) == []


def test_change_whose_run_failed_is_retried_by_the_next_event(town):
    published, fail = town.publish(amended("unlucky")), town.folder / "fail"
    fail.touch()
    run = town.start(published)
    town.asked(run)
    town.answer(run, decision="approve", by="anna")
    town.reaches(run, "Failed")
    fail.unlink()
    assert "runs once more" in town.reaches(town.start(published), "Handled").state.message
    town.reaches(run, "Aligned")  # and nobody is asked again
    (child,) = town.aligned(published)
    assert child.run_count == 2


def test_change_whose_run_was_cancelled_stays_so(town):
    published, cancel = town.publish(amended("stopped")), town.folder / "cancel"
    cancel.touch()
    run = town.start(published, policy="auto")
    town.reaches(run, "Cancelled")
    cancel.unlink()
    later = town.start(published, policy="auto")
    assert "is Cancelled; retry it there" in town.reaches(later, "Handled").state.message
    assert [child.state.name for child in town.aligned(published)] == ["Cancelled"]


def test_question_that_nobody_answered_is_asked_again(town):
    published = town.publish(amended("unheard"))
    run = town.start(published)
    town.asked(run)
    with get_client(sync_client=True) as client:  # what Prefect does when the time is over
        client.set_flow_run_state(run, Failed(message="The flow was paused and never resumed."), force=True)
    town.reaches(town.start(published), "Handled")
    town.asked(run)
    assert town.answer(run, decision="reject", by="anna")["status"] == "ACCEPT"
    town.reaches(run, "Rejected")


def test_schedule_follows_the_newest_move_whose_event_was_lost(town):
    assert "nothing is published" in town.reaches(town.start(), "Unpublished").state.message
    town.publish(amended("micro"))
    newest = town.publish(amended("micro", "Truly?"))
    run = town.start()
    town.asked(run)
    assert read(run).name == "micro move 2"
    town.reaches(town.start(newest), "Handled")  # the event, late
    town.reaches(town.start(), "Handled")  # the next night
    town.answer(run, decision="approve", by="anna")
    town.reaches(run, "Aligned")
    assert len(town.aligned(newest)) == 1


def test_notify_shows_the_plan_and_runs_nothing(town):
    published = town.publish(amended("told"))
    run = town.start(published, policy="notify")
    assert "stages to make" in town.reaches(run, "Planned").state.message
    assert town.artifact(run, "plan") and "first publication" in town.artifact(run, "amendment")["data"]
    assert decided(town.store, town.subject(published)) is None and town.aligned(published) == []
    later = town.start(published)  # another policy is another question
    town.asked(later)
    town.answer(later, decision="reject", by="anna")
    town.reaches(later, "Rejected")


def test_move_that_the_store_does_not_have_is_an_error_that_says_so(town):
    published = town.publish(amended("elsewhere"))
    unknown = published.model_copy(update={"move": published.move.model_copy(update={"sequence": 7})})
    message = town.reaches(town.start(unknown), "Failed").state.message
    assert "change.sequence: 7, but its newest is 1 of constitution 'elsewhere'" in message
