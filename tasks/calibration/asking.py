"""What a model answers to questions whose right option is known.

Answers are the log-probabilities of the options' letters, as in `tasks/judging.py`. A question is put as its set puts
it, and, where it has two options, once more with them in each other's place.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tasks.calibration.wording import without_tail
from tasks.generation import Recipe, request_seed, verdict
from tasks.judging import CONCLUDE, ORDERS, STEP_BY_STEP, reasoned_turns
from tasks.reuse import Reuse, nothing_kept
from tasks.schema import Answer, AnswerForm, Message, Order, Question
from tasks.serving import Choice, ChoiceRequest, GenerationRequest, Sampling, TextGenerator

REASONING = Sampling(max_tokens=512)
"""How reasoning is drawn; its length as in RLAIF (2309.00267)."""
NO_MASS = "the options' letters have no probability at all"

Ended = dict[str, Any]
"""What an answer says, by column."""


class Asked(NamedTuple):
    """One question in one form and order."""

    question: Question
    form: AnswerForm
    order: Order

    @property
    def text(self) -> str:
        text = self.question.prompt if self.order == "ab" else self.question.swapped
        assert text is not None, "who asks has looked at its status"
        return text if self.form == "soft" else without_tail(text)

    @property
    def letters(self) -> tuple[str, ...]:
        """What the answers begin with."""
        return tuple(f"({letter}" for letter in self.question.letters)


def asked_of(question: Question, forms: Sequence[AnswerForm]) -> list[Asked]:
    """Every way of asking it, in order."""
    return [Asked(question, form, order) for form in forms for order in orders_of(question)]


def orders_of(question: Question) -> tuple[Order, ...]:
    return ORDERS if question.swapped is not None else ORDERS[:1]


def answer(
    asked: Sequence[Asked], generator: TextGenerator, recipe: Recipe, reuse: Reuse = nothing_kept
) -> list[Answer]:
    """One row for each, in order. What the model cannot be asked is skipped, with its reason."""
    keys = [answer_key(each, recipe) for each in asked]
    usable = {key: each for key, each in zip(keys, asked, strict=True) if each.question.status == "ok"}
    kept = reuse(list(usable))
    missing = {key: each for key, each in usable.items() if key not in kept}
    ended = {
        **weigh({key: each for key, each in missing.items() if each.form == "soft"}, generator),
        **reason({key: each for key, each in missing.items() if each.form == "reasoned"}, generator),
    }

    def row(each: Asked, key: str) -> Answer:
        if key in kept:
            return Answer(**kept[key] | names(each))
        columns = {"probs": None, "mass": None, **(ended.get(key) or unusable(each.question))}
        return Answer(**names(each), reuse_key=key, **columns)

    return [row(each, key) for each, key in zip(asked, keys, strict=True)]


def answer_key(each: Asked, recipe: Recipe) -> str:
    """What determines the answer: neither which option is right nor what the question is about.

    The order belongs to it though the text says it too: probabilities are kept by option, not by letter.
    """
    question = each.question
    if question.status != "ok":
        return recipe.key(each.form, each.order, question.reuse_key)
    how = [REASONING.model_dump(), STEP_BY_STEP, CONCLUDE] if each.form == "reasoned" else []
    return recipe.key(each.form, each.order, each.text, question.letters, *how)


def names(each: Asked) -> Ended:
    question = each.question
    return {
        "row_id": f"{question.question_id}/{each.form}/{each.order}",
        "question_id": question.question_id,
        "category": question.category,
        "form": each.form,
        "order": each.order,
        "correct": question.correct,
    }


def weigh(missing: Mapping[str, Asked], generator: TextGenerator) -> dict[str, Ended]:
    """The options' letters weighed right after the question, by key."""
    requests = {key: ChoiceRequest([user(each.text)]) for key, each in missing.items()}
    return {key: read(choice, missing[key]) for key, choice in choose(missing, requests, generator).items()}


def reason(missing: Mapping[str, Asked], generator: TextGenerator) -> dict[str, Ended]:
    """The letters weighed after the model has reasoned, in a second call, by key."""
    requests = [GenerationRequest([user(a.text)], request_seed(key), STEP_BY_STEP) for key, a in missing.items()]
    thoughts = dict(zip(missing, generator.generate(requests, REASONING), strict=True))
    told: dict[str, Ended] = {
        key: {"reasoning": thought.text, "num_tokens": thought.num_tokens, **verdict(thought, "reasoning")}
        for key, thought in thoughts.items()
    }
    good = {key: missing[key] for key, each in told.items() if each["status"] == "ok"}
    turns = {key: ChoiceRequest(reasoned_turns(a.text, told[key]["reasoning"].strip())) for key, a in good.items()}
    for key, choice in choose(good, turns, generator).items():
        told[key] |= read(choice, good[key])
    return {key: left_out(each["reason"]) if thoughts[key].error else each for key, each in told.items()}


def choose(
    asked: Mapping[str, Asked], requests: Mapping[str, ChoiceRequest], generator: TextGenerator
) -> dict[str, Choice]:
    """By key; questions with the same letters are asked together."""
    by_letters: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for key, each in asked.items():
        by_letters[each.letters].append(key)
    found: dict[str, Choice] = {}
    for letters, keys in by_letters.items():
        found |= zip(keys, generator.choose([requests[key] for key in keys], letters), strict=True)
    return found


def read(choice: Choice, each: Asked) -> Ended:
    """Probabilities by option, whichever letter it wore."""
    if choice.logprobs is None:
        return left_out(choice.error)
    logprobs = np.array(choice.logprobs, dtype=np.float64)
    if not np.isfinite(logprobs.max()):
        return left_out(NO_MASS)
    weights = np.exp(logprobs - logprobs.max())
    probs = (weights / weights.sum()).tolist()
    return {"probs": probs if each.order == "ab" else probs[::-1], "mass": float(np.exp(logprobs).sum())}


def unusable(question: Question) -> Ended:
    named = "" if question.status == "skipped" else f"line {question.source} is {question.status}: "
    return left_out(f"{named}{question.reason}")


def left_out(why: str | None) -> Ended:
    """A question that this model cannot be asked, such as one that is longer than its context."""
    return {"status": "skipped", "reason": why or "no answer"}


def user(content: str) -> Message:
    return Message(role="user", content=content)
