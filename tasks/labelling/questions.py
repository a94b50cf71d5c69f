"""What one comparison is asked: its drawn principles, the hard constraints beside them, its visible reasoning."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from constitutions import Principle, draw_several
from constitutions.base import digest
from tasks.demonstrations import Before
from tasks.judging import ORDERS, judging_prompt, scoring_prompt
from tasks.labelling.visible import split_reasoning
from tasks.prompts import fill, template, transcript
from tasks.schema import Comparison, LabelForm, Message, Order, Prompt

ALONE: tuple[Order, Order] = ("a", "b")
CONSISTENCY = "consistency"


class Slot(NamedTuple):
    """One of a comparison's questions."""

    name: str
    form: LabelForm
    principle_id: str
    principle_hash: str
    text: str


class Question(NamedTuple):
    """One label to make."""

    prompt: Prompt
    comparison: Comparison
    slot: Slot
    order: Order
    sample: int | None = None
    """Which of several reasonings; None where there is one."""


@dataclass(frozen=True)
class Questionnaire:
    """The questions of every comparison, in the order of its rows."""

    principles: tuple[Principle, ...]
    constraints: tuple[Principle, ...]
    """Asked of every comparison that did not draw them."""
    form: LabelForm
    num_principles: int | None
    """Principles drawn for a comparison, a question each; None: all of them in one question."""
    num_samples: int
    judges_reasoning: bool
    seed: int

    def of(self, prompt: Prompt, comparison: Comparison) -> Iterator[Question]:
        """Every slot in every order and sample."""
        for slot in self.slots(comparison.row_id):
            for order in orders_of(slot.form):
                for sample in self._samples(slot):
                    yield Question(prompt, comparison, slot, order, sample)

    def num_questions(self, comparison_id: str) -> int:
        return sum(len(orders_of(slot.form)) * len(self._samples(slot)) for slot in self.slots(comparison_id))

    @property
    def most_questions(self) -> int:
        """What a comparison is asked that draws no hard constraint."""
        drawn = 1 if self.num_principles is None else min(self.num_principles, len(self.principles))
        return 2 * (drawn * self.num_samples + len(self.constraints) + self.judges_reasoning)

    def slots(self, comparison_id: str) -> list[Slot]:
        """Drawn principles first, in the order of their draw."""
        if self.num_principles is None:
            drawn, slots = [], [self._all_at_once]
        else:
            drawn = draw_several(self.principles, self.num_principles, self.seed, "label", comparison_id)
            slots = [slot_of(str(number), self.form, principle) for number, principle in enumerate(drawn)]
        ids = {principle.id for principle in drawn}
        slots += [slot_of(f"hard/{p.id}", "soft", p) for p in self.constraints if p.id not in ids]
        return [*slots, consistency_slot()] if self.judges_reasoning else slots

    def _samples(self, slot: Slot) -> Sequence[int | None]:
        several = slot.form == "reasoned" and self.num_samples > 1
        return range(self.num_samples) if several else [None]

    @cached_property
    def _all_at_once(self) -> Slot:
        questions = [p.comparison_question or "" for p in sorted(self.principles, key=lambda p: p.id)]
        text = fill(template("all_principles"), {"questions": "\n".join(f"- {question}" for question in questions)})
        return Slot("all", self.form, "all", digest(questions), text)


def slot_of(name: str, form: LabelForm, principle: Principle) -> Slot:
    return Slot(name, form, principle.id, principle.comparison_hash, principle.comparison_question or "")


def consistency_slot() -> Slot:
    return Slot(CONSISTENCY, "consistency", CONSISTENCY, digest([template("consistency")]), "")


def orders_of(form: LabelForm) -> tuple[Order, Order]:
    """Both orders of presentation; for what is shown alone, both completions."""
    return ORDERS if form in ("soft", "reasoned") else ALONE


def problem_of(question: Question) -> str | None:
    """Why there is nothing to ask."""
    comparison = question.comparison
    if comparison.status != "ok":
        return f"comparison is {comparison.status}: {comparison.reason}"
    if question.slot.form == "consistency" and split_reasoning(shown_alone(question)) is None:
        return "no visible reasoning"
    return None


def shown_alone(question: Question) -> str:
    comparison = question.comparison
    return (comparison.completion_a if question.order == "a" else comparison.completion_b) or ""


def turns_of(question: Question, before: Mapping[str, Before]) -> list[Message]:
    """The whole request up to its answer or its reasoning: demonstrations of its form first, if there are any."""
    form, shown = question.slot.form, before.get(question.slot.form)
    text = {"score": scoring_text, "consistency": consistency_text}.get(form, comparing_text)(question)
    first = shown("label", question.comparison.row_id) if shown else []
    return [*first, Message(role="user", content=text)]


def comparing_text(question: Question) -> str:
    slot, comparison = question.slot, question.comparison
    a, b = comparison.completion_a or "", comparison.completion_b or ""
    form = "label_reasoned" if slot.form == "reasoned" else "label"
    return judging_prompt(question.prompt.messages, slot.text, a, b, question.order, form)


def scoring_text(question: Question) -> str:
    return scoring_prompt(question.prompt.messages, question.slot.text, shown_alone(question))


def consistency_text(question: Question) -> str:
    """Raises: AssertionError: the completion shows no reasoning, see `problem_of`."""
    parts = split_reasoning(shown_alone(question))
    assert parts is not None, f"{question.comparison.row_id}: no visible reasoning"
    conversation = transcript(question.prompt.messages)
    return fill(template("consistency"), {"conversation": conversation, "reasoning": parts[0], "answer": parts[1]})
