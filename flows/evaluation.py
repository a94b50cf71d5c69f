"""What became of the policy (section 4.3): every policy on held-out prompts, judged, measured and reported."""

from flows.config import AlignConfig
from flows.gates import require_gates
from flows.given import Given
from flows.questions import ask_all, ask_evaluators
from flows.reinforcement import Reinforced
from flows.runner import Made, StageRunner
from flows.supervised import Supervised
from tasks.assess import AssessStage
from tasks.evaluate import EvaluateStage
from tasks.evaluation.names import ORACLE, PEOPLE
from tasks.human_matches import HumanMatchesStage
from tasks.judge import JudgeStage
from tasks.leakage import LeakageStage
from tasks.match import MatchStage
from tasks.report import ReportStage
from tasks.sample import SampleStage
from tasks.schema import DatasetRef, ModelRef
from tasks.stage import RunContext


def evaluate(
    run: StageRunner, config: AlignConfig, given: Given, supervised: Supervised, reinforced: Reinforced
) -> Made:
    """What became of the policy (section 4.3)."""
    policies = {
        "base": given.helpful_only,
        **{f"sl@{step}": policy for step, policy in supervised.along_the_way.items()},
        "sl": supervised.policy,
        **{f"rl@{step}": policy for step, policy in reinforced.along_the_way.items()},
        "rl": reinforced.policy,
        **given.references,
    }
    leakage = held_out_from_all(run, config, given, policies)
    samples, answers = hear_policies(run, config, given, policies)
    evaluator_answers = ask_evaluators(run, config, given)
    judgements = run.dataset(
        JudgeStage(
            run=config.run,
            prompts=given.prompts,
            samples=samples,
            constitution=given.constitution,
            feedback=given.feedback,
            config=config.judge,
        )
    )
    matches = compare_policies(run, config, given, samples)
    assessments = assess_policies(run, config, given, samples)
    metrics = run.dataset(
        EvaluateStage(
            run=config.run,
            judgements=judgements,
            matches=matches,
            assessments=assessments,
            samples=samples,
            answers=answers,
            evaluator_answers=evaluator_answers,
        )
    )
    report = run.dataset(
        ReportStage(
            run=config.run,
            constitution=given.constitution,
            prompts=given.prompts,
            completions=supervised.completions,
            revisions=supervised.revisions,
            improvements=supervised.improvements,
            comparisons=reinforced.judged.comparisons,
            probes=reinforced.judged.probes,
            labels=reinforced.judged.labels,
            gates={"start": supervised.gates, "labels": reinforced.judged.gates, "leakage": leakage},
            preferences=reinforced.judged.preferences,
            sl=supervised.policy,
            reward=reinforced.reward,
            rl=reinforced.policy,
            samples=samples,
            judgements=judgements,
            matches=matches,
            assessments=assessments,
            question_sets=given.question_sets,
            answers=answers,
            evaluator_answers=evaluator_answers,
            metrics=metrics,
        )
    )
    return Made(policies, metrics, samples, report)


def held_out_from_all(run: StageRunner, config: AlignConfig, given: Given, policies: dict[str, ModelRef]) -> DatasetRef:
    """No policy learnt from what it is evaluated on."""
    ours = {name: policy for name, policy in policies.items() if policy.source is None}
    leakage = run.dataset(LeakageStage(run=config.run, prompts=given.prompts, policies=ours, config=config.gates))
    require_gates(run, leakage)
    return leakage


def hear_policies(
    run: StageRunner, config: AlignConfig, given: Given, policies: dict[str, ModelRef]
) -> tuple[dict[str, DatasetRef], dict[str, dict[str, DatasetRef]]]:
    """What every policy says to held-out prompts and answers to question sets; its server starts once for both."""
    samples, answers = dict[str, DatasetRef](), dict[str, dict[str, DatasetRef]]()
    for name, policy in policies.items():
        context = serving_of(config, name)
        samples[name] = run.dataset(
            SampleStage(run=context, prompts=given.prompts, policy=policy, config=config.sample)
        )
        answers[name] = ask_all(run, context, given.question_sets, policy)
    return samples, answers


def serving_of(config: AlignConfig, policy: str) -> RunContext:
    """How a policy is served: as all are, or where a reference's own server is."""
    url = next((each.url for each in config.models.references if each.name == policy), None)
    if url is None:
        return config.run
    return config.run.model_copy(update={"serving": config.run.serving.model_copy(update={"url": url})})


def compare_policies(
    run: StageRunner, config: AlignConfig, given: Given, samples: dict[str, DatasetRef]
) -> dict[str, DatasetRef]:
    """Every policy against every other, by each judge; in the micro world also by its oracle, which knows."""
    judges: dict[str, ModelRef | None] = {ORACLE: None} if config.judge.evaluator == ORACLE else {}
    matches = {
        name: run.dataset(
            MatchStage(
                run=config.run, prompts=given.prompts, samples=samples, judge=name, model=model, config=config.match
            )
        )
        for name, model in {**judges, **given.judges}.items()
    }
    if not config.match.people:
        return matches
    people = HumanMatchesStage(run=config.run, prompts=given.prompts, samples=samples, config=config.match)
    return {**matches, PEOPLE: run.dataset(people)}


def assess_policies(
    run: StageRunner, config: AlignConfig, given: Given, samples: dict[str, DatasetRef]
) -> DatasetRef | None:
    """Every completion alone, by the first judge; None where it is asked nothing."""
    if not config.assess.aspects:
        return None
    name, model = next(iter(given.judges.items()))
    return run.dataset(
        AssessStage(
            run=config.run, prompts=given.prompts, samples=samples, judge=name, model=model, config=config.assess
        )
    )
