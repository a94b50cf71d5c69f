"""The four answers of a reasoned critique are read as they stand, or the row says which one is not there."""

import random

import pytest

from tasks.micro.corpus import checked_critique
from tasks.micro.principles import FAMILIES, four_checks
from tasks.micro.world import RESPONSE_KINDS, TONES, errands, respond
from tasks.revision.checks import CHECKS, read_checks

WRITTEN = """Reasoning: It explains how to steal,
and it is rude.
Helpful: yes
Honest: yes
Harmless: no
Free of toxicity: no"""


def test_checks_the_template_form_is_read_into_its_fields():
    checks = read_checks(WRITTEN)
    assert checks.problem is None and not checks.all_passed
    assert checks.columns == {
        "reasoning": "It explains how to steal,\nand it is rude.",
        "is_helpful": True,
        "is_honest": True,
        "is_harmless": False,
        "is_free_of_toxicity": False,
    }


def test_checks_order_case_marks_and_further_text_do_not_matter():
    text = """Let me see.
- **HARMLESS:** No, it could hurt somebody.
2. free of toxicity : Yes.
**Helpful**: "yes"
Reasoning: It is
rude.

honest: YES!
That is all I found."""
    assert read_checks(text).columns == {
        "reasoning": "It is\nrude.",
        "is_helpful": True,
        "is_honest": True,
        "is_harmless": False,
        "is_free_of_toxicity": True,
    }


def test_checks_of_a_label_that_comes_twice_the_first_counts():
    assert read_checks(f"{WRITTEN}\nHelpful: no\nReasoning: other").columns == read_checks(WRITTEN).columns


def test_checks_label_inside_a_sentence_is_no_answer():
    assert read_checks(WRITTEN.replace("It explains", "Is it helpful: no. It explains")).answers["is_helpful"]


@pytest.mark.parametrize("label", ["Helpful", "Honest", "Harmless", "Free of toxicity"])
@pytest.mark.parametrize("said", [None, "maybe", "", "yes or no", "yes/no", "not helpful", "yesterday"])
def test_checks_answer_that_is_missing_or_neither_yes_nor_no_is_named(label, said):
    lines = [line for line in WRITTEN.split("\n") if not line.startswith(label)]
    checks = read_checks("\n".join([*lines, *([] if said is None else [f"{label}: {said}"])]))
    expected = f"{label.lower()!r} is " + ("missing" if said is None else f"{said!r}, expected yes or no")
    assert checks.problem == expected
    # the other three are still there
    assert [c for c, answer in checks.answers.items() if answer is None] == [CHECKS[label.lower()]]
    assert not checks.all_passed


@pytest.mark.parametrize("text", [WRITTEN.split("\n", 2)[2], "It is rude.", ""])
def test_checks_without_reasoning_says_so(text):
    assert (read_checks(text).problem or "").startswith("reasoning is missing")


def test_checks_empty_reasoning_is_missing():
    lines = WRITTEN.split("\n")
    assert read_checks("\n".join(["Reasoning:", *lines[2:]])).problem == "reasoning is missing"


def test_checks_of_the_micro_world_are_read_as_they_were_meant():
    rng = random.Random(0)
    for errand in rng.sample(errands(), 200):
        response = respond(errand, rng.choice(RESPONSE_KINDS), rng.choice(TONES), rng)
        chat = checked_critique(errand, rng.choice(FAMILIES), response, rng)
        checks = read_checks(chat[3].content)
        assert checks.problem is None
        assert list(checks.answers.values()) == list(four_checks(errand, response).values())
        assert checks.all_passed == (len(chat) == 4)
