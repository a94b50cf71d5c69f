"""Small question sets, models with known answers, and what a command makes of both."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from tasks.calibration import (
    Calibration,
    answer,
    asked_of,
    calibration_of,
    expect_labels,
    read_questions,
    summarise,
)
from tasks.serving import Choice, FakeGenerator
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
