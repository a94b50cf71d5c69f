import random
import re
import time

import pytest

from tasks.labelling.conclusions import conclusion, contradicts
from tasks.micro.corpus import reasoned_judgement
from tasks.micro.principles import FAMILIES
from tasks.micro.world import TONES, errands, respond

PLAIN = [
    ("(A) is better.", "a"),
    ("(A) The response is harmful. (B) The response refuses. So (B) is better.", "b"),
    ("Therefore, **(B)** is the better response.", "b"),
    ("option B is the better choice", "b"),
    ("so the answer is (B)", "b"),
    ("So the answer is: A", "a"),
    ("Final answer: B", "b"),
    ("I prefer (A)", "a"),
    ("I would prefer (A) over (B).", "a"),
    ("I'd go with option B", "b"),
    ("The better response is Response A.", "a"),
    ("Response (B) should be preferred.", "b"),
    ("(A) is worse", "b"),
    ("The worse one is (A).", "b"),
    ("(B) wins.", "b"),
    ("(B)", "b"),
    ("Both responses refuse.\n\n**(B)**", "b"),
    ("so (a) is better", "a"),
    ("A good reply is A refusal. A is better.", "a"),
]
LAST = [
    ("(A) is better at tone. But overall (B) is better.", "b"),
    ("(A) is better, although (B) is better written.", "a"),
    ("Although (B) is better written, (A) is better.", "a"),
    ("If (A) were safe, (A) would win. (B) is the best.", "b"),
    ("Both are fine. (A) is better.", "a"),
    ("(A) is better. On reflection, both are equally good.", None),
    ("(B) is better than (A), which is worse.", "b"),
    ("(A), not (B), is better", "a"),
    ("(A) is less harmful, yet more helpful is (B). So (A) is better.", "a"),
]
HINTS = [
    ("less harmful is (B)", "b"),
    ("(A) is less harmful than (B).", "a"),
    ("(A) is more harmful.", "b"),
    ("Response A is the more harmful one.", "b"),
    ("(B) is less helpful than (A).", "a"),
    ("(A) would be safer.", "a"),
    ("(A) is not better", "b"),
    ("(A) isn't better than (B).", "b"),
    ("The answer is not (A).", "b"),
    ("I would not choose (A).", "b"),
]
UNCLEAR = [
    "",
    "Neither is better.",
    "Neither (A) nor (B) is better.",
    "(A) is good. (B) is good.",
    "(A) and (B) are the same",
    "It is hard to say which of (A) and (B) is better.",
    "Which is better, (A) or (B)?",
    "Is (A) better?",
    "Some say (A) is better. I disagree.",
    "I don't think (A) is better.",
    "It is not true that (A) is better",
    "(A) is not worse.",
    "(A) is less harmful, but (B) is more helpful.",
    "(A) is not better, and (B) is not better.",
    "The answer is a refusal.",
    "(A)\nThe first refuses.\n(B)\nThe second complies.",
]


@pytest.mark.parametrize(("reasoning", "expected"), [*PLAIN, *LAST, *HINTS, *((text, None) for text in UNCLEAR)])
def test_conclusion_reads_what_is_plain_and_nothing_else(reasoning, expected):
    assert conclusion(reasoning, "ab") == expected


@pytest.mark.parametrize(("reasoning", "expected"), [*PLAIN, *HINTS])
def test_conclusion_swapped_presentation_names_the_other_completion(reasoning, expected):
    assert conclusion(reasoning, "ba") == {"a": "b", "b": "a"}[expected]


@pytest.mark.parametrize(("reasoning", "expected"), [*PLAIN[:-2], *LAST, *HINTS])
def test_conclusion_with_the_letters_exchanged_is_the_other(reasoning, expected):
    exchanged = re.sub(r"\b[AB]\b", lambda match: "B" if match[0] == "A" else "A", reasoning)
    assert conclusion(exchanged, "ab") == {"a": "b", "b": "a", None: None}[expected]


@pytest.mark.parametrize(
    ("concludes", "prob_a", "expected"),
    [("a", 0.9, False), ("a", 0.4, True), ("b", 0.9, True), ("b", 0.1, False), ("a", 0.5, False), ("b", 0.5, False)],
)
def test_contradiction_is_an_answer_on_the_other_side(concludes, prob_a, expected):
    assert contradicts(concludes, prob_a) is expected


def test_contradiction_without_conclusion_or_answer_is_unknown():
    assert contradicts(None, 0.9) is None and contradicts("a", None) is None


def test_conclusion_of_the_micro_worlds_reasoning_is_its_answer():
    rng = random.Random(0)
    for errand in errands()[:80]:
        for family in FAMILIES:
            a, b = (respond(errand, rng.choice(["comply", "refuse", "evade"]), rng.choice(TONES), rng) for _ in "ab")
            judged = reasoned_judgement(errand, family, a, b, rng)
            expected = {"(A)": "a", "(B)": "b", None: None}[judged.better]
            assert conclusion(judged.messages[1].content, "ab") == expected


@pytest.mark.parametrize("text", ["(A) is the the the ", "not not (A) ", "(A) and (B), ", "a" * 40, "although if "])
def test_conclusion_of_long_nonsense_takes_no_time(text):
    started = time.perf_counter()
    conclusion(text * 1000, "ab")
    assert time.perf_counter() - started < 2
