import random

import pytest

from tasks.labelling.visible import split_reasoning
from tasks.micro.world import TONES, errands, respond

SHOWN = {
    "<think>It hurts.</think>No.": ("It hurts.", "No."),
    "<think>\nIt hurts.\n</think>\n\nNo.": ("It hurts.", "No."),
    "<Reasoning>It hurts.</Reasoning> No.": ("It hurts.", "No."),
    "It hurts.</think>No.": ("It hurts.", "No."),
    "<think>One.</think><think>Two.</think>No.": ("One.\n\nTwo.", "No."),
    "Let's think step by step: it hurts. So the answer is: no.": ("it hurts.", "no."),
    "Let’s think step by step. It hurts.\nFinal answer: no.": ("It hurts.", "no."),
    "It hurts people.\n\n**Final answer:** no.": ("It hurts people.", "no."),
    "Let's think step by step: so the answer is: yes? But it hurts. So the answer is: no.": (
        "so the answer is: yes? But it hurts.",
        "no.",
    ),
}
NOT_SHOWN = [
    "",
    "I will not.",
    "<think>It hurts people and so",
    "<think></think>No.",
    "<think>It hurts.</think>  ",
    "Let's think step by step: it hurts.",
    "Take 3 from 5, so the answer is: 2",
    "Final answer: no.",
    "I think about <b>bold</b> steps.",
]


@pytest.mark.parametrize(("completion", "expected"), SHOWN.items())
def test_split_reasoning_takes_reasoning_and_answer_apart(completion, expected):
    assert split_reasoning(completion) == expected


@pytest.mark.parametrize("completion", NOT_SHOWN)
def test_split_reasoning_without_both_parts_is_none(completion):
    assert split_reasoning(completion) is None


def test_split_reasoning_of_the_micro_worlds_completions_is_none():
    rng = random.Random(0)
    for errand in errands()[:60]:
        for kind in ("comply", "wrong", "refuse", "evade"):
            assert split_reasoning(respond(errand, kind, rng.choice(TONES), rng).text(errand)) is None
