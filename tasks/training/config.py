"""What the three trainers may be told.

Defaults are the paper's (arXiv 2212.08073, and 2204.05862 to which it refers) where it gives one; each field
says so, and calls the rest practice: what other people's runs on models of about 7B parameters use.
Learning rates are practice throughout, because the paper states them relative to an unpublished one.
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from tasks.schema import Frozen

Precision = Literal["float32", "bfloat16"]


class SFTConfig(Frozen):
    """Supervised finetuning on revisions and helpful completions (section 3.1)."""

    epochs: int = Field(default=1, ge=1)
    """Passes over the examples. Paper: 1."""
    learning_rate: float = Field(default=1e-5, gt=0)
    """Constant. Practice; the paper takes half the pretraining rate, also constant."""
    batch_size: int = Field(default=1024, ge=1)
    """Sequences an optimizer step, over all devices. Paper: 1024."""
    micro_batch_size: int = Field(default=8, ge=1)
    """Sequences a forward pass; bounds memory. It changes results only by rounding."""
    max_tokens: int = Field(default=1024, ge=8)
    """Longer rows (prompt, completion and end of turn) are left out and counted. Practice."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are scaled down to this norm. Practice."""
    precision: Precision = "float32"
    """What is computed in and saved; weights and optimizer state stay float32 while training."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""

    @model_validator(mode="after")
    def _batches_divide(self) -> Self:
        _check_divides(self.batch_size, "batch_size", self.micro_batch_size, "micro_batch_size")
        return self


class RewardConfig(Frozen):
    """The reward model, fitted to soft preference labels (section 4.1)."""

    epochs: int = Field(default=1, ge=1)
    """Passes over the comparisons. Paper: 1."""
    learning_rate: float = Field(default=1e-5, gt=0)
    """Constant. Practice; the paper takes a hundredth of the pretraining rate."""
    batch_size: int = Field(default=64, ge=1)
    """Comparisons an optimizer step, over all devices. Practice."""
    micro_batch_size: int = Field(default=8, ge=1)
    """Comparisons a forward pass, two sequences each; bounds memory."""
    max_tokens: int = Field(default=1024, ge=8)
    """A comparison with a longer side is left out and counted. Paper: 1024."""
    center_coefficient: float = Field(default=0.01, ge=0)
    """Weight of (r_chosen + r_rejected)^2, which keeps scores near zero. Practice (TRL's suggestion)."""
    held_out_fraction: float = Field(default=0.1, ge=0, lt=1)
    """Share of the *prompts* whose comparisons are only measured; drawn by seed. Practice."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are scaled down to this norm. Practice."""
    precision: Precision = "float32"
    """What is computed in and saved; weights and optimizer state stay float32 while training."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""

    @model_validator(mode="after")
    def _batches_divide(self) -> Self:
        _check_divides(self.batch_size, "batch_size", self.micro_batch_size, "micro_batch_size")
        return self


class PPOConfig(Frozen):
    """Reinforcement learning against the reward model (section 4.1)."""

    num_updates: int = Field(default=1000, ge=1)
    """Rounds of sampling and optimising. Practice."""
    batch_size: int = Field(default=512, ge=2)
    """Episodes an update, over all devices. Practice."""
    mini_batch_size: int = Field(default=128, ge=1)
    """Episodes an optimizer step. Practice."""
    micro_batch_size: int = Field(default=8, ge=1)
    """Episodes a forward pass; bounds memory. It changes results only by rounding."""
    num_epochs: int = Field(default=1, ge=1)
    """Passes over an update's episodes. Paper: 1, 2 or 4."""
    learning_rate: float = Field(default=1e-6, gt=0)
    """Of the policy, constant. Practice; the paper takes a hundredth of the pretraining rate."""
    value_learning_rate: float = Field(default=5e-6, gt=0)
    """Of the value model, constant. Practice."""
    kl_coef: float = Field(default=0.001, ge=0)
    """Weight of the KL penalty against the SL policy, per nat. Paper: 0.001; practice: 0.01 to 0.1."""
    kl_estimator: Literal["k1", "k3"] = "k1"
    """Per-token penalty: k1 = log p/q, unbiased; k3 = q/p - 1 - log q/p, never negative."""
    target_kl: float | None = Field(default=None, gt=0)
    """Nats an episode; if set, `kl_coef` is only the start and adapts towards it. Practice."""
    kl_horizon: int = Field(default=10_000, ge=1)
    """Episodes over which the adaptive coefficient reacts. Practice."""
    clip_range: float = Field(default=0.2, gt=0, lt=1)
    """How far the probability ratio may move before its gradient stops. Paper: 0.2."""
    value_clip_range: float = Field(default=0.2, gt=0)
    """How far a value may move from the one at sampling time, in standardised reward. Practice."""
    gamma: float = Field(default=1.0, gt=0, le=1)
    """Discount a token. Paper: 1."""
    lam: float = Field(default=0.95, ge=0, le=1)
    """Lambda of generalised advantage estimation. Practice."""
    max_tokens: int = Field(default=128, ge=1)
    """Longest completion. Paper: 128."""
    max_prompt_tokens: int = Field(default=1024, ge=1)
    """Prompts longer than this are left out and counted. Practice."""
    temperature: float = Field(default=1.0, gt=0)
    """Of sampling, and of the probabilities that are trained. Paper: 1."""
    missing_eos_penalty: float = Field(default=1.0, ge=0)
    """Taken off the score of a completion that did not end, in standardised reward. Practice."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Policy's and value model's gradients are each scaled down to this norm. Practice."""
    checkpoint_every: int = Field(default=10, ge=1)
    """Updates between resume points. It does not change results."""
    rollouts_kept: int = Field(default=8, ge=0)
    """Episodes of each update whose text is written out."""
    precision: Precision = "float32"
    """What is computed in and saved; weights and optimizer state stay float32 while training."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""

    @model_validator(mode="after")
    def _batches_divide(self) -> Self:
        _check_divides(self.batch_size, "batch_size", self.mini_batch_size, "mini_batch_size")
        return self


def _check_divides(whole: int, whole_name: str, part: int, part_name: str) -> None:
    if whole % part:
        raise ValueError(f"{whole_name} is {whole}, expected a multiple of {part_name} ({part})")
