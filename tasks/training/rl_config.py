"""What the second phase may be told: PPO as in the paper, or one of three alternatives (section 4.1).

Where a default comes from is said as in `config`.
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from tasks.schema import Settings
from tasks.training.config import PolicyTrainerConfig, check_divides

Algorithm = Literal["ppo", "rloo", "grpo", "dpo"]


class StopRules(Settings):
    """When PPO ends early. What was learnt until then is not lost: the result is the best policy measured before.
    One that breaks a rule by itself is never the result.

    Every rule looks at the mean of the last `window` updates.
    """

    window: int = Field(default=3, ge=1)
    """Updates that are averaged, so that one odd update stops nothing."""
    max_kl: float = Field(default=50.0, gt=0)
    """Nats an episode away from the SL policy. The paper's runs end near 10 to 30."""
    min_entropy: float = Field(default=0.02, ge=0)
    """Nats a token: below, the policy says one thing only."""
    max_length_ratio: float = Field(default=2.0, gt=1)
    """Tokens a completion, against the SL policy's: above, the reward model is taken in by length."""
    max_reward_gap: float = Field(default=1.0, gt=0)
    """How much more the score by the reward model that trains may have risen than the score by the one that does not,
    in standard deviations, over the measurements within the window. Needs `reward.second_model_share`."""


class PPOConfig(PolicyTrainerConfig):
    """PPO against the reward model, with a KL penalty (section 4.1)."""

    num_updates: int = Field(default=1000, ge=1)
    """Rounds of sampling and optimising. Practice."""
    batch_size: int = Field(default=512, ge=2)
    """Episodes an update, over all devices. Practice."""
    mini_batch_size: int = Field(default=128, ge=1)
    """Episodes an optimizer step, over all devices. Practice."""
    num_epochs: int = Field(default=1, ge=1)
    """Passes over an update's episodes. Paper: 1, 2 or 4."""
    learning_rate: float = Field(default=1e-6, gt=0, le=1)
    """Of the policy, constant. Practice; the paper takes a hundredth of the pretraining rate."""
    value_learning_rate: float = Field(default=5e-6, gt=0, le=1)
    """Of the value model, constant. Practice."""
    kl_coef: float = Field(default=0.001, ge=0)
    """Weight of the KL penalty against the SL policy, per nat. Paper: 0.001; practice: 0.01 to 0.1."""
    kl_estimator: Literal["k1", "k3"] = "k1"
    """Per-token penalty: k1 = log p/q, unbiased; k3 = q/p - 1 - log q/p, never negative."""
    target_kl: float | None = Field(default=None, gt=0)
    """Nats an episode: `kl_coef` is only the start and adapts towards it. Empty: it stays as it is. Practice."""
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
    temperature: float = Field(default=1.0, gt=0, le=10)
    """Of sampling, and of the probabilities that are trained. Paper: 1."""
    missing_eos_penalty: float = Field(default=1.0, ge=0)
    """Taken off the score of a completion that did not end, in standardised reward. Practice."""
    rollouts: Literal["in_process", "vllm"] = "in_process"
    """Who samples: the trained policy itself, or a vLLM server that gets its weights before every update."""
    rollout_memory_share: float = Field(default=0.3, gt=0, lt=1)
    """Share of a GPU's memory that such a server takes; the trainer has the rest. It does not change results."""
    rollouts_kept: int = Field(default=8, ge=0)
    """Episodes of each update whose text is written out."""
    eval_every: int = Field(default=10, ge=1)
    """Updates between measurements on prompts that are not trained on; the best policy measured is the result."""
    eval_prompts: int = Field(default=64, ge=0)
    """Prompts set aside for that, drawn by seed; 0: none, and the last policy is the result."""
    rules: StopRules = StopRules()
    """When to end early."""
    checkpoint_every: int = Field(default=10, ge=1)
    """Updates between resume points. It does not change results."""

    @model_validator(mode="after")
    def _batches_divide(self) -> Self:
        check_divides(self.batch_size, "batch_size", self.mini_batch_size, "mini_batch_size")
        return self


class GroupConfig(PolicyTrainerConfig):
    """RLOO and GRPO: several completions a prompt, each compared with the others instead of with a value model."""

    num_steps: int = Field(default=1000, ge=1)
    """Optimizer steps, each on freshly sampled completions. Practice."""
    batch_size: int = Field(default=512, ge=2)
    """Completions a step, over all devices. Practice."""
    group_size: int = Field(default=4, ge=2)
    """Completions of one prompt. Practice: 2 to 16."""
    learning_rate: float = Field(default=1e-6, gt=0, le=1)
    """Constant. Practice."""
    kl_coef: float = Field(default=0.05, ge=0)
    """Weight of the KL penalty against the SL policy. Practice: 0.05 (RLOO), 0 to 0.05 (GRPO)."""
    clip_range: float = Field(default=0.2, gt=0, lt=1)
    """How far the probability ratio may move before its gradient stops. Practice."""
    max_tokens: int = Field(default=128, ge=1)
    """Longest completion. As PPO's."""
    max_prompt_tokens: int = Field(default=1024, ge=1)
    """Prompts longer than this are left out and counted. Practice."""
    temperature: float = Field(default=1.0, gt=0, le=10)
    """Of sampling. As PPO's."""
    missing_eos_penalty: float = Field(default=1.0, ge=0)
    """Taken off the score of a completion that did not end, in standardised reward. As PPO's."""

    @model_validator(mode="after")
    def _batches_divide(self) -> Self:
        check_divides(self.batch_size, "batch_size", self.group_size, "group_size")
        check_divides(self.batch_size, "batch_size", self.micro_batch_size, "micro_batch_size")
        return self


class DPOConfig(PolicyTrainerConfig):
    """DPO on the preferences themselves (Rafailov et al. 2023): no reward model, nothing sampled."""

    epochs: int = Field(default=1, ge=1)
    """Passes over the comparisons. Practice: 1 to 3."""
    learning_rate: float = Field(default=5e-7, gt=0, le=1)
    """Constant. Practice."""
    batch_size: int = Field(default=64, ge=1)
    """Comparisons an optimizer step, over all devices, two sequences each. Practice."""
    beta: float = Field(default=0.1, gt=0)
    """How strongly the policy is held to the SL policy. Practice: 0.1."""
    soft_labels: bool = True
    """The loss is the cross entropy to P(chosen is better), as of the reward model; else every label counts as sure."""
    max_tokens: int = Field(default=1024, ge=8)
    """A comparison with a longer side is left out and counted. As the reward model's."""

    @model_validator(mode="after")
    def _batches_divide(self) -> Self:
        check_divides(self.batch_size, "batch_size", self.micro_batch_size, "micro_batch_size")
        return self


class RLConfig(Settings):
    """How the policy learns from AI feedback."""

    algorithm: Algorithm = "ppo"
    """Paper: PPO. RLOO and GRPO learn from the same reward model, DPO from the preferences without one."""
    helpful_share: float | None = Field(default=None, ge=0, le=1)
    """Share of helpful prompts among those trained on: the kind that there is too much of is cut, by hash of the
    prompt. Empty: every prompt there is."""
    num_rounds: int = Field(default=1, ge=1)
    """Rounds of the whole second phase. In every further one the newest policy's completions are compared and
    labelled, and reward model and policy are trained anew on all rounds' labels (2204.05862, section 4.5)."""
    ppo: PPOConfig = PPOConfig()
    """How PPO trains, where it is the algorithm."""
    group: GroupConfig = GroupConfig()
    """How RLOO and GRPO train, where one of them is the algorithm."""
    dpo: DPOConfig = DPOConfig()
    """How DPO trains, where it is the algorithm."""

    @model_validator(mode="after")
    def _rounds_need_a_reward_model(self) -> Self:
        if self.num_rounds > 1 and self.algorithm == "dpo":
            raise ValueError(f"num_rounds is {self.num_rounds}, expected 1 for dpo: it has no reward model")
        return self

    @property
    def section(self) -> Literal["ppo", "group", "dpo"]:
        """The name of the chosen algorithm's settings: the others change nothing."""
        return "group" if self.algorithm in ("rloo", "grpo") else self.algorithm  # type: ignore[return-value]

    @property
    def trainer(self) -> PPOConfig | GroupConfig | DPOConfig:
        """The chosen algorithm's settings."""
        return {"ppo": self.ppo, "group": self.group, "dpo": self.dpo}[self.section]  # type: ignore[return-value]
