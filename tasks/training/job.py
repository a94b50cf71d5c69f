"""One training as JSON, and which trainer runs it."""

from pathlib import Path
from typing import Any

from tasks.schema import Frozen, Message
from tasks.training.config import RewardConfig, SFTConfig
from tasks.training.examples import PreferenceExample, PromptExample, SFTExample, read_examples
from tasks.training.launch_command import Kind
from tasks.training.launch_config import LaunchConfig
from tasks.training.nodes_config import Node
from tasks.training.rl_config import DPOConfig, GroupConfig, PPOConfig
from tasks.training.supervision import Supervision


class TrainingJob(Frozen):
    """One training: what a trainer's arguments are, as JSON."""

    kind: Kind
    config: dict[str, Any]
    """Of `SFTConfig`, `RewardConfig`, `PPOConfig`, `GroupConfig` (rloo, grpo) or `DPOConfig`."""
    examples: Path
    """JSON lines (`write_examples`) of `SFTExample`, `PreferenceExample` or `PromptExample`."""
    model: Path
    """Folder of the model to train."""
    reward: Path | None = None
    """Folder of the reward model; PPO, RLOO and GRPO need it."""
    held_out_reward: Path | None = None
    """Folder of a reward model that only measures; of use to PPO."""
    output: Path
    """Folder that the trained model is written to."""
    seed: int
    checkpoint: Path | None = None
    """Folder of resume points."""
    rollouts: Path | None = None
    """File for PPO's kept episodes."""
    kept: Path | None = None
    """Folder for the policies that are kept along the way."""
    run_name: str = "training"
    """What its curves are called."""
    launched: LaunchConfig = LaunchConfig(tracker="none")
    """How its processes were started; `launch` fills it in."""
    node: Node | None = None
    """This machine among several; None: all of the training is here."""
    events: Path | None = None
    """File that it appends its events to; `launch` fills it in."""


def run_job(job: TrainingJob, watched: Supervision) -> dict[str, Any]:
    """Run the job here, in this process."""
    match job.kind:
        case "sft":
            from tasks.training.sft import train_sft

            examples = list(read_examples(job.examples, SFTExample))
            return train_sft(SFTConfig(**job.config), examples, job.model, job.output, job.seed, watched, job.kept)
        case "reward":
            from tasks.training.reward import train_reward

            preferences = list(read_examples(job.examples, PreferenceExample))
            config = RewardConfig(**job.config)
            return train_reward(config, preferences, job.model, job.output, job.seed, watched, compared=job.reward)
        case "dpo":
            from tasks.training.dpo import train_dpo

            preferences = list(read_examples(job.examples, PreferenceExample))
            return train_dpo(DPOConfig(**job.config), preferences, job.model, job.output, job.seed, watched, job.kept)
        case "ppo":
            return _run_ppo(job, watched)
        case "rloo" | "grpo" as algorithm:
            from tasks.training.group import train_group

            prompts, reward = _prompts_and_reward(job)
            return train_group(
                algorithm,
                GroupConfig(**job.config),
                prompts,
                job.model,
                reward,
                job.output,
                job.seed,
                watched,
                job.kept,
            )


def _run_ppo(job: TrainingJob, watched: Supervision) -> dict[str, Any]:
    from tasks.training.ppo.trainer import train_ppo

    prompts, reward = _prompts_and_reward(job)
    return train_ppo(
        PPOConfig(**job.config),
        prompts,
        job.model,
        reward,
        job.output,
        job.seed,
        watched,
        rollouts=job.rollouts,
        held_out_reward=job.held_out_reward,
        kept=job.kept,
    )


def _prompts_and_reward(job: TrainingJob) -> tuple[list[list[Message]], Path]:
    if job.reward is None:
        raise ValueError(f"{job.kind}: no reward model, expected the folder of one in `reward`")
    return [list(example.prompt) for example in read_examples(job.examples, PromptExample)], job.reward
