"""The reward model, the paper's preference model, on soft targets (section 4.1).

*Reads* `preferences`, `models/sl`. *Writes* `models/reward`: the policy's body under a scalar head, fitted so that
sigmoid(r_chosen - r_rejected) meets `target_prob`.
"""

from typing import ClassVar

from pydantic import Field

from tasks.schema import DatasetRef, ModelRef, Preference
from tasks.stage import Session, Stage
from tasks.store.identity import digest, table_to_rows
from tasks.train import run_training
from tasks.training.config import RewardConfig
from tasks.training.examples import preference_examples


class RewardStage(Stage):
    """The reward model."""

    stage: ClassVar[str] = "reward"
    dataset: ClassVar[str] = "models/reward"
    code_version: ClassVar[int] = 3
    operational: ClassVar[frozenset[str]] = frozenset({"checkpoint_every"})
    second: ClassVar[bool] = False
    """Whether it learns from the share of the prompts that is the second model's."""

    preferences: DatasetRef
    earlier: dict[str, DatasetRef] = Field(default_factory=dict)
    """Preferences of earlier rounds of the second phase, which it learns from as well."""
    policy: ModelRef
    config: RewardConfig

    def make(self, session: Session) -> ModelRef:
        datasets = (*self.earlier.values(), self.preferences)
        preferences = [row for ref in datasets for row in table_to_rows(session.store.read(ref), Preference)]
        mine = [row for row in preferences if is_seconds(row, self.config.second_model_share) is self.second]
        return run_training(
            self,
            session,
            self.config,
            preference_examples(mine),
            kind="reward",
            model=self.policy,
            reward=self.compared(),
        )

    def compared(self) -> ModelRef | None:
        """Another reward model, whose margins on the held-out comparisons are set beside this one's."""
        return None


class HeldOutRewardStage(RewardStage):
    """A second reward model on other prompts: it trains no policy, and so tells when one is over-optimised.

    Neither model has seen the comparisons that this one holds out: how far they agree there is measured as well.
    """

    stage: ClassVar[str] = "held_out_reward"
    dataset: ClassVar[str] = "models/held_out_reward"
    second: ClassVar[bool] = True

    reward: ModelRef | None = None
    """The first model; without it their agreement is not measured."""

    def compared(self) -> ModelRef | None:
        return self.reward


def is_seconds(row: Preference, share: float) -> bool:
    """Whether a comparison is the second model's: by hash of its prompt's words, so that all of a prompt's go together.

    Not by `prompt_id`: the same words have several where they come from several files, or twice from one.
    """
    words = [message.model_dump() for message in row.prompt]
    return int(digest(["second reward model", words])[:8], 16) < share * 2**32
