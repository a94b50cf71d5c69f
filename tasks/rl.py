"""Reinforcement learning from AI feedback (section 4.1): towards what the reward model likes, near the SL policy.

*Reads* `prompts`, `models/sl`, `models/reward` (DPO: `preferences` instead). *Writes* `models/rl`, and of PPO
`rollouts`: a sample of the episodes. Prompts are the red-team and the helpful ones together, as in the paper.
"""

import json
import math
from pathlib import Path
from typing import Any, ClassVar

from tasks.policy_stage import PolicyStage
from tasks.schema import DatasetRef, ModelRef, Preference, Prompt, Rollout
from tasks.stage import Session
from tasks.store import Store
from tasks.store.identity import digest, rows_to_table, table_to_rows
from tasks.train import run_training
from tasks.training.examples import PromptExample, preference_examples
from tasks.training.rl_config import GroupConfig, PPOConfig, RLConfig


class RLStage(PolicyStage):
    """The RL-CAI policy."""

    stage: ClassVar[str] = "rl"
    dataset: ClassVar[str] = "models/rl"
    policies: ClassVar[str] = "models/rl_policies"
    code_version: ClassVar[int] = 5

    prompts: DatasetRef
    policy: ModelRef
    reward: ModelRef | None = None
    """What PPO, RLOO and GRPO learn from."""
    held_out_reward: ModelRef | None = None
    """A reward model that only measures, if there is one (PPO)."""
    preferences: DatasetRef | None = None
    """What DPO learns from."""
    config: RLConfig

    def identity_config(self) -> dict[str, Any]:
        """Of the algorithms' settings those of the chosen one alone."""
        section = self.config.section
        mixed = {} if self.config.algorithm == "dpo" else {"helpful_share": self.config.helpful_share}
        settings = self.config.trainer.model_dump(mode="json", exclude={"checkpoint_every", "rollout_memory_share"})
        return {"algorithm": self.config.algorithm, section: settings, **mixed}

    def make(self, session: Session) -> ModelRef:
        if self.config.algorithm == "dpo":
            assert self.preferences is not None
            preferences = table_to_rows(session.store.read(self.preferences), Preference)
            return run_training(
                self,
                session,
                self.config.trainer,
                preference_examples(preferences),
                kind="dpo",
                model=self.policy,
                on_policy=lambda folder, step: self.keep_policy(session.store, folder, step),
            )
        prompts = training_prompts(table_to_rows(session.store.read(self.prompts), Prompt), self.config.helpful_share)
        return run_training(
            self,
            session,
            self.config.trainer,
            [PromptExample(prompt=row.messages) for row in prompts],
            kind=self.config.algorithm,
            model=self.policy,
            reward=self.reward,
            held_out_reward=self.held_out_reward,
            on_rollouts=lambda path: self.keep_rollouts(session.store, path, prompts),
            on_policy=lambda folder, step: self.keep_policy(session.store, folder, step),
        )

    def keep_rollouts(self, store: Store, path: Path, prompts: list[Prompt]) -> None:
        rows = rollout_rows(path.read_text(encoding="utf-8").splitlines(), prompts)
        derivation = self.derivation(store).model_copy(update={"dataset": "rollouts"})
        store.commit_rows(derivation, rows_to_table(rows, Rollout), metrics={}, cost={})

    def keep_every(self) -> int:
        return self.config.trainer.keep_every

    def most_steps(self) -> int:
        trainer = self.config.trainer
        if isinstance(trainer, PPOConfig):
            return trainer.num_updates
        if isinstance(trainer, GroupConfig):
            return trainer.num_steps
        assert self.preferences is not None
        return trainer.epochs * math.ceil(self.preferences.rows / trainer.batch_size)


def training_prompts(prompts: list[Prompt], helpful_share: float | None) -> list[Prompt]:
    """Usable training prompts of both kinds, in row order, cut to the share of helpful ones.

    Raises: ValueError: the share cannot be had because a kind is missing.
    """
    usable = [row for row in prompts if row.split == "train" and row.status == "ok"]
    if helpful_share is None:
        return usable
    counts = {kind: sum(row.kind == kind for row in usable) for kind in ("red_team", "helpful")}
    shares = {"red_team": 1 - helpful_share, "helpful": helpful_share}
    missing = [kind for kind, share in shares.items() if share and not counts[kind]]
    if missing:
        raise ValueError(
            f"rl: helpful_share is {helpful_share}, but there are no usable {missing[0]} prompts; "
            "give some, or set helpful_share to null"
        )
    total = min(counts[kind] / share for kind, share in shares.items() if share)
    kept = {
        row.prompt_id
        for kind, share in shares.items()
        for row in sorted((row for row in usable if row.kind == kind), key=lambda row: digest(["rl", row.prompt_id]))[
            : round(total * share)
        ]
    }
    return [row for row in usable if row.prompt_id in kept]


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
