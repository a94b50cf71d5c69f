"""AI preference labels (section 4.1): which of two completions follows a principle better, as a probability.

*Reads* `prompts`, `comparisons`, the constitution. *Writes* `labels`: each comparison under one drawn principle, in
both orders of presentation, since judges prefer a position (RLAIF, 2309.00267). The label is the normalised
probability of the two answer tokens, never parsed text.
"""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

from constitutions import Principle, draw
from tasks.constitution import read_constitution
from tasks.generation import Core, GeneratingStage, Recipe
from tasks.judging import ANSWERS, ORDERS, judging_prompt, judging_request, normalise, unswap
from tasks.prompt_rows import beside_prompts, read_prompts, read_rows
from tasks.prompts import template
from tasks.reuse import Reuse, nothing_kept
from tasks.schema import Comparison, DatasetRef, Frozen, Label, ModelRef, Order, Prompt
from tasks.serving import Choice, TextGenerator
from tasks.store import Store


class LabelConfig(Frozen):
    """How comparisons are judged."""

    evaluator: str = "feedback"
    """Name of the feedback model in the rows."""


class Question(NamedTuple):
    """One judgement to make."""

    prompt: Prompt
    comparison: Comparison
    order: Order


class LabelStage(GeneratingStage):
    """Every comparison judged in both orders under a drawn principle."""

    stage: ClassVar[str] = "label"
    dataset: ClassVar[str] = "labels"
    code_version: ClassVar[int] = 1
    row_type: ClassVar[type[Label]] = Label

    prompts: DatasetRef
    comparisons: DatasetRef
    constitution: DatasetRef
    feedback: ModelRef
    config: LabelConfig

    def extra_identity(self, store: Store) -> dict[str, Any]:
        return {**super().extra_identity(store), "template": template("label")}

    def constitution_slice(self, store: Store) -> str:
        return read_constitution(store, self.constitution).comparison_slice()

    @property
    def writer(self) -> ModelRef:
        return self.feedback

    def items(self, store: Store) -> Iterator[Question]:
        prompts = read_prompts(store, self.prompts, "train")
        pairs = beside_prompts(prompts, read_rows(store, self.comparisons, Comparison))
        return (Question(prompt, comparison, order) for prompt, comparison in pairs for order in ORDERS)

    def num_rows(self, store: Store) -> int:
        return self.comparisons.rows * len(ORDERS)

    def core(self, store: Store) -> Core:
        principles = read_constitution(store, self.constitution).comparison_principles()
        recipe, evaluator = self.recipe(), self.config.evaluator
        return lambda questions, generator, reuse: label(questions, principles, generator, evaluator, recipe, reuse)


def label_id(question: Question, evaluator: str) -> str:
    return f"{question.comparison.row_id}/{evaluator}/{question.order}"


def label(
    questions: Sequence[Question],
    principles: Sequence[Principle],
    generator: TextGenerator,
    evaluator: str,
    recipe: Recipe,
    reuse: Reuse = nothing_kept,
) -> list[Label]:
    """One label for each question, in order; both orders of a comparison share its principle."""
    drawn = [draw(principles, recipe.seed, "label", q.comparison.row_id) for q in questions]
    asked = [i for i, q in enumerate(questions) if q.comparison.status == "ok"]
    texts = {i: label_prompt(questions[i], drawn[i]) for i in asked}
    keys = [recipe.key(label_id(q, evaluator), texts.get(i)) for i, q in enumerate(questions)]
    kept = reuse([keys[i] for i in asked])
    missing = [i for i in asked if keys[i] not in kept]
    answers = generator.choose([judging_request(texts[i]) for i in missing], ANSWERS)
    choices = dict(zip(missing, answers, strict=True))

    def row(i: int) -> Label:
        if keys[i] in kept:  # another principle may ask the same question
            return Label(**kept[keys[i]] | principle_names(drawn[i]))
        return label_row(questions[i], drawn[i], evaluator, keys[i], choices.get(i))

    return [row(i) for i in range(len(questions))]


def principle_names(principle: Principle) -> dict[str, str]:
    return {"principle_id": principle.id, "principle_hash": principle.comparison_hash}


def label_prompt(question: Question, principle: Principle) -> str:
    comparison = question.comparison
    a, b = comparison.completion_a or "", comparison.completion_b or ""
    return judging_prompt(question.prompt.messages, principle.comparison_question or "", a, b, question.order)


def label_row(q: Question, principle: Principle, evaluator: str, key: str, choice: Choice | None) -> Label:
    logprob_a, logprob_b = unswap(choice, q.order)
    return Label(
        row_id=label_id(q, evaluator),
        reuse_key=key,
        prompt_id=q.comparison.prompt_id,
        comparison_id=q.comparison.row_id,
        evaluator=evaluator,
        **principle_names(principle),
        order=q.order,
        logprob_a=logprob_a,
        logprob_b=logprob_b,
        prob_a=normalise(logprob_a, logprob_b),
        **label_verdict(q, choice),
    )


def label_verdict(question: Question, choice: Choice | None) -> dict[str, str | None]:
    if question.comparison.status != "ok":
        reason = f"comparison is {question.comparison.status}: {question.comparison.reason}"
        return {"status": "skipped", "reason": reason}
    assert choice is not None
    if choice.error:
        return {"status": "failed", "reason": choice.error}
    return {"status": "ok", "reason": None}
