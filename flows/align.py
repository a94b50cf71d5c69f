"""Constitutional AI from principles to an aligned policy (Bai et al. 2022, arXiv:2212.08073, sections 3 and 4)."""

from prefect import flow

from constitutions import load_constitution
from flows.config import AlignConfig
from flows.runner import AlignResult, Made, Run, StageRunner
from tasks.collect import PromptsStage
from tasks.compare import CompareStage
from tasks.constitution import ConstitutionStage
from tasks.evaluate import EvaluateStage
from tasks.judge import JudgeStage
from tasks.label import LabelStage
from tasks.ppo import PPOStage
from tasks.preferences import PreferencesStage
from tasks.report import ReportStage
from tasks.respond import RespondStage
from tasks.revise import ReviseStage
from tasks.reward import RewardStage
from tasks.sample import SampleStage
from tasks.sft import SFTStage


@flow(name="align", flow_run_name="align seed {config.run.seed}")
def align(config: AlignConfig) -> AlignResult:
    """Red-team prompts -> revisions -> SL policy -> AI labels -> reward model -> RL policy -> figures and report."""
    with Run(config.run) as run:
        return run.finish(constitutional_ai(run, config))


def constitutional_ai(run: StageRunner, config: AlignConfig) -> Made:
    """The method. `run` makes each stage, or plans it."""
    base = run.outside_model(config.models.helpful_only)
    pretrained = run.outside_model(config.models.pretrained)
    feedback = run.outside_model(config.models.feedback)
    document = load_constitution(config.constitution).model_dump(mode="json")
    constitution = run.dataset(ConstitutionStage(run=config.run, document=document))
    prompts = run.dataset(PromptsStage(run=config.run, config=config.prompts))

    # Section 3: the supervised stage
    completions = run.dataset(RespondStage(run=config.run, prompts=prompts, helpful_only=base, config=config.respond))
    revisions = run.dataset(
        ReviseStage(
            run=config.run,
            prompts=prompts,
            completions=completions,
            constitution=constitution,
            helpful_only=base,
            config=config.revise,
        )
    )
    sft = SFTStage(
        run=config.run,
        prompts=prompts,
        completions=completions,
        revisions=revisions,
        pretrained=pretrained,
        config=config.sft,
    )
    sl = run.model(run.keeping(sft, config.keep))

    # Section 4: reinforcement learning from AI feedback
    comparisons = run.dataset(CompareStage(run=config.run, prompts=prompts, policy=sl, config=config.compare))
    labels = run.dataset(
        LabelStage(
            run=config.run,
            prompts=prompts,
            comparisons=comparisons,
            constitution=constitution,
            feedback=feedback,
            config=config.label,
        )
    )
    preferences = run.dataset(
        PreferencesStage(
            run=config.run,
            prompts=prompts,
            comparisons=comparisons,
            labels=labels,
            config=config.preferences,
        )
    )
    reward = run.model(RewardStage(run=config.run, preferences=preferences, policy=sl, config=config.reward))
    rl = run.model(PPOStage(run=config.run, prompts=prompts, policy=sl, reward=reward, config=config.ppo))

    # Section 4.3: what became of the policy
    policies = {"base": base, "sl": sl, "rl": rl}
    samples = {
        name: run.dataset(SampleStage(run=config.run, prompts=prompts, policy=policy, config=config.sample))
        for name, policy in policies.items()
    }
    judgements = run.dataset(
        JudgeStage(
            run=config.run,
            prompts=prompts,
            samples=samples,
            constitution=constitution,
            feedback=feedback,
            config=config.judge,
        )
    )
    metrics = run.dataset(EvaluateStage(run=config.run, judgements=judgements))
    report = run.dataset(
        ReportStage(
            run=config.run,
            constitution=constitution,
            prompts=prompts,
            completions=completions,
            revisions=revisions,
            comparisons=comparisons,
            labels=labels,
            preferences=preferences,
            sl=sl,
            reward=reward,
            rl=rl,
            samples=samples,
            judgements=judgements,
            metrics=metrics,
        )
    )
    return Made(policies, metrics, samples, report)
