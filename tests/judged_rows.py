"""Label rows as evaluators might have made them, for tests of what becomes of them."""

from typing import Any

from tasks.schema import Comparison, Label
from tests.worlds import prompt

ASK = prompt("ask")


def comparison(number: int = 0, **fields: Any) -> Comparison:
    values = {"row_id": f"p/{number}", "reuse_key": f"k{number}", "prompt_id": ASK.prompt_id, "row_hash": f"h{number}"}
    return Comparison.model_validate({**values, "completion_a": "text A", "completion_b": "text B", **fields})


def label(order: str, prob_a: float | None, **fields: Any) -> Label:
    """One row; `slot` 0 of the evaluator `feedback` under the principle `one`, where nothing else is said."""
    values = {
        "evaluator": "feedback",
        "slot": "0",
        "principle_id": "one",
        "comparison_id": "p/0",
        "sample": 0,
        **fields,
    }
    values.setdefault("principle_hash", f"hash of {values['principle_id']}")
    name = "/".join(str(values[key]) for key in ("comparison_id", "evaluator", "slot"))
    return Label.model_validate(
        {
            "row_id": f"{name}/{order}/{values['sample']}",
            "reuse_key": "k",
            "prompt_id": ASK.prompt_id,
            "order": order,
            "logprob_a": None,
            "logprob_b": None,
            "prob_a": prob_a,
            **values,
        }
    )


def both(ab: float | None, ba: float | None, **fields: Any) -> list[Label]:
    """One question in both orders, by P(completion_a is better)."""
    return [label("ab", ab, **fields), label("ba", ba, **fields)]


def shown_alone(probs_a: list[float], probs_b: list[float], **fields: Any) -> list[Label]:
    """Scores of both completions."""
    scored = {"form": "score", **fields}
    return [label("a", None, score_probs=probs_a, **scored), label("b", None, score_probs=probs_b, **scored)]


def consistency(a: float | None, b: float | None, **fields: Any) -> list[Label]:
    """Whether each completion's answer follows from its visible reasoning; None where it shows none."""
    return [
        label(
            order,
            None,
            slot="consistency",
            form="consistency",
            principle_id="consistency",
            prob_consistent=prob,
            **({"status": "skipped", "reason": "no visible reasoning"} if prob is None else {}) | fields,
        )
        for order, prob in (("a", a), ("b", b))
    ]
