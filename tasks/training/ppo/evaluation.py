"""Measuring a policy on prompts that it is not trained on, each time with the same random numbers.

Two policies are then compared on the same prompts and the same luck, so that a few dozen prompts can tell them apart.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from tasks.training.config import Precision
from tasks.training.encode import load_tokenizer
from tasks.training.folders import load_scalar_model
from tasks.training.ppo.episodes import Episodes, Models, autocast, collect_episodes
from tasks.training.ppo.losses import penalise_missing_eos
from tasks.training.ppo.model import keep_frozen_in
from tasks.training.ppo.rollout import Sampler
from tasks.training.ranks import Ranks
from tasks.training.rl_config import PPOConfig
from tasks.training.scoring import load_scale, raw_scores

MOST = 10
"""At most one in so many prompts is set aside, however many are asked for."""

SCORES_REMEDY = "look at the reward model: its weights, its reward_scale.json, its precision"
HELD_OUT_REMEDY = "look at the held-out reward model: its weights, its reward_scale.json, its precision"
LEARNER_REMEDY = "lower the learning rates, or use precision float32"

Prompt = tuple[int, list[int]]
"""Its position among those given, and its ids."""


@dataclass(frozen=True)
class HeldOutReward:
    """A reward model that only measures."""

    model: PreTrainedModel
    mean: float
    std: float

    def scores(self, sequences: Sequence[Sequence[int]]) -> torch.Tensor:
        """(sequences,) standardised."""
        return (torch.tensor(raw_scores(self.model, sequences)) - self.mean) / self.std


def load_held_out_reward(folder: Path, models: Models, precision: Precision) -> HeldOutReward:
    """Raises: ValueError: it has no scale, or another vocabulary than the policy."""
    if load_tokenizer(folder).get_vocab() != models.tokenizer.get_vocab():
        raise ValueError(
            f"ppo: held-out reward model {folder} and the policy have different vocabularies, expected the same: "
            "train it from this policy"
        )
    model = load_scalar_model(folder).eval().requires_grad_(False)
    keep_frozen_in(precision, model)
    return HeldOutReward(model.to(models.device), *load_scale(folder))


def set_aside(prompts: Sequence[Prompt], count: int, seed: int) -> tuple[list[Prompt], list[Prompt]]:
    """(to train on, to measure on), each in order: `count` of them, but at most a tenth, by hash of ids and seed.

    Equal prompts go together, so that none that is measured on is trained on under another position.
    """
    count = min(count, len(prompts) // MOST)
    groups: dict[str, list[Prompt]] = {}
    for position, ids in prompts:
        key = hashlib.sha256(json.dumps([seed, ids]).encode()).hexdigest()
        groups.setdefault(key, []).append((position, ids))
    aside: set[int] = set()
    for _, group in sorted(groups.items()):
        if len(aside) + len(group) <= count:
            aside.update(position for position, _ in group)
    kept = [prompt for prompt in prompts if prompt[0] not in aside]
    return kept, [prompt for prompt in prompts if prompt[0] in aside]


def evaluate(
    models: Models,
    config: PPOConfig,
    prompts: Sequence[Prompt],
    uniforms: torch.Tensor,
    held_out: HeldOutReward | None,
    ranks: Ranks,
    sample: Sampler,
) -> dict[str, float | None]:
    """Means over one completion a prompt, drawn by `uniforms` (prompts, max_tokens).

    `score` and `held_out_score` (None without such a model) in standard deviations, less the penalty for a missing
    EOS; `kl` in nats an episode, `entropy` in nats a token, `num_tokens` a completion.

    Raises: FloatingPointError: a score or a probability is not finite.
    """
    count = len(prompts)
    rows = [i % count for i in range(-(-count // ranks.size) * ranks.size)]  # every process measures equally many
    given = [prompts[i][1] for i in rows]
    episodes = collect_episodes(models, config, given, uniforms[rows], 0.0, ranks, sample)
    check_finite(episodes)
    figures: dict[str, float | None] = {
        "score": _less_penalty(episodes.scores, episodes, config)[:count].mean().item(),
        "held_out_score": None,
        "kl": episodes.kl.sum(1)[:count].mean().item(),
        "num_tokens": episodes.mask.sum(1)[:count].float().mean().item(),
        "entropy": episodes.entropy,
    }
    if held_out:
        sequences = [a + b for a, b in zip(episodes.prompts, episodes.completions, strict=True)]
        with autocast(models.device, config.precision):
            mine = held_out.scores(ranks.share(sequences))
        scores = ranks.gather(mine)
        _require_finite(scores, "scores by the held-out reward model", HELD_OUT_REMEDY)
        figures["held_out_score"] = _less_penalty(scores, episodes, config)[:count].mean().item()
    return figures


def check_finite(episodes: Episodes) -> None:
    """Raises: FloatingPointError: a score, a probability or a value is not finite; says whose fault that is."""
    _require_finite(episodes.scores, "scores by the reward model", SCORES_REMEDY)
    _require_finite(episodes.kl[episodes.mask], "log-probabilities by the policy", LEARNER_REMEDY)
    _require_finite(episodes.values[episodes.mask], "values by the value model", LEARNER_REMEDY)


def _require_finite(figures: torch.Tensor, what: str, remedy: str) -> None:
    bad = figures[~figures.isfinite()]
    if len(bad):
        raise FloatingPointError(
            f"ppo: {len(bad)} of {len(figures)} {what} are not finite (the first is {bad[0].item()}); {remedy}"
        )


def _less_penalty(scores: torch.Tensor, episodes: Episodes, config: PPOConfig) -> torch.Tensor:
    return penalise_missing_eos(scores, episodes.ended, config.missing_eos_penalty)
