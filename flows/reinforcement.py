"""Reinforcement learning from AI feedback (section 4): comparisons, labels, the reward model and the RL policy."""

from typing import Any, NamedTuple

from flows.config import AlignConfig
from flows.gates import require_gates
from flows.given import Given
from flows.runner import StageRunner
from tasks.compare import CompareStage
from tasks.label import LabelStage
from tasks.label_gates import LabelGatesStage
from tasks.preferences import PreferencesStage
from tasks.probes import ProbeStage
from tasks.reward import HeldOutRewardStage, RewardStage
from tasks.rl import RLStage
from tasks.schema import DatasetRef, ModelRef


class Judged(NamedTuple):
    """What the evaluators make of one policy's completions."""

    comparisons: DatasetRef
    probes: dict[str, DatasetRef]
    labels: dict[str, DatasetRef]
    """By evaluator."""
    gates: DatasetRef
    preferences: DatasetRef


class Reinforced(NamedTuple):
    """What learning from AI feedback makes; of several rounds the last."""

    judged: Judged
    reward: ModelRef
    policy: ModelRef
    along_the_way: dict[int, ModelRef]
    """Earlier policies of the same training, by the steps behind them."""


def learn_from_feedback(run: StageRunner, config: AlignConfig, given: Given, sl: ModelRef) -> Reinforced:
    """SL policy -> comparisons -> labels of every evaluator -> reward model -> RL policy; in further rounds the newest
    policy is compared, and policy and reward model learn anew from all rounds' labels (2204.05862, section 4.5)."""
    policy, earlier = sl, dict[str, DatasetRef]()
    for number in range(config.rl.num_rounds):
        judged = judge(run, config, given, policy, mixing_in_people=number == 0)
        models: dict[str, Any] = {"preferences": judged.preferences, "earlier": earlier, "policy": sl}
        reward = run.model(RewardStage(run=config.run, config=config.reward, **models))
        held_out = None
        if config.reward.second_model_share:
            held_out = run.model(HeldOutRewardStage(run=config.run, config=config.reward, reward=reward, **models))
        training = learner(config, given.prompts, judged.preferences, sl, reward, held_out)
        policy = run.model(training)
        earlier = {**earlier, f"round_{number}": judged.preferences}
    return Reinforced(judged, reward, policy, run.kept_policies(training))


def judge(run: StageRunner, config: AlignConfig, given: Given, policy: ModelRef, mixing_in_people: bool) -> Judged:
    """Pairs of the policy's completions, every evaluator's labels of them, and the preferences that follow."""
    prompts, constitution = given.prompts, given.constitution
    comparisons = run.dataset(CompareStage(run=config.run, prompts=prompts, policy=policy, config=config.compare))
    probes, labels = dict[str, DatasetRef](), dict[str, DatasetRef]()
    for name, model in given.evaluators.items():
        probe = ProbeStage(
            run=config.run,
            constitution=constitution,
            feedback=model,
            evaluator=name,
            demonstrations=config.label.demonstrations,
            config=config.gates,
        )
        label = LabelStage(
            run=config.run,
            prompts=prompts,
            comparisons=comparisons,
            constitution=constitution,
            feedback=model,
            evaluator=name,
            config=config.label,
        )
        probes[name], labels[name] = run.dataset(probe), run.dataset(label)
    gates = run.dataset(
        LabelGatesStage(run=config.run, comparisons=comparisons, labels=labels, probes=probes, config=config.gates)
    )
    require_gates(run, gates)
    people = {} if mixing_in_people else {"human": "", "human_fraction": None}
    preferences = PreferencesStage(
        run=config.run,
        prompts=prompts,
        comparisons=comparisons,
        labels=labels,
        constitution=constitution,
        config=config.preferences.model_copy(update=people),
    )
    return Judged(comparisons, probes, labels, gates, run.dataset(preferences))


def learner(
    config: AlignConfig,
    prompts: DatasetRef,
    preferences: DatasetRef,
    sl: ModelRef,
    reward: ModelRef,
    held_out: ModelRef | None,
) -> RLStage:
    """The stage that makes the RL policy, with what the algorithm learns from and nothing else."""
    given: dict[str, Any] = {"run": config.run, "prompts": prompts, "policy": sl, "config": config.rl}
    if config.rl.algorithm == "dpo":
        return RLStage(**given, preferences=preferences)
    if config.rl.algorithm == "ppo":
        return RLStage(**given, reward=reward, held_out_reward=held_out)
    return RLStage(**given, reward=reward)
