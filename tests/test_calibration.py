"""Reading question sets, asking them by answer tokens, and figures against hand-computed ones."""

import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.calibration import (
    Calibration,
    Form,
    answer,
    asked_of,
    calibration_of,
    expect_labels,
    read_questions,
    summarise,
)
from tasks.calibration.figures import bin_numbers, form_of, preference
from tasks.calibration.page import category_rows, render
from tasks.calibration.reading import NO_SWAP
from tasks.calibration.wording import swap_options, without_tail
from tasks.readers import ReadError, pinned
from tasks.report.reliability import reliability_chart
from tasks.serving import Choice, FakeGenerator
from tests.test_report import Outline
from tests.worlds import recipe

ETHICAL = Path(__file__).parents[2] / "shared" / "data" / "anthropic-cai" / "evals" / "HarmfulVsEthical.jsonl"
needs_file = pytest.mark.skipif(not ETHICAL.exists(), reason=f"{ETHICAL.name} is not on this machine")


def question(number: int, right: str = "A", **fields: Any) -> dict[str, Any]:
    wrong = "B" if right == "A" else "A"
    marks = {right: "good", wrong: "bad"}
    prompt = f"Question {number}?\n\nOptions:\n (A) the {marks['A']} one\n (B) the {marks['B']} one\nThe answer is:"
    return {"prompt": prompt, "corrects": [f" ({right})"], "incorrects": [f" ({wrong})"], **fields}


def write(folder: Path, rows: list[Any]) -> Path:
    path = folder / "evals.jsonl"
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


def questions(folder: Path, num: int) -> Path:
    return write(folder, [question(i, "AB"[i % 2]) for i in range(num)])


def number_of(text: str) -> int:
    return int(re.search(r"Question (\d+)", text)[1])


def good_letter(text: str) -> int:
    return 0 if "(A) the good" in text else 1


def says(prob_right: Any, reply: Any = "a reason", fails: str = "nothing") -> FakeGenerator:
    """A model that gives the good option this probability, by the number of the question."""

    def weigh(request: Any) -> Any:
        text = request.messages[0].content
        if fails in text:
            return Choice(None, error="too long")
        prob = prob_right(number_of(text))
        both = [math.log(prob), math.log(1 - prob)]
        return both if good_letter(text) == 0 else both[::-1]

    return FakeGenerator(reply, weigh)


def calibrate(path: Path, generator: Any, *forms: Any) -> Calibration:
    """As the command does it."""
    asked = [each for row in read_questions(str(path)) for each in asked_of(row, ["soft", *forms])]
    return expect_labels(calibration_of(answer(asked, generator, recipe(sampling=None))))


def lines_of(calibration: Calibration, path: Path) -> list[str]:
    return [row.source for row in read_questions(str(path)) if row.question_id in calibration.questions]


def by_name(path: Path, generator: FakeGenerator) -> dict[str, Any]:
    calibration = calibrate(path, generator)
    return {summary.name: summary for summary in summarise(calibration.forms)}


# --- reading -------------------------------------------------------------------------------------------------


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


# --- figures -------------------------------------------------------------------------------------------------


def test_bins_equal_confidences_share_one_and_others_have_equal_mass():
    assert len(set(bin_numbers(np.full(100, 0.6)))) == 1
    numbers = bin_numbers(np.linspace(0.5, 1, 300))
    assert sorted(np.bincount(numbers)) == [20] * 15


def test_summarise_hand_computed_figures():
    (found,) = summarise([form_of("soft", np.array([0.9, 0.9, 0.9, 0.1]))])
    values = {name: figure.value for name, figure in found.figures.items()}
    assert values["accuracy"] == pytest.approx(0.75)
    assert values["ece"] == pytest.approx(0.15)  # confident 0.9, right in three of four
    assert values["brier"] == pytest.approx((3 * 0.01 + 0.81) / 4)
    assert values["log_loss"] == pytest.approx(-(3 * math.log(0.9) + math.log(0.1)) / 4)


def test_summarise_ece_of_bins_that_err_both_ways_does_not_cancel():
    (found,) = summarise([form_of("soft", np.array([0.6, 0.6, 0.1, 0.1]))])  # 0.6 and right, 0.9 and wrong
    assert found.figures["ece"].value == pytest.approx((0.4 + 0.9) / 2)


def test_summarise_ece_interval_lies_around_it_though_resamples_have_more():
    rng = np.random.default_rng(1)
    confidence = rng.uniform(0.5, 1, 150)
    prob = np.where(rng.random(150) < confidence, confidence, 1 - confidence)
    ece = summarise([form_of("soft", prob)])[0].figures["ece"]
    assert abs((ece.low + ece.high) / 2 - ece.value) < 0.1 * (ece.high - ece.low)


def test_summarise_undecided_label_counts_half_and_stays_out_of_ece():
    (found,) = summarise([form_of("soft", np.array([0.5, 0.5, 1.0, 1.0]))])
    assert found.figures["accuracy"].value == pytest.approx(0.75) and found.num_undecided == 2
    assert found.figures["ece"].value == 0.0 and [b.num_labels for b in found.bins] == [2]


def test_summarise_intervals_hold_the_truth_as_often_as_they_say():
    rng, held = np.random.default_rng(0), 0
    for _ in range(40):
        right = rng.random(200) < 0.7
        (found,) = summarise([form_of("hard", right.astype(float))])
        held += found.figures["accuracy"].low <= 0.7 <= found.figures["accuracy"].high
    assert held >= 34


def test_summarise_differences_are_paired():
    rng = np.random.default_rng(0)
    prob = rng.uniform(0.2, 0.9, 400)
    better = np.where(rng.random(400) < 0.1, np.maximum(prob, 1 - prob), prob)
    first, second = summarise([form_of("a", prob), form_of("b", better)])
    width = second.differences["accuracy"].high - second.differences["accuracy"].low
    unpaired = first.figures["accuracy"].high - first.figures["accuracy"].low
    assert width < 0.6 * unpaired and second.differences["accuracy"].low > 0
    assert first.differences == {}


def test_summarise_repeated_questions_of_a_unit_widen_the_interval():
    prob = np.repeat(np.random.default_rng(0).random(40), 10)
    tens = [str(i // 10) for i in range(400)]
    alone, together = (summarise([form_of("a", prob)], units)[0] for units in (None, tens))
    widths = [s.figures["accuracy"].high - s.figures["accuracy"].low for s in (alone, together)]
    assert widths[1] > 2 * widths[0]


def test_summarise_chance_error_is_that_of_few_questions():
    few, many = (summarise([form_of("a", np.full(n, 0.5) + np.linspace(0.1, 0.4, n))])[0] for n in (60, 6000))
    assert few.error_by_chance > 5 * many.error_by_chance > 0


def test_preference_half_is_no_preference():
    assert preference(np.array([0.2, 0.5, 0.8])).tolist() == [0, 0.5, 1]


# --- asking --------------------------------------------------------------------------------------------------


def test_calibrate_perfect_model_has_no_error(tmp_path):
    found = by_name(questions(tmp_path, 60), says(lambda number: 1 - 1e-9))
    assert all(s.figures["accuracy"].value == 1 for s in found.values())
    assert all(s.figures["ece"].value < 1e-6 for s in found.values())


def test_calibrate_overconfident_model_is_told_by_how_much(tmp_path):
    found = by_name(questions(tmp_path, 500), says(lambda number: 0.99 if number % 5 < 3 else 0.01))
    soft = found["soft, both orders"]
    assert soft.figures["accuracy"].value == pytest.approx(0.6)
    assert soft.figures["ece"].value == pytest.approx(0.39, abs=0.001)
    assert soft.figures["ece"].low > 0.3


def test_calibrate_model_that_always_says_a_is_undecided_in_both_orders(tmp_path):
    generator = FakeGenerator(weigh=lambda request: [math.log(0.9), math.log(0.1)])
    found = by_name(questions(tmp_path, 100), generator)
    assert found["soft, both orders"].num_undecided == 100
    assert found["hard, one order"].figures["accuracy"].value == pytest.approx(0.5)
    assert found["soft, both orders"].differences["brier"].high < 0  # 0.25 is better than half of all wrong


def test_calibrate_asks_each_order_once_with_the_options_changed_places(tmp_path):
    generator = says(lambda number: 0.8)
    calibrate(questions(tmp_path, 3), generator)
    texts = [request.messages[0].content for request in generator.choices]
    assert len(texts) == 6 and len(set(texts)) == 6
    assert [good_letter(text) for text in texts] == [0, 1, 1, 0, 0, 1]


def test_calibrate_reasoned_thinks_in_each_order_and_is_clamped(tmp_path):
    generator = says(lambda number: 0.9, lambda request: f"because {number_of(request.messages[0].content)}")
    calibration = calibrate(questions(tmp_path, 2), generator, "reasoned")
    forms = {form.name: form.prob.tolist() for form in calibration.forms}
    assert forms["reasoned"] == pytest.approx([0.9, 0.9]) and forms["reasoned, clamped"] == [0.6, 0.6]
    assert len(generator.requests) == 4 and len({r.seed for r in generator.requests}) == 4
    assert not any("The answer is:" in r.messages[0].content for r in generator.requests)
    assert generator.choices[-1].messages[1].content == "Let's think step by step: because 1"


def test_calibrate_unanswered_and_unswappable_questions_are_counted(tmp_path):
    rows = [question(0), question(1), question(2, prompt="Yes (A) or no (B)?")]
    generator = says(lambda number: 0.8, fails="Question 1")
    path = write(tmp_path, rows)
    calibration = calibrate(path, generator)
    assert lines_of(calibration, path) == ["1"]
    assert calibration.left_out == {"too long": 1, NO_SWAP: 1}
    assert all(len(form.right) == 1 for form in calibration.forms)


def test_calibrate_question_answered_in_one_order_only_is_left_out(tmp_path):
    generator = says(lambda number: 0.8, fails="(A) the bad one")
    with pytest.raises(ValueError, match="no question was answered"):
        calibrate(write(tmp_path, [question(0), question(1)]), generator)


def test_calibrate_failed_reasoning_leaves_the_question_out_of_every_form(tmp_path):
    generator = says(lambda number: 0.8, lambda request: "" if "Question 0" in request.messages[0].content else "yes")
    calibration = calibrate(questions(tmp_path, 3), generator, "reasoned")
    assert calibration.left_out == {"the reasoning is empty": 1}
    assert {len(form.right) for form in calibration.forms} == {2}


def test_calibrate_nothing_answered_is_an_error_that_says_why(tmp_path):
    generator = FakeGenerator(weigh=lambda request: Choice(None, error="context too small"))
    with pytest.raises(ValueError, match="most often: context too small"):
        calibrate(questions(tmp_path, 3), generator)


def test_calibrate_letters_hardly_probable_shows_in_the_mass(tmp_path):
    generator = FakeGenerator(weigh=lambda request: [-10.0, -12.0])
    assert calibrate(questions(tmp_path, 3), generator).mass < 1e-4


def test_calibrate_nine_options_tell_accuracy_only(tmp_path):
    letters = "ABCDEFGHI"
    rows = [
        {"prompt": f"Kind {i}?", "corrects": [f" ({x})"], "incorrects": [f" ({y})" for y in letters if y != x]}
        for i, x in enumerate(letters)
    ]
    generator = FakeGenerator(weigh=lambda request: [0.0 if x == "C" else -3.0 for x in letters])
    calibration = calibrate(write(tmp_path, rows), generator)
    (found,) = summarise(calibration.forms)
    assert found.figures.keys() == {"accuracy"} and found.figures["accuracy"].value == pytest.approx(1 / 9)


# --- the page ------------------------------------------------------------------------------------------------


def test_page_is_whole_and_loads_nothing(tmp_path):
    generator = says(lambda number: 0.6 + 0.3 * (number % 7) / 7)
    calibration = calibrate(questions(tmp_path, 80), generator, "reasoned")
    nasty = "<script>alert(1)</script>"
    page = render(calibration, summarise(calibration.forms), [("Model", nasty)])
    outline = Outline(page)
    assert not outline.stack and nasty not in page
    assert not {"script", "img"} & {tag for tag, _ in outline.tags}
    assert sum(tag == "svg" for tag, _ in outline.tags) == 5
    for name in ("hard, one order", "soft, both orders", "reasoned, clamped"):
        assert name in outline.open_text


def test_page_accuracy_alone_has_no_plots():
    form = Form("likeliest letter", np.array([1.0, 0.0]), None)
    calibration = Calibration([form], {"q1": "", "q2": ""}, Counter(), 1)
    page = render(calibration, summarise([form]), [])
    assert "50.0%" in page and "<svg" not in page and "Differences" not in page


def test_reliability_chart_dots_stand_at_confidence_and_accuracy():
    (found,) = summarise([form_of("soft", np.array([0.9, 0.9, 0.9, 0.1]))])
    chart = str(reliability_chart("soft", found.bins))
    assert "confidence 0.90: accuracy 0.75, 4 labels" in chart and "nan" not in chart


# --- the paper's file ----------------------------------------------------------------------------------------


def ethical_answers() -> dict[str, int]:
    rows = read_questions(str(ETHICAL))
    answers = {row.prompt: row.correct for row in rows}
    return answers | {row.swapped: 1 - row.correct for row in rows}


def sure(prob_right: Any) -> FakeGenerator:
    answers = ethical_answers()

    def weigh(request: Any) -> Any:
        text = request.messages[0].content
        prob = prob_right(len(text))
        both = [math.log(prob), math.log(1 - prob)]
        return both if answers[text] == 0 else both[::-1]

    return FakeGenerator(weigh=weigh)


def test_calibrate_by_category_tells_what_the_model_is_good_at(tmp_path):
    rows = [question(i, "AB"[i % 2], category="law" if i < 20 else "sums") for i in range(40)]
    calibration = calibrate(write(tmp_path, rows), says(lambda i: 0.9 if i < 20 else 0.3))
    law, sums = category_rows(calibration, ["accuracy"])
    assert (law.name, law.cells[0].value) == ("law (20)", 1.0) and (sums.name, sums.cells[0].value) == (
        "sums (20)",
        0.0,
    )
    assert "By category" in render(calibration, summarise(calibration.forms), [])
    assert category_rows(calibrate(questions(tmp_path, 4), says(lambda i: 0.9)), ["accuracy"]) == []


def test_calibrate_question_too_long_for_the_model_is_left_out_with_its_reason(tmp_path):
    from tasks.serving import ServingConfig, close_all, open_generator
    from tasks.store import resolve_external_model
    from tasks.store.external import fetch_external

    long = question(1, prompt=f"Question 1? {'word ' * 20_000}\n (A) the good one\n (B) the bad one")
    path, model = write(tmp_path, [question(0), long]), resolve_external_model("tasks/micro/model")
    try:
        with open_generator(model, fetch_external(model), ServingConfig(engine="transformers")) as generator:
            calibration = calibrate(path, generator)
    finally:
        close_all()
    assert lines_of(calibration, path) == ["1"]
    ((reason, count),) = calibration.left_out.items()
    assert count == 1 and "tokens" in reason


@needs_file
def test_ethical_file_every_question_is_read_and_swapped():
    rows = read_questions(str(ETHICAL))
    assert len(rows) == 254 and sum(row.correct for row in rows) == 127
    assert all(row.swapped and row.status == "ok" for row in rows)


@needs_file
def test_ethical_file_perfect_model_has_no_error_and_overconfident_has():
    perfect = by_name(ETHICAL, sure(lambda length: 0.999))["soft, both orders"].figures
    assert perfect["accuracy"].value == 1 and perfect["ece"].value == pytest.approx(0.001)
    bold = by_name(ETHICAL, sure(lambda length: 0.98 if length % 3 else 0.02))["soft, both orders"].figures
    assert bold["ece"].value == pytest.approx(0.98 - bold["accuracy"].value, abs=0.002)
    assert bold["ece"].low > 0.2


@needs_file
def test_ethical_file_micro_model_runs_through_the_command(tmp_path):
    from typer.testing import CliRunner

    from flows.cli import app

    page = tmp_path / "page.html"
    arguments = ["calibrate", str(ETHICAL), "--model", "tasks/micro/model", "--engine", "transformers"]
    done = CliRunner().invoke(app, [*arguments, "--limit", "32", "--html", str(page)])
    assert done.exit_code == 0, done.output
    assert "32 questions" in done.output and "soft, both orders" in done.output
    assert "HarmfulVsEthical.jsonl" in page.read_text()
