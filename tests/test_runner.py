"""A chunk as a Prefect task: transient failures are tried again, others are not; nothing is committed meanwhile."""

import threading
from typing import ClassVar

import pytest
from prefect import flow

from flows.execution import chunk, execute
from tasks.schema import DatasetRef, Prompt
from tasks.serving import TransientServingError
from tasks.stage import RunContext, Session, Stage
from tasks.store import Store
from tasks.store.claims import claim
from tasks.store.errors import StoreUnavailable
from tasks.store.identity import rows_to_table
from tests.worlds import prompt

pytestmark = pytest.mark.usefixtures("prefect_home")


def failing(times, error):
    calls = []

    def work():
        calls.append(1)
        if len(calls) <= times:
            raise error
        return len(calls)

    return work, calls


def test_chunk_server_that_died_once_is_tried_again():
    work, calls = failing(1, TransientServingError("the server died"))

    @flow
    def one_chunk():
        return chunk("c", work)

    assert one_chunk() == 2 and len(calls) == 2


def test_chunk_whose_store_may_answer_in_a_while_is_tried_again():
    work, calls = failing(1, StoreUnavailable("no answer", is_transient=True))

    @flow
    def one_chunk():
        return chunk("c", work)

    assert one_chunk() == 2 and len(calls) == 2


def test_chunk_whose_store_refuses_it_is_not_tried_again():
    work, calls = failing(9, StoreUnavailable("AccessDenied, HTTP 403"))

    @flow
    def one_chunk():
        return chunk("c", work)

    with pytest.raises(StoreUnavailable, match="403"):
        one_chunk()
    assert len(calls) == 1


def test_chunk_bad_input_is_not_tried_again():
    work, calls = failing(9, ValueError("bad"))

    @flow
    def one_chunk():
        return chunk("c", work)

    with pytest.raises(ValueError, match="bad"):
        one_chunk()
    assert len(calls) == 1


class OnePrompt(Stage):
    """A stage that says how often it was made."""

    stage: ClassVar[str] = "one-prompt"
    dataset: ClassVar[str] = "prompts"
    code_version: ClassVar[int] = 1
    made: ClassVar[list[str]] = []

    def make(self, session: Session) -> DatasetRef:
        self.made.append("once")
        return self.commit(session.store)

    def commit(self, store: Store) -> DatasetRef:
        rows = rows_to_table([prompt("ask")], Prompt)
        return store.commit_rows(self.derivation(store), rows, metrics={}, cost={})


def test_execute_waits_for_who_makes_the_same_version_and_takes_theirs(tmp_path):
    stage = OnePrompt(run=RunContext(store=str(tmp_path)))
    other = Store.open(str(tmp_path))
    held = claim(other, "prompts", stage.derivation(other).version, "another run")
    assert held is not None

    def finish():
        stage.commit(other)
        held.end()

    @flow
    def one_stage():
        return execute(stage)

    with held:
        threading.Timer(1.0, finish).start()
        assert one_stage() == stage.result(other)
    assert OnePrompt.made == []


def test_execute_leaves_no_claim_and_no_pin_behind(tmp_path):
    stage = OnePrompt(run=RunContext(store=str(tmp_path)))

    @flow
    def one_stage():
        return execute(stage)

    assert one_stage() == stage.result(Store.open(str(tmp_path)))
    left = [path for folder in ("claims", "pins", "attempts") for path in (tmp_path / "v1" / folder).rglob("*.json")]
    assert not left
