"""TRL's RLOO and GRPO trainers with our tokens and names. Importing this imports torch and TRL."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from tasks.training.folders import load_scalar_model
from tasks.training.ppo.episodes import autocast
from tasks.training.ppo.losses import penalise_missing_eos
from tasks.training.rl_config import GroupConfig
from tasks.training.scoring import load_scale, raw_scores

Metrics = dict[str, list[float]]
RewardFunction = Callable[..., list[float]]

NAMES = {
    "score": "score",
    "entropy": "entropy",
    "completions/mean_length": "num_tokens",
    "clip_ratio/region_mean": "clip_fraction",
    "frac_reward_zero_std": "tied_fraction",
    "step_time": "step_seconds",
}
"""TRL's name of a figure -> ours, which are PPO's where PPO has it. The others are not kept."""


def our_figures(metrics: Metrics) -> Metrics:
    """What TRL noted in a step under our names: one value each, and nothing of a step that noted nothing.

    `kl` is in nats a completion, as PPO's: TRL's mean a token times the mean length. `tied_fraction` is the share of
    prompts whose completions were all worth the same, so that nothing was learnt from them.
    """
    figures = {ours: [fmean(metrics[theirs])] for theirs, ours in NAMES.items() if metrics.get(theirs)}
    if metrics.get("kl"):
        figures["kl"] = [fmean(metrics["kl"]) * figures["num_tokens"][0]]
    if metrics.get("completions/clipped_ratio"):
        figures["eos_share"] = [1 - fmean(metrics["completions/clipped_ratio"])]
    return figures


class TokenPrompts:
    """What both trainers do our way: prompts are rows of token ids, and figures have our names."""

    _metrics: dict[str, Metrics]

    def _tokenize_prompts(self, prompts: list[list[int]]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return prompts, None, {}  # TRL would render and tokenise texts in its own way

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        self._metrics["train"] = defaultdict(list, our_figures(self._metrics["train"]))
        super().log(logs, start_time)  # type: ignore[misc]


class TokenRLOOTrainer(TokenPrompts, RLOOTrainer):
    """KL against the reference is taken off a completion's reward (k1, summed over its tokens)."""


class TokenGRPOTrainer(TokenPrompts, GRPOTrainer):
    """KL against the reference is a term of the loss (k3 a token); rewards are divided by their group's spread."""


TRAINERS = {"rloo": (TokenRLOOTrainer, RLOOConfig), "grpo": (TokenGRPOTrainer, GRPOConfig)}


def reward_function(reward: Path, eos: int, config: GroupConfig, device: torch.device) -> RewardFunction:
    """The reward model as TRL calls one: what completions are worth in units of its spread, those without EOS less."""
    mean, std = load_scale(reward)
    model = load_scalar_model(reward).to(device).eval().requires_grad_(False)

    def reward_model(
        prompts: Sequence[list[int]],
        completion_ids: Sequence[list[int]],
        log_metric: Callable[[str, float], None],
        **_: Any,
    ) -> list[float]:
        sequences = [prompt + completion for prompt, completion in zip(prompts, completion_ids, strict=True)]
        with autocast(device, config.precision):
            scores = (torch.tensor(raw_scores(model, sequences)) - mean) / std
        if not scores.isfinite().all():
            raise FloatingPointError(
                f"reward model {reward.name}: {(~scores.isfinite()).sum()} of {len(scores)} scores are not finite; "
                "train it anew with a lower reward.learning_rate"
            )
        log_metric("score", scores.mean().item())  # as PPO's: before the penalty
        ended = torch.tensor([completion[-1] == eos for completion in completion_ids])
        return penalise_missing_eos(scores, ended, config.missing_eos_penalty).tolist()

    return reward_model
