"""Constitutional AI from principles to an aligned policy (Bai et al. 2022, arXiv:2212.08073, sections 3 and 4)."""

from prefect import flow
from prefect.runtime import flow_run

from flows.config import AlignConfig
from flows.given import Given, gather
from flows.reinforcement import Reinforced, learn_from_feedback
from flows.runner import AlignResult, Made, Run, StageRunner
from flows.supervised import Supervised, learn_from_revisions
from tasks.evaluate import EvaluateStage
from tasks.judge import JudgeStage
from tasks.report import ReportStage
from tasks.sample import SampleStage


@flow(name="align", flow_run_name="align seed {config.run.seed}")
def align(config: AlignConfig) -> AlignResult:
    """Red-team prompts -> revisions -> SL policy -> AI labels -> reward model -> RL policy -> figures and report."""
    config = config.model_copy(update={"run": config.run.salted(str(flow_run.id))})
    with Run(config.run) as run:
        return run.finish(constitutional_ai(run, config))


def constitutional_ai(run: StageRunner, config: AlignConfig) -> Made:
    """The method. `run` makes each stage, or plans it."""
    given = gather(run, config)
    supervised = learn_from_revisions(run, config, given)
    reinforced = learn_from_feedback(run, config, given, supervised.policy)
    return evaluate(run, config, given, supervised, reinforced)


def evaluate(
    run: StageRunner, config: AlignConfig, given: Given, supervised: Supervised, reinforced: Reinforced
) -> Made:
    """What became of the policy (section 4.3)."""
    policies = {"base": given.helpful_only, "sl": supervised.policy, "rl": reinforced.policy}
    samples = {
        name: run.dataset(SampleStage(run=config.run, prompts=given.prompts, policy=policy, config=config.sample))
        for name, policy in policies.items()
    }
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
    metrics = run.dataset(EvaluateStage(run=config.run, judgements=judgements))
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
            gates={"start": supervised.gates, "labels": reinforced.judged.gates},
            preferences=reinforced.judged.preferences,
            sl=supervised.policy,
            reward=reinforced.reward,
            rl=reinforced.policy,
            samples=samples,
            judgements=judgements,
            metrics=metrics,
        )
    )
    return Made(policies, metrics, samples, report)
