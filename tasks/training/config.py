"""What the trainers of the SL policy and of the reward model may be told; `rl_config` has the others.

Defaults are the paper's (arXiv 2212.08073, and 2204.05862 to which it refers) where it gives one; each field
says so, and calls the rest practice: what other people's runs on models of about 7B parameters use.
Learning rates are practice throughout, because the paper states them relative to an unpublished one.
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from tasks.schema import Settings

Precision = Literal["float32", "bfloat16"]


class TrainerConfig(Settings):
    """What every trainer may be told about memory, precision and resume points."""

    micro_batch_size: int = Field(default=8, ge=1)
    """Rows a forward pass and process; bounds memory. It changes results only by rounding."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are scaled down to this norm; of PPO the policy's and the value model's, each. Practice."""
    precision: Precision = "float32"
    """What is computed in and saved; trained weights and optimizer state stay float32 while training."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    lora_rank: int = Field(default=0, ge=0)
    """Train adapters of this rank on every linear layer instead of all weights; 0: all weights. The paper: all."""
    lora_alpha: int = Field(default=0, ge=0)
    """Scale of the adapters: they count alpha / rank. 0: twice the rank. Practice."""
    checkpoint_every: int = Field(default=50, ge=1)
    """Optimizer steps (of PPO: updates) between resume points. It does not change results."""


class PolicyTrainerConfig(TrainerConfig):
    """What every trainer of a policy may be told besides."""

    keep_every: int = Field(default=0, ge=0)
    """Optimizer steps (of PPO: updates) between policies that are kept as models of their own, to be evaluated beside
    the result; each takes the room of a model. 0: none."""


class SFTConfig(PolicyTrainerConfig):
    """Supervised finetuning on revisions and helpful completions (section 3.1)."""

    epochs: int = Field(default=1, ge=1)
    """Passes over the examples. Paper: 1."""
    learning_rate: float = Field(default=1e-5, gt=0, le=1)
    """Constant. Practice; the paper takes half the pretraining rate, also constant. With LoRA take about ten times."""
    batch_size: int = Field(default=1024, ge=1)
    """Sequences an optimizer step, over all devices. Paper: 1024."""
    max_tokens: int = Field(default=1024, ge=8)
    """Longer rows (prompt, completion and end of turn) are left out and counted. Practice."""
    packing: bool = False
    """Fill rows of `max_tokens` with several examples that do not see each other: less padding. A batch then counts
    such rows, so the result is another one."""

    @model_validator(mode="after")
    def _batches_divide(self) -> Self:
        check_divides(self.batch_size, "batch_size", self.micro_batch_size, "micro_batch_size")
        return self


class RewardConfig(TrainerConfig):
    """The reward model, fitted to soft preference labels (section 4.1)."""

    epochs: int = Field(default=1, ge=1)
    """Passes over the comparisons. Paper: 1."""
    learning_rate: float = Field(default=1e-5, gt=0, le=1)
    """Constant. Practice; the paper takes a hundredth of the pretraining rate."""
    head_learning_rate: float | None = Field(default=None, gt=0, le=1)
    """Of the scalar head, constant. Empty: as the body's. The head starts at random where the body only adapts: about
    ten times the body's rate lets it use what the body already tells apart. Practice."""
    batch_size: int = Field(default=64, ge=1)
    """Comparisons an optimizer step, over all devices, two sequences each. Practice."""
    max_tokens: int = Field(default=1024, ge=8)
    """A comparison with a longer side is left out and counted. Paper: 1024."""
    center_coefficient: float = Field(default=0.01, ge=0)
    """Weight of (r_chosen + r_rejected)^2, which keeps scores near zero. Practice (TRL's suggestion)."""
    held_out_fraction: float = Field(default=0.1, ge=0, lt=1)
    """Share of the *prompts* whose comparisons are only measured; drawn by seed. Practice."""
    second_model_share: float = Field(default=0.0, ge=0, lt=1)
    """Share of the prompts whose comparisons train a second reward model instead of this one. It never trains a
    policy: it shows when one is over-optimised, and chooses the best checkpoint. 2204.05862 (section 4.2) takes
    half for that experiment; 0: no second model."""

    @model_validator(mode="after")
    def _batches_divide(self) -> Self:
        check_divides(self.batch_size, "batch_size", self.micro_batch_size, "micro_batch_size")
        return self


def check_divides(whole: int, whole_name: str, part: int, part_name: str) -> None:
    """Raises: ValueError: names both settings."""
    if whole % part:
        raise ValueError(f"{whole_name} is {whole}, expected a multiple of {part_name} ({part})")
