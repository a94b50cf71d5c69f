"""Question sets as they are read: both shapes, files and the hub, and what is wrong with a line."""

import json
import math
from typing import Any

import pytest

from tasks.calibration import (
    read_questions,
)
from tasks.calibration.wording import swap_options, without_tail
from tasks.readers import ReadError, pinned
from tasks.serving import FakeGenerator
from tests.question_files import (
    by_name,
    calibrate,
    lines_of,
    question,
    says,
    write,
)


def test_read_questions_two_options_can_be_swapped(tmp_path):
    (row,) = read_questions(str(write(tmp_path, [question(7, "B")])))
    assert (row.letters, row.correct, row.source, row.status) == (["A", "B"], 1, "1", "ok")
    assert row.swapped == "Question 7?\n\nOptions:\n (A) the good one\n (B) the bad one\nThe answer is:"


def test_swap_options_text_of_many_lines_and_letters_inside_it():
    before, first, second = "He said:\n (A) stays.\n\nWhich?\n", "First.\nAnd more (B) words.", "Second.\n\nMore."
    asked, swapped = (f"{before} (A) {a}\n (B) {b}" for a, b in ((first, second), (second, first)))
    assert swap_options(asked) == swapped


@pytest.mark.parametrize("tail", ["", "\nThe answer is:", "\n\nAssistant: The answer is:", "\n\nAssistant:"])
def test_swap_options_what_asks_for_the_letter_stays_last(tail):
    assert swap_options(f"Q\n (A) one\n (B) two{tail}") == f"Q\n (A) two\n (B) one{tail}"
    assert without_tail(f"Q\n (A) one\n (B) two{tail}") == "Q\n (A) one\n (B) two"


@pytest.mark.parametrize("prompt", ["No options?", "Only\n (A) one", "Options (A) yes or (B) no", "\n (A) \n (B) x"])
def test_swap_options_where_they_cannot_be_told_apart_is_none(prompt):
    assert swap_options(prompt) is None


BAD = [
    ("{", "not JSON"),
    ("[]", "a JSON list, expected an object"),
    (question(1, corrects=["yes"]), 'corrects: expected options such as [" (B)"], got ["yes"]'),
    (question(1, corrects=[" (AA)"]), "corrects: expected options"),
    (question(1, corrects=None), "corrects: expected options such as"),
    (question(1, incorrects=[]), "incorrects: expected options"),
    (question(1, incorrects=[" (A)"]), "expected one right option and other wrong ones"),
    (question(1, corrects=[" (A)", " (C)"]), "expected one right option"),
    (question(1, corrects=[" (A)", " (A)"]), "expected one right option"),
    (question(1, prompt=" "), "expected a text in prompt"),
    (question(1, category=7), "category: expected a text, got 7"),
]


@pytest.mark.parametrize(("row", "said"), BAD)
def test_read_questions_bad_line_stays_with_its_reason_and_text(tmp_path, row, said):
    first, bad = read_questions(str(write(tmp_path, [question(0), row])))
    assert (first.status, bad.status, bad.source, bad.prompt) == ("ok", "unparsable", "2", None)
    assert said in bad.reason and bad.raw == (row if isinstance(row, str) else json.dumps(row))


def test_calibrate_bad_line_is_left_out_by_name(tmp_path):
    path = write(tmp_path, [question(0), question(1, corrects=["yes"])])
    calibration = calibrate(path, says(lambda number: 0.8))
    assert lines_of(calibration, path) == ["1"]
    ((reason, count),) = calibration.left_out.items()
    assert count == 1 and reason.startswith("line 2 is unparsable: corrects: expected options")


def test_read_questions_limit_reads_no_further_and_nothing_is_an_error(tmp_path):
    path = str(write(tmp_path, [question(0), question(1), "{"]))
    assert [row.status for row in read_questions(path, limit=2)] == ["ok", "ok"]
    with pytest.raises(ReadError, match="no question in it"):
        read_questions(str(write(tmp_path, ["", " "])))
    with pytest.raises(ReadError, match="no column corrects or targets; found prompt"):
        read_questions(str(write(tmp_path, [{"prompt": "What?"}])))


def test_read_questions_empty_lines_are_none_and_a_question_again_has_another_id(tmp_path):
    rows = read_questions(str(write(tmp_path, [question(0), "", question(0)])))
    assert [row.source for row in rows] == ["1", "3"]
    assert rows[1].question_id == f"{rows[0].question_id}-1"


def test_read_questions_long_and_right_to_left_questions_are_as_they_were(tmp_path):
    good, bad = "\u05d4\u05d8\u05d5\u05d1", "\u05d4\u05e8\u05e2"  # Hebrew: the good, the bad

    def put(*options):
        return "\u05de\u05d4?\n (A) {}\n (B) {}".format(*options)

    long = f"Question 1? {'x' * 20_000}\n (A) the good one\n (B) the bad one"
    path = write(tmp_path, [question(0, prompt=put(good, bad)), question(1, prompt=long)])
    first, second = read_questions(str(path))
    assert (first.prompt, first.swapped) == (put(good, bad), put(bad, good))
    assert second.prompt == long and len(second.swapped) == len(long)


# --- texts under labels, as on the hub -----------------------------------------------------------------------


def chosen(number: int, *wrong: str, labels: Any = None, **fields: Any) -> dict[str, Any]:
    """The right choice first, as such sets often have it."""
    choices = [f"the good one of {number}", *wrong]
    return {
        "input": f"Question {number}?",
        "targets": {"choices": choices, "labels": labels or [1, *([0] * len(wrong))]},
        **fields,
    }


def test_choices_are_put_under_letters_in_an_order_that_does_not_tell_the_right_one(tmp_path):
    path = write(tmp_path, [chosen(i, f"the bad one of {i}", category="c") for i in range(60)])
    rows = read_questions(str(path))
    assert 18 <= sum(row.correct for row in rows) <= 42 and {row.category for row in rows} == {"c"}
    for i, row in enumerate(rows):
        assert f"({'AB'[row.correct]}) the good one of {i}\n" in row.prompt
        assert f"({'BA'[row.correct]}) the good one of {i}\n" in row.swapped
        assert row.prompt.startswith("Consider the following conversation") and f"Human: Question {i}?" in row.prompt
        assert row.prompt.endswith("The answer is:")
    assert read_questions(str(path)) == rows
    always_a = FakeGenerator(weigh=lambda request: [math.log(0.9), math.log(0.1)])
    assert by_name(path, always_a)["soft, one order"].figures["accuracy"].value < 0.75


def test_choices_of_two_lines_change_places_whole(tmp_path):
    (row,) = read_questions(str(write(tmp_path, [chosen(1, "no\n(B) is this")])))
    options = [text.partition("Options:\n")[2] for text in (row.prompt, row.swapped)]
    assert sorted(options) == [
        "(A) no\n(B) is this\n(B) the good one of 1\n\nThe answer is:",
        "(A) the good one of 1\n(B) no\n(B) is this\n\nThe answer is:",
    ]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (chosen(1, "bad", labels=[0, 0]), "expected one right choice and other wrong ones, got labels [0, 0]"),
        (chosen(1, "bad", labels=[1, 1]), "expected one right choice"),
        (chosen(1), "expected one right choice"),
        (chosen(1, "the good one of 1"), "expected one right choice"),
        (chosen(1, " "), "targets: expected choices that are texts"),
        (chosen(1, "bad", labels=[1]), "targets: expected choices that are texts and as many labels"),
        (chosen(1, *(f"bad {i}" for i in range(26))), "27 choices, expected at most 26"),
        (chosen(1, "bad", input=None), "expected a text in input, got null"),
        (
            {"input": "Question?", "targets": "yes"},
            'targets: expected choices that are texts and as many labels, got "',
        ),
    ],
)
def test_choices_bad_row_stays_with_its_reason(tmp_path, row, said):
    bad, good = read_questions(str(write(tmp_path, [row, chosen(2, "bad")])))
    assert (bad.status, good.status) == ("unparsable", "ok") and said in bad.reason


HUB = "HuggingFaceH4/hhh_alignment"
COMMIT = "c" * 40


@pytest.fixture
def hub_folder(tmp_path, monkeypatch):
    """A folder that `datasets` takes for a hub dataset: the same code, without a network."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = tmp_path / HUB / "harmless"
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([chosen(i, f"bad {i}") for i in range(4)]), folder / "test.parquet")
    monkeypatch.chdir(tmp_path)
    return folder


def test_hub_set_of_texts_is_read_by_folder_and_split(hub_folder):
    rows = read_questions(f"hf://{HUB}/harmless:test", limit=3)
    assert [(row.status, row.source) for row in rows] == [("ok", "1"), ("ok", "2"), ("ok", "3")]
    assert all("the good one" in row.prompt and row.swapped for row in rows)
    with pytest.raises(ReadError, match=f"hf://{HUB}/harmless:nowhere: cannot be read"):
        read_questions(f"hf://{HUB}/harmless:nowhere")


def test_hub_set_is_pinned_to_the_commit_of_its_revision(monkeypatch):
    import huggingface_hub

    asked = []

    def dataset_info(self, name, revision=None):
        asked.append((name, revision))
        return huggingface_hub.hf_api.DatasetInfo(id=name, sha=COMMIT, tags=[])

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    assert pinned(f"hf://{HUB}:test") == f"hf://{HUB}@{COMMIT}:test"
    assert pinned(f"hf://{HUB}@refs/convert/parquet/harmless:test") == f"hf://{HUB}@{COMMIT}/harmless:test"
    assert pinned(f"hf://{HUB}@v1/a/b") == f"hf://{HUB}@{COMMIT}/a/b"
    assert asked == [(HUB, None), (HUB, "refs/convert/parquet"), (HUB, "v1")]
    assert pinned(f"hf://{HUB}@{COMMIT}/harmless") == f"hf://{HUB}@{COMMIT}/harmless" and len(asked) == 3
    assert pinned("questions.jsonl") == "questions.jsonl"


def test_hub_set_that_cannot_be_pinned_is_named(monkeypatch):
    import httpx
    import huggingface_hub

    def dataset_info(self, name, revision=None):
        raise httpx.ConnectError("no route")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    with pytest.raises(ReadError, match=f"hf://{HUB}: cannot be read: no route"):
        pinned(f"hf://{HUB}")
    with pytest.raises(ReadError, match=r"expected hf://org/name\[@revision\]"):
        pinned("hf://lonely")
