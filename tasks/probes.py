"""Pairs whose answer is known, judged by an evaluator as it judges comparisons, to see what its labels are worth.

*Reads* planted pairs from a file, the constitution. *Writes* `probes`: each canary (safe against harmful) under
drawn principles that speak about harm, and its safe text beside itself, both in both orders.
"""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

from constitutions import Principle, draw_several
from tasks.constitution import read_constitution
from tasks.demonstrations import Before, DemonstrationsConfig, before_comparison
from tasks.gates import GatesConfig
from tasks.gates.canaries import Canary, canary_principles, read_canaries
from tasks.generation import Core, GeneratingStage, Recipe
from tasks.judging import ANSWERS, ORDERS, choice_problem, judging_prompt, judging_request, normalise, unswap
from tasks.prompts import template
from tasks.reuse import Reuse, nothing_kept
from tasks.schema import DatasetRef, Message, ModelRef, Order, Probe
from tasks.serving import Choice, TextGenerator
from tasks.store import Store
from tasks.store.identity import digest


class Question(NamedTuple):
    """One judgement to make."""

    probe: Literal["identical", "canary"]
    canary: Canary
    principle: Principle
    order: Order


class ProbeStage(GeneratingStage):
    """One evaluator's judgements of planted pairs: by its answer alone, whatever the form of its labels."""

    stage: ClassVar[str] = "probe"
    dataset: ClassVar[str] = "probes"
    code_version: ClassVar[int] = 1
    row_type: ClassVar[type[Probe]] = Probe

    constitution: DatasetRef
    feedback: ModelRef
    evaluator: str
    demonstrations: DemonstrationsConfig
    """As labels show them."""
    config: GatesConfig

    def identity_config(self) -> dict[str, Any]:
        return {"num_canary_principles": self.config.num_canary_principles}

    def extra_identity(self, store: Store) -> dict[str, Any]:
        # the file is outside the store: its content is the identity, its name is not
        canaries = digest([canary.name for canary in self.canaries()])
        asked = {"template": template("label"), "demonstrations": self.demonstrations.model_dump(mode="json")}
        return {**super().extra_identity(store), **asked, "evaluator": self.evaluator, "canaries": canaries}

    def constitution_slice(self, store: Store) -> str:
        constitution = read_constitution(store, self.constitution)
        asked = [principle.id for principle in self.principles(store)]  # by cluster too, which is in no slice
        return digest(["probe", constitution.comparison_slice(), asked])

    @property
    def writer(self) -> ModelRef:
        return self.feedback

    def canaries(self) -> list[Canary]:
        return read_canaries(self.config.canaries)

    def principles(self, store: Store) -> list[Principle]:
        """Those that canaries are judged under."""
        return canary_principles(read_constitution(store, self.constitution).comparison_principles(), self.config)

    def items(self, store: Store) -> Iterator[Question]:
        every = read_constitution(store, self.constitution).comparison_principles()
        return list_questions(
            self.canaries(), self.principles(store), every, self.config.num_canary_principles, self.run.seed
        )

    def num_rows(self, store: Store) -> int:
        principles = min(self.config.num_canary_principles, len(self.principles(store)))
        return len(self.canaries()) * (principles + 1) * len(ORDERS)

    def core(self, store: Store) -> Core:
        constitution, recipe = read_constitution(store, self.constitution), self.recipe()
        before = before_comparison(
            constitution.comparison_demonstrations,
            constitution.comparison_principles(),
            self.demonstrations,
            self.run.seed,
        )
        return lambda questions, generator, reuse: probe(questions, generator, self.evaluator, before, recipe, reuse)


def list_questions(
    canaries: Sequence[Canary], about_harm: Sequence[Principle], every: Sequence[Principle], num: int, seed: int
) -> Iterator[Question]:
    """Each canary under so many drawn principles about harm, and its identical pair under one drawn of all."""
    for canary in canaries:
        planted = draw_several(about_harm, num, seed, "canary", canary.name) if about_harm else []
        identical = draw_several(every, 1, seed, "identical", canary.name)
        for order in ORDERS:
            yield from (Question("canary", canary, principle, order) for principle in planted)
            yield from (Question("identical", canary, principle, order) for principle in identical)


def probe(
    questions: Sequence[Question],
    generator: TextGenerator,
    evaluator: str,
    before: Before,
    recipe: Recipe,
    reuse: Reuse = nothing_kept,
) -> list[Probe]:
    """One row for each question, in order. Both orders of an identical pair are asked, though their texts are equal."""
    shown = [before("probe", q.canary.name) for q in questions]
    texts = [question_text(q) for q in questions]
    keys = [
        recipe.key("probe", q.order, [turn.model_dump() for turn in turns], text)
        for q, turns, text in zip(questions, shown, texts, strict=True)
    ]
    kept = reuse(keys)
    missing = [i for i, key in enumerate(keys) if key not in kept]
    answers = generator.choose([judging_request(texts[i], shown[i]) for i in missing], ANSWERS)
    choices = dict(zip(missing, answers, strict=True))

    def row(i: int) -> Probe:
        if keys[i] in kept:  # another principle may ask the same, and another name stand for the same model
            return Probe(**kept[keys[i]] | probe_names(questions[i], evaluator))
        return probe_row(questions[i], evaluator, keys[i], choices[i])

    return [row(i) for i in range(len(questions))]


def question_text(q: Question) -> str:
    other = q.canary.harmful if q.probe == "canary" else q.canary.safe
    conversation = [Message(role="user", content=q.canary.prompt)]
    return judging_prompt(conversation, q.principle.comparison_question or "", q.canary.safe, other, q.order)


def probe_names(q: Question, evaluator: str) -> dict[str, str]:
    return {
        "row_id": f"{q.probe}/{q.canary.name}/{evaluator}/{q.principle.id}/{q.order}",
        "probe": q.probe,
        "evaluator": evaluator,
        "principle_id": q.principle.id,
    }


def probe_row(q: Question, evaluator: str, key: str, choice: Choice) -> Probe:
    problem, (logprob_a, logprob_b) = choice_problem(choice), unswap(choice, q.order)
    return Probe.model_validate(
        {
            **probe_names(q, evaluator),
            "reuse_key": key,
            "order": q.order,
            "logprob_a": logprob_a,
            "logprob_b": logprob_b,
            "prob_a": None if problem else normalise(logprob_a, logprob_b),
            "status": "failed" if problem else "ok",
            "reason": problem,
        }
    )
