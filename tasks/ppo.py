"""Reinforcement learning from AI feedback (section 4.1): PPO against the reward model, near the SL policy.

*Reads* `prompts`, `models/sl`, `models/reward`. *Writes* `models/rl`, and `rollouts`: a sample of the episodes.
Prompts are the red-team and the helpful ones together, as in the paper.
"""

import json
from pathlib import Path
from typing import ClassVar

from tasks.schema import DatasetRef, ModelRef, Prompt, Rollout
from tasks.stage import Session, Stage
from tasks.store.identity import digest, rows_to_table, table_to_rows
from tasks.train import run_training
from tasks.training.config import PPOConfig
from tasks.training.examples import PromptExample


class PPOStage(Stage):
    """The RL-CAI policy."""

    stage: ClassVar[str] = "ppo"
    dataset: ClassVar[str] = "models/rl"
    code_version: ClassVar[int] = 1
    operational: ClassVar[frozenset[str]] = frozenset({"checkpoint_every"})

    prompts: DatasetRef
    policy: ModelRef
    reward: ModelRef
    config: PPOConfig

    def make(self, session: Session) -> ModelRef:
        prompts = training_prompts(table_to_rows(session.store.read(self.prompts), Prompt))
        examples = [PromptExample(prompt=row.messages) for row in prompts]

        def keep_rollouts(path: Path) -> None:
            rows = rollout_rows(path.read_text(encoding="utf-8").splitlines(), prompts)
            derivation = self.derivation(session.store).model_copy(update={"dataset": "rollouts"})
            session.store.commit_rows(derivation, rows_to_table(rows, Rollout), metrics={}, cost={})

        return run_training(
            self,
            session,
            self.config,
            examples,
            model=self.policy,
            reward=self.reward,
            on_rollouts=keep_rollouts,
        )


def training_prompts(prompts: list[Prompt]) -> list[Prompt]:
    """Usable training prompts of both kinds, in row order."""
    return [row for row in prompts if row.split == "train" and row.status == "ok"]


def rollout_rows(lines: list[str], prompts: list[Prompt]) -> list[Rollout]:
    """One row for each JSON line of the trainer; `prompt` there is a position in `prompts`."""
    rows = []
    for index, line in enumerate(lines):
        episode = json.loads(line)
        rows.append(
            Rollout(
                row_id=f"{episode['update']}/{index}",
                reuse_key=digest(episode),
                prompt_id=prompts[episode["prompt"]].prompt_id,
                **{k: episode[k] for k in ("update", "completion", "score", "kl", "num_tokens")},
            )
        )
    return rows
