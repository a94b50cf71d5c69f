"""One update's optimisation: several passes of clipped steps over the same episodes."""

from collections import defaultdict

import torch
from torch import nn

from tasks.training.batching import chunks_by_length
from tasks.training.ppo.episodes import Episodes, Models, autocast, padded_batch
from tasks.training.ppo.losses import explained_variance, policy_loss, value_loss
from tasks.training.ppo.model import PolicyAndValue, token_logprobs
from tasks.training.rl_config import PPOConfig


def make_optimizer(learner: PolicyAndValue, config: PPOConfig) -> torch.optim.Optimizer:
    """AdamW without decay; policy and value model have their own rates."""
    groups = [
        {"params": list(learner.policy.parameters()), "lr": config.learning_rate},
        {"params": list(learner.value.parameters()), "lr": config.value_learning_rate},
    ]
    return torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=0.0, fused=True)


def optimise(
    models: Models,
    optimizer: torch.optim.Optimizer,
    episodes: Episodes,
    config: PPOConfig,
    shuffle: torch.Generator,
) -> dict[str, float]:
    """Learn from the episodes; returns means over all tokens and steps.

    Raises: FloatingPointError: a gradient is not finite.
    """
    totals: dict[str, float] = defaultdict(float)
    models.learner.train()  # for gradient checkpointing alone: dropout is off for good
    for _ in range(config.num_epochs):
        order = torch.randperm(len(episodes.prompts), generator=shuffle)
        for rows in order.split(config.mini_batch_size):
            _add(totals, _step(models, optimizer, episodes, rows.tolist(), config))
    tokens, steps = totals["tokens"], totals["steps"]
    return {
        "policy_loss": totals["policy_loss"] / tokens,
        "value_loss": totals["value_loss"] / tokens,
        "clip_fraction": totals["clipped"] / tokens,
        "grad_norm_policy": totals["grad_norm_policy"] / steps,
        "grad_norm_value": totals["grad_norm_value"] / steps,
        "explained_variance": explained_variance(episodes.values, episodes.returns, episodes.mask),
    }


def _step(
    models: Models,
    optimizer: torch.optim.Optimizer,
    episodes: Episodes,
    rows: list[int],
    config: PPOConfig,
) -> dict[str, float]:
    """One optimizer step on the mean over the rows' tokens, accumulated over micro-batches of like length."""
    num_tokens = int(episodes.mask[rows].sum())
    sums: dict[str, float] = defaultdict(float)
    lengths = [len(episodes.prompts[i]) + len(episodes.completions[i]) for i in rows]
    for chunk in chunks_by_length(lengths, config.micro_batch_size):
        _add(sums, _backward(models, episodes, [rows[i] for i in chunk], config, num_tokens))
    norms = [
        nn.utils.clip_grad_norm_(part.parameters(), config.max_grad_norm, error_if_nonfinite=False).item()
        for part in (models.learner.policy, models.learner.value)
    ]
    if not all(norm < float("inf") for norm in norms):
        raise FloatingPointError(
            f"ppo: gradient norms are {norms[0]} (policy) and {norms[1]} (value), expected finite ones; "
            "lower the learning rates, or use precision float32"
        )
    optimizer.step()
    optimizer.zero_grad()
    return {
        **sums,
        "tokens": num_tokens,
        "steps": 1,
        "grad_norm_policy": norms[0],
        "grad_norm_value": norms[1],
    }


def _backward(
    models: Models, episodes: Episodes, rows: list[int], config: PPOConfig, num_tokens: int
) -> dict[str, float]:
    """Add the gradient of the rows' loss, summed over tokens and divided by `num_tokens`; returns sums."""
    ids, response = padded_batch(
        [episodes.prompts[i] for i in rows],
        [episodes.completions[i] for i in rows],
        models.reward.config.pad_token_id,
    )
    ids, response = ids.to(models.device), response.to(models.device)
    old, old_values, advantages, returns = (
        column[rows][episodes.mask[rows]].to(models.device)
        for column in (episodes.logprobs, episodes.values, episodes.advantages, episodes.returns)
    )
    with autocast(models.device, config.precision):
        logits, values = models.learner(ids, response, config.temperature)
    surrogate, clipped = policy_loss(token_logprobs(logits, ids[response]), old, advantages, config.clip_range)
    errors = value_loss(values, old_values, returns, config.value_clip_range)
    ((surrogate.sum() + errors.sum()) / num_tokens).backward()
    return {
        "policy_loss": surrogate.sum().item(),
        "value_loss": errors.sum().item(),
        "clipped": clipped.sum().item(),
    }


def _add(totals: dict[str, float], part: dict[str, float]) -> None:
    for name, value in part.items():
        totals[name] += value
