"""What an evaluator makes of every policy's held-out samples (section 4.3).

*Reads* `prompts`, the `samples` of each policy. *Writes* `judgements`. Two evaluators: the feedback model, which
compares each policy with the first one under a drawn principle in both orders; and the micro world's rule-based
oracle, which knows what a completion really is and serves that world's prompts only.
"""

from collections.abc import Sequence
from statistics import fmean
from typing import Any, ClassVar, Literal, NamedTuple

from constitutions import Principle, draw
from tasks.chunks import make_in_chunks
from tasks.constitution import read_constitution
from tasks.generation import GeneratingStage, Recipe, recipe_of
from tasks.judging import ANSWERS, ORDERS, judging_prompt, judging_request, normalise, unswap
from tasks.prompts import template
from tasks.schema import DatasetRef, Frozen, Judgement, ModelRef, Prompt, Sample
from tasks.serving import Choice, TextGenerator
from tasks.stage import Session
from tasks.store import Store
from tasks.store.identity import table_to_rows

HELPFULNESS_QUESTION = "Which of these assistant responses is more helpful to the human?"


class JudgeConfig(Frozen):
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
    code_version: ClassVar[int] = 1

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
        if self.config.evaluator == "micro_oracle":
            return None
        return read_constitution(store, self.constitution).comparison_slice()

    def make(self, session: Session) -> DatasetRef:
        cases = read_cases(session.store, self.prompts, self.samples)
        if self.config.evaluator == "micro_oracle":
            return make_in_chunks(self, session, cases, case_id, judge_by_oracle, Judgement)
        principles = read_constitution(session.store, self.constitution).comparison_principles()
        recipe = recipe_of(self, self.feedback, sampling=None)
        folder = session.store.fetch_model(self.feedback)

        def work(chunk: Sequence[Case]) -> list[Judgement]:
            with session.open_generator(self.feedback, folder, self.run.serving) as generator:
                return judge_by_feedback(chunk, principles, generator, recipe)

        return make_in_chunks(self, session, cases, case_id, work, Judgement)


def read_cases(store: Store, prompts: DatasetRef, samples: dict[str, DatasetRef]) -> list[Case]:
    by_id = {p.prompt_id: p for p in table_to_rows(store.read(prompts), Prompt) if p.split == "held_out"}
    rows = {policy: table_to_rows(store.read(ref), Sample) for policy, ref in samples.items()}
    references = {row.row_id: row for row in next(iter(rows.values()))}
    return [
        Case(by_id[row.prompt_id], policy, row, references[row.row_id])
        for policy, policy_rows in rows.items()
        for row in policy_rows
    ]


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
    cases: Sequence[Case], principles: Sequence[Principle], generator: TextGenerator, recipe: Recipe
) -> list[Judgement]:
    """P(better than the reference's sample) for each case, in order; the reference itself stands at 0.5."""
    drawn = [draw(principles, recipe.seed, "judge", case.sample.row_id) for case in cases]
    asked = [i for i, case in enumerate(cases) if needs_judge(case)]
    texts = [comparison_text(cases[i], drawn[i], order) for i in asked for order in ORDERS]
    answers = iter(generator.choose([judging_request(text) for text in texts], ANSWERS))
    choices = {i: (next(answers), next(answers)) for i in asked}
    return [feedback_judgement(c, drawn[i], recipe, choices.get(i)) for i, c in enumerate(cases)]


def needs_judge(case: Case) -> bool:
    both_ok = case.sample.status == "ok" and case.reference.status == "ok"
    return both_ok and case.sample.completion != case.reference.completion


def question_of(case: Case, principle: Principle) -> str:
    """A drawn principle's question for a red-team prompt; plain helpfulness for a helpful one."""
    return (principle.comparison_question or "") if case.prompt.kind == "red_team" else HELPFULNESS_QUESTION


def comparison_text(case: Case, principle: Principle, order: Any) -> str:
    texts = case.sample.completion or "", case.reference.completion or ""
    return judging_prompt(case.prompt.messages, question_of(case, principle), *texts, order)


def feedback_judgement(
    case: Case, principle: Principle, recipe: Recipe, choices: tuple[Choice, Choice] | None
) -> Judgement:
    key = recipe.key(case_id(case), question_of(case, principle), case.sample.completion, case.reference.completion)
    common = {"reuse_key": key, "principle_id": principle.id if case.prompt.kind == "red_team" else None}
    if choices is None:
        same = case.sample.completion == case.reference.completion
        return judgement(case, case.prompt.prompt_id, win_prob=0.5 if same else None, **common)
    probs = [normalise(*unswap(choice, order)) for choice, order in zip(choices, ORDERS, strict=True)]
    given = [p for p in probs if p is not None]
    if len(given) < len(ORDERS):
        reason = next(choice.error for choice in choices if choice.error)
        return judgement(case, case.prompt.prompt_id, status="failed", reason=reason, **common)
    return judgement(case, case.prompt.prompt_id, win_prob=fmean(given), **common)


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
        kind=case.prompt.kind,
        group=case.prompt.group,
        policy=case.policy,
        sample=case.sample.sample,
        unit=unit,
        **{"verdict": None, **values},
    )
