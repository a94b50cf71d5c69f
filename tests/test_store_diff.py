"""Two versions, row by row: every row is counted once, and what is shown is what differs."""

import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.schema import Completion, DatasetRef, Message, Prompt
from tasks.store import Derivation, Store
from tasks.store.diff import diff_versions
from tasks.store.identity import digest, rows_to_table

VERSIONS = st.dictionaries(st.integers(0, 12), st.sampled_from(["a", "b", None]), max_size=12)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr("tasks.store.parts.PART_BYTES", 3_000)
    monkeypatch.setattr("tasks.store.parts._GROUP_BYTES", 1_000)
    return Store.open(str(tmp_path / "store"), cache=tmp_path / "cache")


def commit(store: Store, table: pa.Table, dataset: str = "completions") -> DatasetRef:
    derivation = Derivation(
        stage="s", dataset=dataset, code_version=1, config={"rows": digest(table.to_pylist())}, inputs={},
        constitution=None, models={}, seed=0, force=None,
    )  # fmt: skip
    return store.commit_rows(derivation, table, metrics={}, cost={})


def rows(texts: dict[int, str | None], **changes: Any) -> pa.Table:
    def row(i: int, text: str | None) -> Completion:
        values = {"row_id": f"p{i}/0", "reuse_key": digest([i, text]), "prompt_id": f"p{i}", "sample": 0}
        return Completion(**(values | {"completion": text} | changes))

    return rows_to_table([row(i, text) for i, text in texts.items()], Completion)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(old=VERSIONS, new=VERSIONS)
def test_diff_every_row_is_counted_once_as_what_it_is(store: Store, old: Any, new: Any) -> None:
    diff = diff_versions(store, commit(store, rows(old)), commit(store, rows(new)), num_examples=100)
    both = old.keys() & new.keys()
    changed = {f"p{i}/0": (old[i], new[i]) for i in both if old[i] != new[i]}
    assert (diff.added, diff.removed) == (len(new.keys() - old.keys()), len(old.keys() - new.keys()))
    assert (diff.changed, diff.same) == (len(changed), len(both) - len(changed))
    assert {row.row_id: row.columns for row in diff.examples} == {k: {"completion": v} for k, v in changed.items()}
    assert {row.row_id for row in diff.added_examples} == {f"p{i}/0" for i in new.keys() - old.keys()}
    assert {row.row_id for row in diff.removed_examples} == {f"p{i}/0" for i in old.keys() - new.keys()}
    assert diff.changed_columns == ({"completion": len(changed)} if changed else {})


def test_diff_over_many_parts_finds_the_one_changed_row(store: Store) -> None:
    texts: dict[int, str | None] = {i: f"text {i} " + digest(i) for i in range(900)}
    old, new = commit(store, rows(texts)), commit(store, rows(dict(reversed((texts | {777: "other"}).items()))))
    assert len(store.part_locations(old)) > 3
    diff = diff_versions(store, old, new)
    assert (diff.added, diff.removed, diff.changed, diff.same) == (0, 0, 1, 899)
    assert diff.examples[0].row_id == "p777/0"
    assert diff.examples[0].columns == {"completion": (texts[777], "other")}


def test_diff_examples_come_in_the_order_of_the_new_version(store: Store) -> None:
    old, new = rows(dict.fromkeys(range(60), "a")), rows(dict.fromkeys(reversed(range(60)), "b"))
    diff = diff_versions(store, commit(store, old), commit(store, new), num_examples=3)
    assert [row.row_id for row in diff.examples] == ["p59/0", "p58/0", "p57/0"]


def test_diff_of_a_large_change_says_how_many_rows_were_compared(store: Store, monkeypatch: Any) -> None:
    monkeypatch.setattr("tasks.store.diff.MAX_COMPARED", 7)
    old, new = rows(dict.fromkeys(range(60), "a")), rows(dict.fromkeys(range(60), "b"), num_tokens=1)
    diff = diff_versions(store, commit(store, old), commit(store, new))
    assert (diff.changed, diff.num_compared, len(diff.examples)) == (60, 7, 5)
    assert diff.changed_columns == {"completion": 7, "num_tokens": 7}


def test_diff_reuse_key_alone_is_no_change(store: Store) -> None:
    old, new = rows({1: "a"}, reuse_key="k"), rows({1: "a"}, reuse_key="l")
    assert diff_versions(store, commit(store, old), commit(store, new)).same == 1


def test_diff_new_column_and_nested_values_are_shown_as_json(store: Store) -> None:
    def prompt(content: str) -> pa.Table:
        message = Message(role="user", content=content)
        values = {"row_id": "p", "reuse_key": "k", "prompt_id": "p", "kind": "helpful", "source": "t", "split": "train"}
        return rows_to_table([Prompt.model_validate(values | {"messages": [message]})], Prompt)

    newer = prompt("ü").append_column("language", pa.array(["de"]))
    diff = diff_versions(store, commit(store, prompt("x"), "prompts"), commit(store, newer, "prompts"))
    assert diff.examples[0].columns["language"] == (None, "de")
    assert diff.examples[0].columns["messages"][1] == '[{"role": "user", "content": "ü"}]'


def test_diff_reads_texts_only_of_what_it_shows(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    texts: dict[int, str | None] = {i: random.Random(i).randbytes(1000).hex() for i in range(2000)}
    monkeypatch.setattr("tasks.store.parts.PART_BYTES", 10**7)
    monkeypatch.setattr("tasks.store.parts._GROUP_BYTES", 10**5)
    old, new = commit(store, rows(texts)), commit(store, rows(texts | {1999: "other"}))
    read: list[int] = []
    get_range = store.backend.get_range
    monkeypatch.setattr(store.backend, "get_range", lambda k, s, n: read.append(n) or get_range(k, s, n))
    assert diff_versions(store, old, new).changed == 1
    stored = [part.bytes for ref in (old, new) for part in store.manifest(ref.dataset, ref.version).parts]
    assert sum(read) < sum(stored) / 4
