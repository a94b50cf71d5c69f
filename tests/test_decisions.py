"""Decisions about a move: kept with who and why, the first one holds, and for one run under one move only."""

from pathlib import Path

import pytest

from tasks.decisions import Subject, decide, decided
from tasks.publish import publish
from tasks.store import Store
from tests.lineage_world import small_constitution


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"), cache=tmp_path / "cache")


@pytest.fixture
def subject(store: Store) -> Subject:
    move = publish(store, small_constitution(), "anna").move
    return Subject(constitution="small", sequence=1, version=move.version, run="a" * 64)


@pytest.mark.parametrize("word", ["approved", "rejected"])
def test_decision_is_read_back_by_whoever_opens_the_store(store, subject, word, tmp_path):
    assert decided(store, subject) is None
    kept = decide(store, subject, word, "anna: why not")
    found = decided(Store.open(store.uri, cache=tmp_path / "other"), subject)
    assert found == kept and (found.word, found.by) == (word, "anna: why not") and found.at


def test_decision_once_made_holds(store, subject):
    first = decide(store, subject, "approved", "anna")
    assert decide(store, subject, "rejected", "ben") == first
    assert decide(store, subject, "approved", "carl") == first == decided(store, subject)


def test_decision_is_about_one_move_and_one_config(store, subject):
    decide(store, subject, "rejected", "anna")
    for other in ({"sequence": 2}, {"run": "b" * 64}):
        assert decided(store, subject.model_copy(update=other)) is None


def test_decision_about_a_constitution_with_a_long_id(store):
    constitution = small_constitution().model_copy(update={"id": "l" * 63})
    move = publish(store, constitution, "anna").move
    subject = Subject(constitution="l" * 63, sequence=1, version=move.version, run="a" * 64)
    assert decide(store, subject, "rejected", "anna").word == "rejected"


def test_key_names_constitution_move_and_config(subject):
    assert subject.key == f"small:1:{'a' * 64}"
