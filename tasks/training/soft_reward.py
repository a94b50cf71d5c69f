"""TRL's reward trainer with soft targets. Importing this imports torch and TRL: do it inside a function."""

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from trl import RewardTrainer
from trl.trainer.reward_trainer import DataCollatorForPreference

SOFT_COLUMNS = ("target_prob", "weight")
"""What a row has beside the tokens that TRL knows of."""


def soft_preference_loss(
    chosen: torch.Tensor,
    rejected: torch.Tensor,
    target_prob: torch.Tensor,
    weight: torch.Tensor,
    center_coefficient: float,
) -> torch.Tensor:
    """Mean of w (-p log s(r_c - r_r) - (1 - p) log s(r_r - r_c) + c (r_c + r_r)^2) over (batch,) scores.

    Divided by the number of rows, not by their weights: those have mean 1 over all rows, and a batch that happens to
    hold only light rows must move the model less.
    """
    loss = binary_cross_entropy_with_logits(chosen - rejected, target_prob, weight)
    return loss + center_coefficient * (weight * (chosen + rejected) ** 2).mean()


@dataclass
class SoftPreferenceCollator(DataCollatorForPreference):
    """Pads as TRL does, and keeps `target_prob` and `weight`, each (batch,)."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = super().torch_call(examples)
        for name in SOFT_COLUMNS:
            batch[name] = torch.tensor([example[name] for example in examples])
        return batch


class SoftRewardTrainer(RewardTrainer):
    """`RewardTrainer` whose rows carry `target_prob` and `weight`. TRL's metrics stay; its `accuracy` reads p as 1."""

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        self._signature_columns += [name for name in SOFT_COLUMNS if name not in self._signature_columns]

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        inputs = dict(inputs)
        target_prob, weight = (inputs.pop(name) for name in SOFT_COLUMNS)
        _, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        chosen, rejected = outputs.logits.squeeze(-1).float().chunk(2)
        loss = soft_preference_loss(chosen, rejected, target_prob, weight, self.args.center_rewards_coefficient)
        return (loss, outputs) if return_outputs else loss
