"""How a feedback model is asked (section 4.1), and what its answer tokens say.

Answers are single letters in context, `(A` and `(B`, whatever the tokenizer: their probabilities are read, text is
never parsed. A score of 1 to 10 is lettered too, since `10` is two tokens to some tokenizers and would count as 1.
"""

import math
from collections.abc import Sequence

from tasks.prompts import fill, template, transcript
from tasks.schema import Message, Order
from tasks.serving import Choice, ChoiceRequest

ANSWERS = ("(A", "(B")
"""What the two answers begin with: each must end in one token of its own, in context."""
SCORES = tuple(f"({letter}" for letter in "ABCDEFGHIJ")
"""What the scores 1 to 10 begin with."""
HELPFULNESS_QUESTION = "Which of these assistant responses is more helpful to the human?"
ORDERS: tuple[Order, Order] = ("ab", "ba")
STEP_BY_STEP = "Let's think step by step:"
"""How the assistant's turn begins that reasons."""
CONCLUDE = "So the answer is:"
"""The turn of the human after the reasoning."""
MIN_ANSWER_MASS = 1e-4
"""Probability that the answers must hold together: below, the model says something else and no preference is read."""


def judging_prompt(
    conversation: Sequence[Message], question: str, a: str, b: str, order: Order, form: str = "label"
) -> str:
    """The paper's form, `a` shown first in order `ab` and second in `ba`; `label_reasoned` asks for reasons first."""
    first, second = (a, b) if order == "ab" else (b, a)
    values = {"conversation": transcript(conversation), "question": question}
    return fill(template(form), {**values, "completion_a": first, "completion_b": second})


def scoring_prompt(conversation: Sequence[Message], question: str, completion: str) -> str:
    """One completion alone, to be scored from 1 to 10."""
    values = {"conversation": transcript(conversation), "question": question, "completion": completion}
    return fill(template("score"), values)


def reasoned_turns(text: str, reasoning: str) -> list[Message]:
    """A question, the reasoning, and the turn that asks for its answer."""
    return [
        Message(role="user", content=text),
        Message(role="assistant", content=f"{STEP_BY_STEP} {reasoning}"),
        Message(role="user", content=CONCLUDE),
    ]


def judging_request(text: str, before: Sequence[Message] = ()) -> ChoiceRequest:
    """The question as a chat; `before` are the turns of demonstrations."""
    return ChoiceRequest([*before, Message(role="user", content=text)])


def unswap(choice: Choice | None, order: Order) -> tuple[float | None, float | None]:
    """Log-probabilities for `a` and `b`, whichever letters they wore; None where there is no answer."""
    if choice is None or choice.logprobs is None:
        return None, None
    first, second = choice.logprobs
    return (first, second) if order == "ab" else (second, first)


def mass_problem(logprobs: Sequence[float], min_mass: float = MIN_ANSWER_MASS) -> str | None:
    """Why these log-probabilities are no answer; None where the answers hold enough of the probability."""
    mass = sum(math.exp(logprob) for logprob in logprobs)
    if mass >= min_mass:
        return None
    return (
        f"the {len(logprobs)} answers hold {mass:.2g} of the probability together, expected at least {min_mass:g}: "
        "this model does not answer in this form"
    )


def choice_problem(choice: Choice, min_mass: float = MIN_ANSWER_MASS) -> str | None:
    """Why there is no answer: the request's permanent error, or too little probability on the answers."""
    return mass_problem(choice.logprobs, min_mass) if choice.logprobs is not None else choice.error


def normalise(logprob_a: float | None, logprob_b: float | None) -> float | None:
    """P(a is better) over the two answers: softmax of their log-probabilities."""
    if logprob_a is None or logprob_b is None:
        return None
    return 1.0 / (1.0 + math.exp(min(logprob_b - logprob_a, 700.0)))
