"""Tiny trainings to be killed, and what each leaves when nothing happens to it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tasks.training.config import RewardConfig, SFTConfig
from tasks.training.examples import PreferenceExample, PromptExample, SFTExample, write_examples
from tasks.training.job import TrainingJob, run_job
from tasks.training.rl_config import PPOConfig
from tasks.training.supervision import Supervision
from tests.ppo_world import PROMPTS, WORDS, likes_a, make_policy, make_reward

Kind = Literal["ppo", "sft", "reward"]
KINDS: tuple[Kind, ...] = ("ppo", "sft", "reward")


@dataclass(frozen=True)
class Case:
    """A tiny training and what it leaves when nothing happens to it."""

    job: TrainingJob
    reference: Path
    result: dict[str, Any]
    lines: list[dict[str, Any]]
    line_seconds: float

    @property
    def num_steps(self) -> int:
        return int(self.lines[-1]["num_steps"])


def make_case(kind: Kind, folder: Path) -> Case:
    """Train it once here, where nobody kills it."""
    import torch

    torch.set_num_threads(1)  # as the processes that are killed have it
    job, lines = tiny_job(kind, folder), list[dict[str, Any]]()
    reference = folder / "reference"
    started = time.monotonic()
    whole = placed(job, reference)
    result = run_job(whole, Supervision(log=lines.append, checkpoints=whole.checkpoint))
    return Case(job, reference, result, lines, (time.monotonic() - started) / len(lines))


def tiny_job(kind: Kind, folder: Path) -> TrainingJob:
    """A training of a few seconds with a resume point every second step."""
    common: dict[str, Any] = {"micro_batch_size": 4, "checkpoint_every": 2}
    policy, reward = make_policy(folder), None
    rows: Sequence[Any]
    if kind == "sft":
        rows = [SFTExample(prompt=PROMPTS[i % 10], completion=WORDS[i % 8]) for i in range(48)]
        config: Any = SFTConfig(epochs=2, learning_rate=1e-3, batch_size=8, max_tokens=64, **common)
    elif kind == "reward":
        rows = [
            PreferenceExample(prompt=PROMPTS[i % 10], chosen=WORDS[i % 8], rejected=WORDS[i // 8], target_prob=0.8)
            for i in range(48)
        ]
        config = RewardConfig(
            epochs=2, learning_rate=1e-3, batch_size=8, max_tokens=64, held_out_fraction=0.1, **common
        )
    else:
        rows, reward = [PromptExample(prompt=prompt) for prompt in PROMPTS], make_reward(folder / "r", policy, likes_a)
        config = PPOConfig(
            num_updates=12, batch_size=8, mini_batch_size=4, num_epochs=2, learning_rate=1e-3, target_kl=3.0,
            max_tokens=6, eval_every=4, eval_prompts=1, rollouts_kept=2, **common,
        )  # fmt: skip
    return TrainingJob(
        kind=kind,
        config=config.model_dump(),
        examples=write_examples(folder / "examples.jsonl", rows),
        model=policy,
        reward=reward,
        output=folder / "model",
        seed=0,
    )


def placed(job: TrainingJob, folder: Path) -> TrainingJob:
    """The training with all that it leaves in this folder."""
    folder.mkdir(parents=True)
    rollouts = {"rollouts": folder / "rollouts.jsonl"} if job.kind == "ppo" else {}
    return job.model_copy(update={"output": folder / "model", "checkpoint": folder / "checkpoints", **rollouts})
