"""Identity is what determines a result: the same on every machine, and different when anything counts."""

import json
import math
import random
import string
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tasks.schema as schema
from tasks.schema import Completion, Message, Prompt, Row
from tasks.store import Derivation, InputRef, InvalidName, StoreError
from tasks.store.identity import (
    arrow_schema,
    canonical_json,
    check_dataset,
    check_file_path,
    check_name,
    content_hash,
    digest,
    hash_rows,
    row_hash,
    rows_to_table,
    table_to_rows,
)

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
HOSTILE_NAMES = [
    "", ".", "..", "a..b", "a/b", "../a", "/a", "a\\b", "%2e%2e", "a?versionId=1", "a\0b", "a b", "a\n", "-a", ".a",
    "\u0430bc", "\uff0e\uff0e", "x" * 300, "Capital", "a:b", "a*", "s3://b",
]  # fmt: skip


def derivation(**changes: Any) -> Derivation:
    fields: dict[str, Any] = {
        "stage": "respond",
        "dataset": "completions",
        "code_version": 1,
        "config": {"sampling": {"temperature": 1.0}},
        "inputs": {"prompts": InputRef(version="a" * 32, content_hash="b" * 64)},
        "constitution": None,
        "models": {"helpful_only": "c" * 64},
        "seed": 0,
        "force": None,
    }
    return Derivation(**(fields | changes))


def completion(index: int, text: str | None, **changes: Any) -> Completion:
    fields: dict[str, Any] = {"row_id": f"p{index}/0", "reuse_key": f"k{index}", "prompt_id": f"p{index}"}
    return Completion(**(fields | {"sample": 0, "completion": text} | changes))


@given(JSON_VALUES)
def test_canonical_json_any_json_value_survives(value: Any) -> None:
    assert json.loads(canonical_json(value)) == value


@given(st.dictionaries(st.text(), st.integers(), min_size=2), st.randoms())
def test_canonical_json_key_order_does_not_matter(value: dict[str, int], rng: random.Random) -> None:
    items = list(value.items())
    rng.shuffle(items)
    assert canonical_json(dict(items)) == canonical_json(value)


def test_canonical_json_types_that_compare_equal_stay_apart() -> None:
    assert len({canonical_json(value) for value in (1, 1.0, True, "1", [1])}) == 5


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"sampling": {"temperature": math.nan}}, "sampling.temperature"),
        ({"top": [1.0, math.inf]}, "top[1]"),
        ({"model": Path("weights")}, "model"),
        ({"a": [{"b": {1, 2}}]}, "a[0].b"),
        ({"a": object()}, "a"),
        ({"a": b"bytes"}, "a"),
        ({"a": {1: "x"}}, "a"),
        (Message(role="user", content="hi"), "value"),
    ],
)
def test_canonical_json_value_without_stable_form_is_named_by_its_path(value: Any, path: str) -> None:
    with pytest.raises(TypeError) as error:
        canonical_json(value)
    assert str(error.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    "change",
    [
        {"stage": "revise"},
        {"dataset": "samples"},
        {"code_version": 2},
        {"config": {"sampling": {"temperature": 0.5}}},
        {"inputs": {"prompts": InputRef(version="a" * 32, content_hash="d" * 64)}},
        {"inputs": {"other": InputRef(version="a" * 32, content_hash="b" * 64)}},
        {"constitution": "e" * 64},
        {"models": {"helpful_only": "f" * 64}},
        {"models": {"feedback": "c" * 64}},
        {"seed": 1},
        {"force": "again"},
    ],
)
def test_version_any_identity_field_changes_it(change: dict[str, Any]) -> None:
    assert derivation(**change).version != derivation().version


def test_version_every_field_of_a_derivation_but_its_citations_is_tried_above() -> None:
    assert set(Derivation.model_fields) - {"cites"} == {
        "stage", "dataset", "code_version", "config", "inputs", "constitution", "models", "seed", "force",
    }  # fmt: skip


def test_version_citations_for_lineage_do_not_change_it() -> None:
    assert derivation(cites={"constitution": "constitutions/" + "1" * 32}).version == derivation().version


def test_version_input_made_anew_with_the_same_content_does_not_change_it() -> None:
    remade = {"prompts": InputRef(version="9" * 32, content_hash="b" * 64)}
    assert derivation(inputs=remade).version == derivation().version


def test_version_is_the_same_in_another_process() -> None:
    code = (
        "from tasks.store import Derivation, InputRef; import sys; "
        "print(Derivation.model_validate_json(sys.stdin.read()).version)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        input=derivation().model_dump_json(),
        env={"PYTHONHASHSEED": "7", "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == derivation().version


def test_version_config_without_stable_form_is_an_error() -> None:
    with pytest.raises(TypeError, match=r"config\.folder"):
        _ = derivation(config={"folder": Path("x")}).version


@given(st.lists(st.text(string.hexdigits, min_size=1, max_size=64), max_size=8), st.randoms())
def test_content_hash_order_does_not_matter(members: list[str], rng: random.Random) -> None:
    shuffled = rng.sample(members, len(members))
    assert content_hash(shuffled) == content_hash(members)
    assert len(content_hash(members)) == 64


def test_content_hash_equal_members_do_not_cancel() -> None:
    one, other = digest("one"), digest("other")
    assert len({content_hash(m) for m in ([], [one], [one, one], [one] * 3, [one, other])}) == 5


def test_row_hash_names_are_not_content_and_everything_else_is() -> None:
    row = completion(1, "yes").model_dump()
    assert row_hash(row) == row_hash(row | {"row_id": "x", "reuse_key": "y", "row_hash": "z"})
    assert row_hash(row) == row_hash(dict(reversed(row.items())))
    for change in ({"completion": "no"}, {"status": "refused"}, {"num_tokens": 1}, {"reason": "r"}):
        assert row_hash(row | change) != row_hash(row)


def test_hash_rows_fills_each_row_and_ignores_order_in_the_content_hash() -> None:
    rows = [completion(i, f"text {i}") for i in range(5)]
    table, content = hash_rows(rows_to_table(rows, Completion))
    assert table.column("row_hash").to_pylist() == [row_hash(row.model_dump()) for row in rows]
    assert hash_rows(rows_to_table(rows[::-1], Completion))[1] == content
    swapped = [completion(0, "text 1"), completion(1, "text 0"), *rows[2:]]
    assert hash_rows(rows_to_table(swapped, Completion))[1] != content
    renamed = [completion(0, "text 0", row_id="another"), *rows[1:]]
    assert hash_rows(rows_to_table(renamed, Completion))[1] != content


def test_hash_rows_many_batches_equal_one() -> None:
    rows = [completion(i, str(i)) for i in range(9000)]
    table = rows_to_table(rows, Completion)
    pieces = pa.concat_tables([table.slice(start, 7) for start in range(0, 9000, 7)])
    assert hash_rows(pieces)[1] == hash_rows(table)[1]


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([completion(1, "a"), completion(1, "b")], "'p1/0' comes 2 times"),
        ([completion(1, "a", prompt_id="x"), completion(2, "b", row_id="p1/0")], "'p1/0' comes 2 times"),
    ],
)
def test_hash_rows_repeated_row_id_is_named(rows: list[Completion], complaint: str) -> None:
    with pytest.raises(StoreError, match=complaint):
        hash_rows(rows_to_table(rows, Completion))


def test_hash_rows_value_that_is_not_a_number_is_named_with_its_row() -> None:
    table = pa.table({"row_id": ["r1"], "reuse_key": ["k"], "status": ["ok"], "logprob_a": [math.nan]})
    with pytest.raises(StoreError, match=r"row 'r1': logprob_a: nan"):
        hash_rows(table)


def test_hash_rows_missing_names_are_listed() -> None:
    with pytest.raises(StoreError, match=r"reuse_key.*status"):
        hash_rows(pa.table({"row_id": ["a"]}))


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_names_hostile_ones_are_refused(name: str) -> None:
    for check in (check_name, check_dataset, lambda n: check_dataset(f"models/{n}")):
        with pytest.raises(InvalidName):
            check(name)


@pytest.mark.parametrize("name", ["models", "models/", "models/a/b", "data/a", "a/models"])
def test_dataset_names_only_models_may_hold_a_slash(name: str) -> None:
    with pytest.raises(InvalidName):
        check_dataset(name)


@pytest.mark.parametrize("path", ["../a.json", "/a", "a//b", "a/./b", "a/.hidden", "a\\b", "a?b", "", "a\0"])
def test_file_paths_that_could_leave_their_folder_are_refused(path: str) -> None:
    with pytest.raises(InvalidName):
        check_file_path(path)


def test_names_ordinary_ones_pass() -> None:
    assert [check_dataset(n) for n in ("prompts", "models/sl", "a.b-c_1")] == ["prompts", "models/sl", "a.b-c_1"]
    assert check_file_path("1_Pooling/model-00001-of-00002.safetensors")


ROW_MODELS = [
    model for model in vars(schema).values() if isinstance(model, type) and issubclass(model, Row) and model is not Row
]


@pytest.mark.parametrize("model", ROW_MODELS)
def test_arrow_schema_every_row_model_has_one_without_null_types(model: type[Row]) -> None:
    found = arrow_schema(model)
    assert found.names == list(model.model_fields)
    assert "null" not in str(found)


def test_arrow_schema_messages_are_a_list_of_structs() -> None:
    messages = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    assert arrow_schema(Prompt).field("messages").type == messages


def test_arrow_schema_type_without_column_is_named() -> None:
    class Odd(Row):
        """A row with a set."""

        tags: set[str]

    with pytest.raises(TypeError, match="tags"):
        arrow_schema(Odd)


@given(st.lists(st.none() | st.text(st.characters(codec="utf-8")), max_size=6))
def test_rows_to_table_and_back_is_the_same(texts: list[str | None]) -> None:
    rows = [completion(i, text) for i, text in enumerate(texts)]
    assert table_to_rows(rows_to_table(rows, Completion), Completion) == rows


def test_rows_to_table_row_of_another_model_is_refused() -> None:
    with pytest.raises(StoreError, match="Completion, expected Prompt"):
        rows_to_table([completion(1, "a")], Prompt)


def test_rows_to_table_lone_surrogate_names_its_row() -> None:
    with pytest.raises(StoreError, match="p2/0"):
        rows_to_table([completion(1, "fine"), completion(2, "broken \ud83d")], Completion)
