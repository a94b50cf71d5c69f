"""TRL's reward trainer with soft targets. Importing this imports torch and TRL: do it inside a function."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from trl import RewardTrainer
from trl.trainer.reward_trainer import DataCollatorForPreference

from tasks.training.soft_targets import SOFT_COLUMNS, SoftTargets, with_soft_columns

HEAD = "score"
"""What transformers calls the scalar head of a causal model."""


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
        return with_soft_columns(super().torch_call(examples), examples)


class SoftRewardTrainer(SoftTargets, RewardTrainer):
    """`RewardTrainer` whose rows carry `target_prob` and `weight`, and whose last row is `blank_row`.

    Figures: `accuracy` (share of decided labels whose side scores higher), `margin` and `mean_reward`.
    """

    def __init__(self, *args: Any, head_learning_rate: float | None = None, **kwargs: Any) -> None:
        self.head_learning_rate = head_learning_rate
        super().__init__(*args, **kwargs)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """With `head_learning_rate`, the head is a group of its own."""
        made = self.optimizer is not None
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        if not made and self.head_learning_rate is not None:
            named = (self.model if model is None else model).named_parameters()
            split_off(optimizer, [p for name, p in named if HEAD in name.split(".")], self.head_learning_rate)
        return optimizer

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        assert not return_outputs and num_items_in_batch is not None, "it trains, and measures elsewhere"
        inputs = dict(inputs)
        target_prob, weight = (inputs.pop(name) for name in SOFT_COLUMNS)
        logits = model(**inputs, use_cache=False).logits
        chosen, rejected = logits.squeeze(-1).float().chunk(2)
        loss = soft_preference_loss(chosen, rejected, target_prob, weight, self.args.center_rewards_coefficient)
        self._note(chosen - rejected, target_prob, weight, mean_reward=(chosen + rejected) / 2)
        self._total_train_tokens += int(self.accelerator.gather(inputs["attention_mask"].sum()).sum())
        self._metrics["train"]["num_tokens"] = [self._total_train_tokens]
        return self._as_share(loss, len(weight), num_items_in_batch)


def split_off(optimizer: torch.optim.Optimizer, parameters: Sequence[torch.Tensor], learning_rate: float) -> None:
    """Give those of the parameters that the optimizer trains a group of their own, with this rate."""
    wanted = {id(parameter) for parameter in parameters}
    taken = [p for group in optimizer.param_groups for p in group["params"] if id(p) in wanted]
    for group in optimizer.param_groups:
        group["params"] = [p for p in group["params"] if id(p) not in wanted]
    optimizer.add_param_group({"params": taken, "lr": learning_rate, "weight_decay": 0.0})


def blank_row(eos: int) -> dict[str, Any]:
    """A comparison that weighs nothing."""
    return {"chosen_ids": [eos], "rejected_ids": [eos], "target_prob": 0.5, "weight": 0.0}
