"""What one model answers to a question set (figure 9): accuracy by the options' probability, and calibration.

*Reads* `question_sets`, a policy or a feedback model. *Writes* `answers`; a version for each set and model, so that
another policy answers only for itself. A model that plays several parts answers once.
"""

from collections.abc import Iterator
from typing import Any, ClassVar

from tasks.calibration.asking import Asked, answer, asked_of, orders_of
from tasks.generation import Core, GeneratingStage
from tasks.prompt_rows import read_rows
from tasks.schema import Answer, AnswerForm, DatasetRef, ModelRef, Question
from tasks.store import Store


class QuestionsStage(GeneratingStage):
    """One model on every question of one set."""

    stage: ClassVar[str] = "questions"
    dataset: ClassVar[str] = "answers"
    code_version: ClassVar[int] = 1
    row_type: ClassVar[type[Answer]] = Answer

    questions: DatasetRef
    model: ModelRef
    forms: tuple[AnswerForm, ...] = ("soft",)
    """`soft`: the options are weighed right after the question. `reasoned`: after the model has reasoned."""

    def extra_identity(self, store: Store) -> dict[str, Any]:
        return {**super().extra_identity(store), "forms": list(self.forms)}

    @property
    def writer(self) -> ModelRef:
        return self.model

    def items(self, store: Store) -> Iterator[Asked]:
        return (asked for row in read_rows(store, self.questions, Question) for asked in asked_of(row, self.forms))

    def num_rows(self, store: Store) -> int:
        rows = read_rows(store, self.questions, Question)
        return sum(len(orders_of(row)) for row in rows) * len(self.forms)

    def core(self, store: Store) -> Core:
        recipe = self.recipe()
        return lambda asked, generator, reuse: answer(asked, generator, recipe, reuse)
