"""The reward model, the paper's preference model, on soft targets (section 4.1).

*Reads* `preferences`, `models/sl`. *Writes* `models/reward`: the policy's body under a scalar head, fitted so that
sigmoid(r_chosen - r_rejected) meets `target_prob`.
"""

from typing import ClassVar

from tasks.schema import DatasetRef, ModelRef, Preference
from tasks.stage import Session, Stage
from tasks.store.identity import table_to_rows
from tasks.train import run_training
from tasks.training.config import RewardConfig
from tasks.training.examples import PreferenceExample


class RewardStage(Stage):
    """The reward model."""

    stage: ClassVar[str] = "reward"
    dataset: ClassVar[str] = "models/reward"
    code_version: ClassVar[int] = 1

    preferences: DatasetRef
    policy: ModelRef
    config: RewardConfig

    def make(self, session: Session) -> ModelRef:
        preferences = table_to_rows(session.store.read(self.preferences), Preference)
        examples = preference_examples(preferences)
        return run_training(self, session, self.config, examples, model=self.policy)


def preference_examples(preferences: list[Preference]) -> list[PreferenceExample]:
    """The usable preferences, in row order."""
    return [
        PreferenceExample(
            prompt=row.prompt,
            chosen=row.chosen,
            rejected=row.rejected,
            target_prob=row.target_prob,
            weight=row.weight,
        )
        for row in preferences
        if row.status == "ok"
    ]
