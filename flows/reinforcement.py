"""Reinforcement learning from AI feedback (section 4): comparisons, labels, the reward model and PPO."""

from typing import NamedTuple

from flows.config import AlignConfig
from flows.gates import require_gates
from flows.given import Given
from flows.runner import StageRunner
from tasks.compare import CompareStage
from tasks.label import LabelStage
from tasks.label_gates import LabelGatesStage
from tasks.ppo import PPOStage
from tasks.preferences import PreferencesStage
from tasks.probes import ProbeStage
from tasks.reward import RewardStage
from tasks.schema import DatasetRef, ModelRef


class Reinforced(NamedTuple):
    """What learning from AI feedback makes."""

    comparisons: DatasetRef
    probes: dict[str, DatasetRef]
    labels: dict[str, DatasetRef]
    """By evaluator."""
    gates: DatasetRef
    preferences: DatasetRef
    reward: ModelRef
    policy: ModelRef


def learn_from_feedback(run: StageRunner, config: AlignConfig, given: Given, sl: ModelRef) -> Reinforced:
    """SL policy -> comparisons -> labels of every evaluator -> reward model -> RL policy."""
    prompts, constitution = given.prompts, given.constitution
    comparisons = run.dataset(CompareStage(run=config.run, prompts=prompts, policy=sl, config=config.compare))
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
    preferences = run.dataset(
        PreferencesStage(
            run=config.run,
            prompts=prompts,
            comparisons=comparisons,
            labels=labels,
            constitution=constitution,
            config=config.preferences,
        )
    )
    reward = run.model(RewardStage(run=config.run, preferences=preferences, policy=sl, config=config.reward))
    policy = run.model(PPOStage(run=config.run, prompts=prompts, policy=sl, reward=reward, config=config.ppo))
    return Reinforced(comparisons, probes, labels, gates, preferences, reward, policy)
