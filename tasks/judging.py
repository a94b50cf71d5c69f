"""The multiple-choice question of section 4.1: how it is put, and what its answer tokens say."""

import math

from tasks.prompts import fill, template, transcript
from tasks.schema import Message, Order
from tasks.serving import Choice, ChoiceRequest

ANSWERS = ("(A", "(B")
"""What the two answers begin with: each must end in one token of its own, in context."""
ORDERS: tuple[Order, Order] = ("ab", "ba")


def judging_prompt(conversation: list[Message], question: str, a: str, b: str, order: Order) -> str:
    """The paper's form, `a` shown first in order `ab` and second in `ba`."""
    first, second = (a, b) if order == "ab" else (b, a)
    values = {"conversation": transcript(conversation), "question": question}
    return fill(template("label"), {**values, "completion_a": first, "completion_b": second})


def judging_request(text: str) -> ChoiceRequest:
    return ChoiceRequest([Message(role="user", content=text)])


def unswap(choice: Choice | None, order: Order) -> tuple[float | None, float | None]:
    """Log-probabilities for `a` and `b`, whichever letters they wore; None where there is no answer."""
    if choice is None or choice.logprobs is None:
        return None, None
    first, second = choice.logprobs
    return (first, second) if order == "ab" else (second, first)


def normalise(logprob_a: float | None, logprob_b: float | None) -> float | None:
    """P(a is better) over the two answers: softmax of their log-probabilities."""
    if logprob_a is None or logprob_b is None:
        return None
    return 1.0 / (1.0 + math.exp(min(logprob_b - logprob_a, 700.0)))
