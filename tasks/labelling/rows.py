"""Label rows: what an answer's probabilities say in each form, and how a row ends that has none."""

import math
from collections.abc import Sequence
from typing import Any

from tasks.generation import verdict
from tasks.judging import mass_problem, normalise, unswap
from tasks.labelling.conclusions import conclusion, contradicts
from tasks.labelling.questions import Question, problem_of
from tasks.schema import Label
from tasks.serving import Choice, Generation


def names_of(question: Question, evaluator: str) -> dict[str, str]:
    """What a row is called: no part of its reuse key, so put right on a kept one."""
    slot, comparison = question.slot, question.comparison
    sample = "" if question.sample is None else f"/{question.sample}"
    return {
        "row_id": f"{comparison.row_id}/{evaluator}/{slot.name}/{question.order}{sample}",
        "prompt_id": comparison.prompt_id,
        "comparison_id": comparison.row_id,
        "evaluator": evaluator,
        "slot": slot.name,
        "principle_id": slot.principle_id,
        "principle_hash": slot.principle_hash,
    }


def label_row(
    question: Question,
    evaluator: str,
    key: str,
    reasoning: Generation | None = None,
    choice: Choice | None = None,
    min_mass: float = 0.0,
) -> Label:
    """The row of a question that is made anew; without `choice` nothing was asked, or its reasoning came to nothing."""
    ended = how_it_ended(question, reasoning, choice, min_mass)
    text = reasoning.text.strip() if reasoning and reasoning.text else None
    values = answer_values(question, choice, ended["status"] == "ok")
    if question.slot.form == "reasoned":
        concludes = conclusion(text, question.order) if text else None
        values |= {"concludes": concludes, "contradicts": contradicts(concludes, values["prob_a"])}
    return Label(
        **names_of(question, evaluator),
        reuse_key=key,
        sample=question.sample or 0,
        form=question.slot.form,
        order=question.order,
        reasoning=text,
        num_tokens=reasoning.num_tokens if reasoning else 0,
        **values,
        **ended,
    )


def how_it_ended(
    question: Question, reasoning: Generation | None, choice: Choice | None, min_mass: float
) -> dict[str, Any]:
    """Status and reason."""
    if (problem := problem_of(question)) is not None:
        return {"status": "skipped", "reason": problem}
    if choice is None:
        assert reasoning is not None, f"{question.comparison.row_id}: asked nothing"
        return verdict(reasoning, "reasoning")
    problem = choice.error or mass_problem(choice.logprobs or (), min_mass)
    return {"status": "failed", "reason": problem} if problem else {"status": "ok", "reason": None}


def answer_values(question: Question, choice: Choice | None, is_ok: bool) -> dict[str, Any]:
    """What the answer says; the log-probabilities of the two stay also where they are no answer."""
    values: dict[str, Any] = {"logprob_a": None, "logprob_b": None, "prob_a": None}
    if question.slot.form in ("soft", "reasoned"):
        logprob_a, logprob_b = unswap(choice, question.order)
        prob_a = normalise(logprob_a, logprob_b) if is_ok else None
        return {"logprob_a": logprob_a, "logprob_b": logprob_b, "prob_a": prob_a}
    if not is_ok or choice is None or choice.logprobs is None:
        return values
    if question.slot.form == "score":
        return values | {"score_probs": shares(choice.logprobs)}
    return values | {"prob_consistent": normalise(*choice.logprobs)}


def shares(logprobs: Sequence[float]) -> list[float]:
    """The probabilities of the answers among themselves."""
    top = max(logprobs)
    weights = [math.exp(logprob - top) for logprob in logprobs]
    return [weight / sum(weights) for weight in weights]


def kept_row(question: Question, evaluator: str, kept: dict[str, Any], min_mass: float) -> Label:
    """A row of an earlier run under its present names, judged by the present limit: a limit costs no request."""
    row = Label(**kept | names_of(question, evaluator))
    if row.logprob_a is None or row.logprob_b is None:
        return row
    problem = mass_problem((row.logprob_a, row.logprob_b), min_mass)
    failed = {"status": "failed", "reason": problem, "prob_a": None, "contradicts": None}
    return row.model_copy(update=failed) if problem else row
