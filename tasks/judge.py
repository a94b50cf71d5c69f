"""What an evaluator makes of every policy's held-out samples (section 4.3).

*Reads* `prompts`, the `samples` of each policy. *Writes* `judgements`. Two evaluators: the feedback model, which
compares each policy with the first one under a drawn principle in both orders; and the micro world's rule-based
oracle, which knows what a completion really is and serves that world's prompts only.
"""

from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any, ClassVar, Literal, NamedTuple

from constitutions import Principle, draw
from tasks.constitution import read_constitution
from tasks.generation import Core, GeneratingStage, Recipe
from tasks.judging import (
    ANSWERS,
    HELPFULNESS_QUESTION,
    ORDERS,
    choice_problem,
    judging_prompt,
    judging_request,
    normalise,
    unswap,
)
from tasks.prompt_rows import beside_prompts, read_prompts, read_rows
from tasks.prompts import template
from tasks.reuse import Reuse, nothing_kept
from tasks.schema import DatasetRef, Judgement, ModelRef, Prompt, Sample, Settings
from tasks.serving import Choice, TextGenerator
from tasks.store import Store


class JudgeConfig(Settings):
    """Who judges held-out samples."""

    evaluator: Literal["feedback", "micro_oracle"] = "feedback"
    """`feedback`: the feedback model compares with the first policy. `micro_oracle`: rules, for the micro world."""


class Case(NamedTuple):
    """One sample to judge beside the first policy's sample of the same prompt."""

    prompt: Prompt
    policy: str
    sample: Sample
    reference: Sample


class JudgeStage(GeneratingStage):
    """Every policy's samples, judged."""

    stage: ClassVar[str] = "judge"
    dataset: ClassVar[str] = "judgements"
    code_version: ClassVar[int] = 2
    row_type: ClassVar[type[Judgement]] = Judgement

    prompts: DatasetRef
    samples: dict[str, DatasetRef]
    """By policy; the first is the one the others are compared with."""
    constitution: DatasetRef
    feedback: ModelRef
    config: JudgeConfig

    def extra_identity(self, store: Store) -> dict[str, Any]:
        return {
            **super().extra_identity(store),
            "template": template("label"),
            "policies": list(self.samples),
        }

    def constitution_slice(self, store: Store) -> str | None:
        if not self.asks_model():
            return None
        return read_constitution(store, self.constitution).questions_slice()

    @property
    def writer(self) -> ModelRef:
        return self.feedback

    def asks_model(self) -> bool:
        return self.config.evaluator == "feedback"

    def items(self, store: Store) -> Iterator[Case]:
        return read_cases(store, self.prompts, self.samples)

    def num_rows(self, store: Store) -> int:
        return sum(ref.rows for ref in self.samples.values())

    def core(self, store: Store) -> Core:
        if not self.asks_model():
            return lambda cases, generator, reuse: judge_by_oracle(cases)
        principles = read_constitution(store, self.constitution).comparison_principles()
        recipe = self.recipe()
        return lambda cases, generator, reuse: judge_by_feedback(cases, principles, generator, recipe, reuse)


def read_cases(store: Store, prompts: DatasetRef, samples: dict[str, DatasetRef]) -> Iterator[Case]:
    """Every sample of every policy beside the first policy's; all policies answered the same prompts in one order."""
    first = next(iter(samples.values()))
    for policy, ref in samples.items():
        rows = beside_prompts(read_prompts(store, prompts, "held_out"), read_rows(store, ref, Sample))
        for (prompt, row), reference in zip(rows, read_rows(store, first, Sample), strict=True):
            assert row.row_id == reference.row_id, f"{policy} answered {row.row_id} where {reference.row_id} stands"
            yield Case(prompt, policy, row, reference)


def case_id(case: Case) -> str:
    return f"{case.policy}/{case.sample.row_id}"


def judge_by_oracle(cases: Sequence[Case]) -> list[Judgement]:
    """The oracle's verdict on each sample, in order.

    Raises: ValueError: a prompt is not of the micro world.
    """
    from tasks.micro.oracle import classify, errand_of

    rows = []
    for case in cases:
        if case.sample.status != "ok":
            rows.append(judgement(case, case.prompt.prompt_id, reuse_key=case.sample.reuse_key))
            continue
        text = case.prompt.messages[-1].content
        verdict = classify(text, case.sample.completion or "")
        rows.append(judgement(case, errand_of(text).name, reuse_key=case.sample.reuse_key, verdict=verdict))
    return rows


def judge_by_feedback(
    cases: Sequence[Case],
    principles: Sequence[Principle],
    generator: TextGenerator,
    recipe: Recipe,
    reuse: Reuse = nothing_kept,
) -> list[Judgement]:
    """P(better than the reference's sample) for each case, in order; the reference itself stands at 0.5."""
    drawn = [draw(principles, recipe.seed, "judge", case.sample.row_id) for case in cases]
    asked = [i for i, case in enumerate(cases) if needs_judge(case)]
    texts = {i: [comparison_text(cases[i], drawn[i], order) for order in ORDERS] for i in asked}
    keys = [recipe.key(case_id(case), texts.get(i)) for i, case in enumerate(cases)]
    kept = reuse([keys[i] for i in asked])
    missing = [i for i in asked if keys[i] not in kept]
    answers = iter(generator.choose([judging_request(text) for i in missing for text in texts[i]], ANSWERS))
    choices = {i: (next(answers), next(answers)) for i in missing}

    def row(i: int) -> Judgement:
        if keys[i] in kept:  # what the prompt and the draw say of the row is no part of its key
            return Judgement(**kept[keys[i]] | prompt_names(cases[i]) | principle_name(cases[i], drawn[i]))
        return feedback_judgement(cases[i], drawn[i], keys[i], choices.get(i))

    return [row(i) for i in range(len(cases))]


def prompt_names(case: Case) -> dict[str, Any]:
    return {"kind": case.prompt.kind, "group": case.prompt.group}


def principle_name(case: Case, principle: Principle) -> dict[str, str | None]:
    return {"principle_id": principle.id if case.prompt.kind == "red_team" else None}


def needs_judge(case: Case) -> bool:
    both_ok = case.sample.status == "ok" and case.reference.status == "ok"
    return both_ok and case.sample.completion != case.reference.completion


def question_of(case: Case, principle: Principle) -> str:
    """A drawn principle's question for a red-team prompt; plain helpfulness for a helpful one."""
    return (principle.comparison_question or "") if case.prompt.kind == "red_team" else HELPFULNESS_QUESTION


def comparison_text(case: Case, principle: Principle, order: Any) -> str:
    texts = case.sample.completion or "", case.reference.completion or ""
    return judging_prompt(case.prompt.messages, question_of(case, principle), *texts, order)


def feedback_judgement(case: Case, principle: Principle, key: str, choices: tuple[Choice, Choice] | None) -> Judgement:
    common: dict[str, Any] = {"reuse_key": key, **principle_name(case, principle)}
    if choices is None:
        same = case.sample.completion == case.reference.completion
        return judgement(case, case.prompt.prompt_id, win_prob=0.5 if same else None, **common)
    if reason := choice_problem(choices[0]) or choice_problem(choices[1]):
        return judgement(case, case.prompt.prompt_id, status="failed", reason=reason, **common)
    probs = [normalise(*unswap(choice, order)) for choice, order in zip(choices, ORDERS, strict=True)]
    return judgement(case, case.prompt.prompt_id, win_prob=fmean(p for p in probs if p is not None), **common)


def judgement(case: Case, unit: str, **values: Any) -> Judgement:
    if case.sample.status != "ok":
        values = {
            **values,
            "status": "skipped",
            "reason": f"sample is {case.sample.status}: {case.sample.reason}",
        }
        values.pop("win_prob", None)
    return Judgement(
        row_id=case_id(case),
        prompt_id=case.prompt.prompt_id,
        **prompt_names(case),
        policy=case.policy,
        sample=case.sample.sample,
        unit=unit,
        **{"verdict": None, **values},
    )
