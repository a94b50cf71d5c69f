"""Question sets asked by answer tokens, the page of what came of it, and the paper's file."""

import math
from collections import Counter

import numpy as np
import pytest

from tasks.calibration import (
    Calibration,
    Form,
    read_questions,
    summarise,
)
from tasks.calibration.figures import form_of
from tasks.calibration.page import category_rows, render
from tasks.calibration.reading import NO_SWAP
from tasks.report.reliability import reliability_chart
from tasks.serving import Choice, FakeGenerator
from tests.question_files import (
    ETHICAL,
    by_name,
    calibrate,
    good_letter,
    lines_of,
    needs_file,
    number_of,
    question,
    questions,
    says,
    sure,
    write,
)
from tests.report_world import Outline

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
