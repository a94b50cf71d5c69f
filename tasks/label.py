"""AI preference labels (section 4.1): which of two completions follows a principle better, as a probability.

*Reads* `prompts`, `comparisons`, the constitution. *Writes* `labels`: each comparison under one drawn principle, in
both orders of presentation, since judges prefer a position (RLAIF, 2309.00267). The label is the normalised
probability of the two answer tokens, never parsed text.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

from constitutions import Principle, draw
from tasks.chunks import make_in_chunks
from tasks.constitution import read_constitution
from tasks.generation import GeneratingStage, Recipe, recipe_of
from tasks.judging import ANSWERS, ORDERS, judging_prompt, judging_request, normalise, unswap
from tasks.prompts import template
from tasks.schema import Comparison, DatasetRef, Frozen, Label, ModelRef, Order, Prompt
from tasks.serving import Choice, TextGenerator
from tasks.stage import Session
from tasks.store import Store
from tasks.store.identity import table_to_rows


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

    prompts: DatasetRef
    comparisons: DatasetRef
    constitution: DatasetRef
    feedback: ModelRef
    config: LabelConfig

    def extra_identity(self, store: Store) -> dict[str, Any]:
        return {**super().extra_identity(store), "template": template("label")}

    def constitution_slice(self, store: Store) -> str:
        return read_constitution(store, self.constitution).comparison_slice()

    def make(self, session: Session) -> DatasetRef:
        principles = read_constitution(session.store, self.constitution).comparison_principles()
        prompts = {
            p.prompt_id: p for p in table_to_rows(session.store.read(self.prompts), Prompt) if p.split == "train"
        }
        comparisons = table_to_rows(session.store.read(self.comparisons), Comparison)
        questions = [Question(prompts[c.prompt_id], c, order) for c in comparisons for order in ORDERS]
        recipe = recipe_of(self, self.feedback, sampling=None)
        folder = session.store.fetch_model(self.feedback)

        def work(chunk: Sequence[Question]) -> list[Label]:
            with session.open_generator(self.feedback, folder, self.run.serving) as generator:
                return label(chunk, principles, generator, self.config.evaluator, recipe)

        return make_in_chunks(self, session, questions, lambda q: label_id(q, self.config.evaluator), work, Label)


def label_id(question: Question, evaluator: str) -> str:
    return f"{question.comparison.row_id}/{evaluator}/{question.order}"


def label(
    questions: Sequence[Question],
    principles: Sequence[Principle],
    generator: TextGenerator,
    evaluator: str,
    recipe: Recipe,
) -> list[Label]:
    """One label for each question, in order; both orders of a comparison share its principle."""
    drawn = [draw(principles, recipe.seed, "label", q.comparison.row_id) for q in questions]
    asked = [i for i, q in enumerate(questions) if q.comparison.status == "ok"]
    texts = {i: label_prompt(questions[i], drawn[i]) for i in asked}
    answers = generator.choose([judging_request(texts[i]) for i in asked], ANSWERS)
    choices = dict(zip(asked, answers, strict=True))
    return [
        label_row(q, drawn[i], evaluator, recipe.key(label_id(q, evaluator), texts.get(i)), choices.get(i))
        for i, q in enumerate(questions)
    ]


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
        principle_id=principle.id,
        principle_hash=principle.comparison_hash,
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
