"""AI preference labels (section 4.1): which of two completions follows a principle better, as a probability.

*Reads* `prompts`, `comparisons`, the constitution. *Writes* `labels`, one evaluator's: each comparison under its drawn
principles, in both orders of presentation, since judges prefer a position (RLAIF, 2309.00267); every hard constraint
beside them. The label is the normalised probability of the answer tokens, never parsed text.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from constitutions import Constitution
from tasks.constitution import read_constitution
from tasks.demonstrations import Before, DemonstrationsConfig, before_comparison
from tasks.generation import Core, GeneratingStage, Recipe, request_seed, verdict
from tasks.judging import ANSWERS, MIN_ANSWER_MASS, SCORES, STEP_BY_STEP, reasoned_turns
from tasks.labelling.questions import Question, Questionnaire, problem_of, turns_of
from tasks.labelling.rows import kept_row, label_row
from tasks.prompt_rows import beside_prompts, read_prompts, read_rows
from tasks.prompts import template
from tasks.reuse import Reuse, nothing_kept
from tasks.schema import Comparison, DatasetRef, Label, LabelForm, Message, ModelRef, Settings, is_pending
from tasks.serving import Choice, ChoiceRequest, Generation, GenerationRequest, Sampling, TextGenerator
from tasks.store import Store


class LabelConfig(Settings):
    """How comparisons are judged."""

    form: Literal["soft", "reasoned", "score"] = "soft"
    """`soft`: the two answers' probabilities. `reasoned`: after reasoning step by step. `score`: each completion alone,
    from 1 to 10, as direct RLAIF does; without demonstrations, which compare."""
    principles: Literal["drawn", "all"] = "drawn"
    """`drawn`: a question for each drawn principle, as in the paper. `all`: every principle in one question."""
    num_principles: int = Field(1, ge=1)
    """Drawn principles of a comparison, none twice; where there are fewer, all of them."""
    num_samples: int = Field(1, ge=1)
    """Reasonings for each question and order, whose answers are averaged (the paper: 5); `reasoned` only."""
    reasoning: Sampling = Sampling(max_tokens=512)
    """How reasoning is sampled."""
    demonstrations: DemonstrationsConfig = DemonstrationsConfig()
    """Worked examples before the question, where the constitution has any of its form."""
    visible_reasoning: Literal["ignored", "judged"] = "ignored"
    """`judged`: a completion that shows its reasoning is judged for whether its answer follows from it."""
    min_answer_mass: float = Field(MIN_ANSWER_MASS, gt=0, lt=1)
    """A row fails whose answers hold less probability together. The answer's parenthesis is given, so that even a
    pretrained model has most of its mass there: the default only catches what is no answer at all."""

    @model_validator(mode="after")
    def _fits_its_form(self) -> Self:
        if self.num_samples > 1 and self.form != "reasoned":
            raise ValueError(f"num_samples: {self.num_samples} needs form: reasoned, got form: {self.form}")
        if self.num_samples > 1 and self.reasoning.temperature == 0:
            raise ValueError(f"num_samples: {self.num_samples} are one and the same at reasoning.temperature 0")
        if self.num_principles > 1 and self.principles == "all":
            raise ValueError(f"num_principles: {self.num_principles} needs principles: drawn, got principles: all")
        return self


class LabelStage(GeneratingStage):
    """Every comparison judged by one evaluator."""

    stage: ClassVar[str] = "label"
    dataset: ClassVar[str] = "labels"
    code_version: ClassVar[int] = 2
    row_type: ClassVar[type[Label]] = Label

    prompts: DatasetRef
    comparisons: DatasetRef
    constitution: DatasetRef
    feedback: ModelRef
    evaluator: str
    """Name of the feedback model in the rows."""
    config: LabelConfig

    def extra_identity(self, store: Store) -> dict[str, Any]:
        templates = {name: template(name) for name in templates_of(self.config)}
        return {**super().extra_identity(store), "evaluator": self.evaluator, "templates": templates}

    def constitution_slice(self, store: Store) -> str:
        return read_constitution(store, self.constitution).comparison_slice()

    @property
    def writer(self) -> ModelRef:
        return self.feedback

    def questionnaire(self, store: Store) -> Questionnaire:
        return questionnaire_of(read_constitution(store, self.constitution), self.config, self.run.seed)

    def items(self, store: Store) -> Iterator[Question]:
        questionnaire, prompts = self.questionnaire(store), read_prompts(store, self.prompts, "train")
        pairs = beside_prompts(prompts, read_rows(store, self.comparisons, Comparison))
        return (question for pair in pairs for question in questionnaire.of(*pair))

    def num_rows(self, store: Store) -> int:
        """Of comparisons that are not there yet, at most so many: which draw a hard constraint is not known."""
        questionnaire = self.questionnaire(store)
        if not questionnaire.constraints or is_pending(self.comparisons.content_hash):
            return self.comparisons.rows * questionnaire.most_questions
        tables = store.read_tables(self.comparisons, columns=["row_id"])
        return sum(questionnaire.num_questions(row.as_py()) for table in tables for row in table.column("row_id"))

    def core(self, store: Store) -> Core:
        before = examples_before(read_constitution(store, self.constitution), self.config, self.run.seed)
        config, recipe = self.config, self.recipe()
        return lambda questions, generator, reuse: label(
            questions, generator, self.evaluator, config, recipe, before, reuse
        )


def templates_of(config: LabelConfig) -> list[str]:
    """The framing templates that its questions may use."""
    of_form = {"soft": [], "reasoned": ["label_reasoned"], "score": ["score"]}[config.form]
    of_all = ["all_principles"] if config.principles == "all" else []
    of_reasoning = ["consistency"] if config.visible_reasoning == "judged" else []
    return ["label", *of_form, *of_all, *of_reasoning]  # hard constraints are asked by `label` in every form


def questionnaire_of(constitution: Constitution, config: LabelConfig, seed: int) -> Questionnaire:
    return Questionnaire(
        principles=constitution.comparison_principles(),
        constraints=constitution.comparison_constraints(),
        form=config.form,
        num_principles=None if config.principles == "all" else config.num_principles,
        num_samples=config.num_samples,
        judges_reasoning=config.visible_reasoning == "judged",
        seed=seed,
    )


def examples_before(constitution: Constitution, config: LabelConfig, seed: int) -> dict[str, Before]:
    """The turns of demonstrations by the form of the question; scores and consistency have none."""
    shown, principles = constitution.comparison_demonstrations, constitution.comparison_principles()
    return {
        form: before_comparison(shown, principles, config.demonstrations, seed, reasoned=form == "reasoned")
        for form in ("soft", "reasoned")
    }


class Asked(NamedTuple):
    """A question's request and what names its text."""

    key: str
    form: LabelForm
    turns: list[Message] | None
    """None where there is nothing to ask."""


def label(
    questions: Sequence[Question],
    generator: TextGenerator,
    evaluator: str,
    config: LabelConfig,
    recipe: Recipe,
    before: Mapping[str, Before],
    reuse: Reuse = nothing_kept,
) -> list[Label]:
    """One label for each question, in order.

    Two requests a label without reasoning, one an order; reasoning is sampled first, and its answer asked after it. Two
    principles with the same text ask once.
    """
    asked = [ask(question, config, recipe, before) for question in questions]
    kept = reuse([each.key for each in asked if each.turns])
    missing = {each.key: each for each in asked if each.turns and each.key not in kept}
    reasonings = reason(missing, generator, config.reasoning)
    choices = choose(missing, reasonings, generator)

    def row(question: Question, key: str) -> Label:
        if key in kept:
            return kept_row(question, evaluator, kept[key], config.min_answer_mass)
        return label_row(question, evaluator, key, reasonings.get(key), choices.get(key), config.min_answer_mass)

    return [row(question, each.key) for question, each in zip(questions, asked, strict=True)]


def ask(question: Question, config: LabelConfig, recipe: Recipe, before: Mapping[str, Before]) -> Asked:
    """The request and its reuse key: who asks, under which principle and in which slot is no part of it."""
    form, names = question.slot.form, [question.comparison.row_id, question.order, question.sample or 0]
    if problem_of(question) is not None:
        return Asked(recipe.key(*names, form, question.slot.name), form, None)
    turns = turns_of(question, before)
    texts = [[turn.role, turn.content] for turn in turns]
    return Asked(recipe.key(*names, form, texts, *settings_of(form, config)), form, turns)


def settings_of(form: LabelForm, config: LabelConfig) -> list[Any]:
    """What else decides the row: how reasoning is sampled; the limit where the row keeps no log-probabilities."""
    if form == "reasoned":
        return [config.reasoning.model_dump(mode="json")]
    return [] if form == "soft" else [config.min_answer_mass]


def reason(missing: Mapping[str, Asked], generator: TextGenerator, sampling: Sampling) -> dict[str, Generation]:
    """The reasoning of every reasoned question, by key."""
    keys = [key for key, each in missing.items() if each.form == "reasoned"]
    requests = [GenerationRequest(missing[key].turns or [], request_seed(key), STEP_BY_STEP) for key in keys]
    return dict(zip(keys, generator.generate(requests, sampling), strict=True))


def choose(
    missing: Mapping[str, Asked], reasonings: Mapping[str, Generation], generator: TextGenerator
) -> dict[str, Choice]:
    """The answer of every question, by key; none where the reasoning came to nothing."""
    usable = [key for key in missing if key not in reasonings or verdict(reasonings[key], "")["status"] == "ok"]
    choices = dict[str, Choice]()
    for answers, scores in ((ANSWERS, False), (SCORES, True)):
        keys = [key for key in usable if (missing[key].form == "score") == scores]
        requests = [ChoiceRequest(answer_turns(missing[key], reasonings.get(key))) for key in keys]
        choices |= zip(keys, generator.choose(requests, answers), strict=True)
    return choices


def answer_turns(asked: Asked, reasoning: Generation | None) -> list[Message]:
    """The question, after its reasoning where there is some."""
    assert asked.turns
    if reasoning is None:
        return asked.turns
    *first, question = asked.turns
    return [*first, *reasoned_turns(question.content, (reasoning.text or "").strip())]
