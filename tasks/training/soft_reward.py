"""TRL's reward trainer with soft targets. Importing this imports torch and TRL: do it inside a function."""

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from trl import RewardTrainer
from trl.trainer.reward_trainer import DataCollatorForPreference


def soft_preference_loss(
    chosen: torch.Tensor, rejected: torch.Tensor, target_prob: torch.Tensor, center_coefficient: float
) -> torch.Tensor:
    """Mean of -p log s(r_c - r_r) - (1 - p) log s(r_r - r_c) + c (r_c + r_r)^2 over (batch,) scores."""
    loss = binary_cross_entropy_with_logits(chosen - rejected, target_prob)
    return loss + center_coefficient * ((chosen + rejected) ** 2).mean()


@dataclass
class SoftPreferenceCollator(DataCollatorForPreference):
    """Pads as TRL does, and keeps `target_prob` (batch,)."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = super().torch_call(examples)
        batch["target_prob"] = torch.tensor([example["target_prob"] for example in examples])
        return batch


class SoftRewardTrainer(RewardTrainer):
    """`RewardTrainer` whose rows carry `target_prob`. TRL's metrics stay; its `accuracy` reads p as 1."""

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        if "target_prob" not in self._signature_columns:
            self._signature_columns.append("target_prob")

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        inputs = dict(inputs)
        target_prob = inputs.pop("target_prob")
        _, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        chosen, rejected = outputs.logits.squeeze(-1).float().chunk(2)
        loss = soft_preference_loss(chosen, rejected, target_prob, self.args.center_rewards_coefficient)
        return (loss, outputs) if return_outputs else loss
