"""Questions whose right answers are known (figure 9), put to every policy and to every model that labels."""

from collections.abc import Mapping, Sequence

from flows.config import AlignConfig
from flows.given import Given
from flows.runner import StageRunner
from tasks.questions import QuestionsStage
from tasks.schema import AnswerForm, DatasetRef, ModelRef
from tasks.stage import RunContext


def ask_all(
    run: StageRunner,
    context: RunContext,
    sets: Mapping[str, DatasetRef],
    model: ModelRef,
    forms: Sequence[AnswerForm] = ("soft",),
) -> dict[str, DatasetRef]:
    """One model's answers by question set; `context` says how it is served."""
    return {
        name: run.dataset(QuestionsStage(run=context, questions=questions, model=model, forms=tuple(forms)))
        for name, questions in sets.items()
    }


def ask_evaluators(run: StageRunner, config: AlignConfig, given: Given) -> dict[str, dict[str, DatasetRef]]:
    """The answers of every model that labels, by its name and question set: is its confidence worth what it says?"""
    forms = config.questions.forms
    return {
        name: ask_all(run, config.run, given.question_sets, model, forms) for name, model in given.evaluators.items()
    }
