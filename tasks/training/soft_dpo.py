"""TRL's DPO trainer with soft targets and our tokens. Importing this imports torch and TRL: do it inside a function."""

from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from torch.nn.functional import binary_cross_entropy_with_logits
from trl import DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

from tasks.training.soft_targets import SOFT_COLUMNS, SoftTargets, with_soft_columns


def dpo_margins(logprobs: torch.Tensor, reference_logprobs: torch.Tensor, beta: float) -> torch.Tensor:
    """(batch,) beta ((log pi_c - log ref_c) - (log pi_r - log ref_r)) of (2 batch,) sums over completions' tokens.

    Chosen ones come first. sigmoid of a margin is the policy's own P(chosen is better).
    """
    chosen, rejected = (logprobs - reference_logprobs).chunk(2)
    return beta * (chosen - rejected)


def soft_dpo_loss(margins: torch.Tensor, target_prob: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Mean of w (-p log s(m) - (1 - p) log s(-m)) over (batch,) margins; p = 1 is DPO as published (its equation 7).

    Divided by the number of rows, not by their weights, as `soft_preference_loss`.
    """
    return binary_cross_entropy_with_logits(margins, target_prob, weight)


@dataclass
class SoftPairCollator(DataCollatorForPreference):
    """Pads as TRL does, and keeps `target_prob` and `weight`, each (batch,)."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        return with_soft_columns(super().torch_call(examples), examples)


class SoftDPOTrainer(SoftTargets, DPOTrainer):
    """`DPOTrainer` on rows of token ids with `target_prob` and `weight`, whose last row is `blank_pair`.

    Figures: `accuracy` (share of decided labels whose side the policy takes; left out where none is decided),
    `margin`, and `chosen_logprob` and `rejected_logprob` (nats a completion). TRL's losses and figures are not kept.
    """

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset  # TRL would tokenise texts; these rows are what sampling produces, token by token

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        assert not return_outputs and num_items_in_batch is not None, "it trains, and measures elsewhere"
        inputs = dict(inputs)
        target_prob, weight = (inputs.pop(name) for name in SOFT_COLUMNS)
        reference = torch.cat(self.compute_ref_log_probs(self.ref_model or self.model, inputs))
        mask = inputs.pop("completion_mask")
        labels = inputs["input_ids"].masked_fill(mask == 0, -100)
        # the head is applied to completion tokens alone, in chunks: what TRL patched into the model
        logprobs = model(**inputs, labels=labels, fused_lm_head=True, use_cache=False).log_probs.sum(1)
        margins = dpo_margins(logprobs, reference, self.beta)
        chosen, rejected = logprobs.chunk(2)
        self._note(margins, target_prob, weight, chosen_logprob=chosen, rejected_logprob=rejected)
        return self._as_share(soft_dpo_loss(margins, target_prob, weight), len(weight), num_items_in_batch)


def blank_pair(eos: int) -> dict[str, Any]:
    """A comparison that weighs nothing (`InPasses`)."""
    return {"prompt_ids": [eos], "chosen_ids": [eos], "rejected_ids": [eos], "target_prob": 0.5, "weight": 0.0}
