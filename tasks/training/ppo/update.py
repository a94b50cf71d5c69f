"""One update's optimisation: several passes of clipped steps over the same episodes."""

import torch
from torch import nn

from tasks.training.batching import chunks_by_length
from tasks.training.ppo.episodes import Episodes, Models, autocast, padded_batch
from tasks.training.ppo.losses import explained_variance, policy_loss, value_loss
from tasks.training.ppo.model import PolicyAndValue, token_logprobs
from tasks.training.ranks import ALONE, Ranks
from tasks.training.rl_config import PPOConfig


def make_optimizer(learner: PolicyAndValue, config: PPOConfig) -> torch.optim.Optimizer:
    """AdamW without decay, of what is trained; policy and value model have their own rates."""
    groups = [
        {"params": [p for p in part.parameters() if p.requires_grad], "lr": rate}
        for part, rate in ((learner.policy, config.learning_rate), (learner.value, config.value_learning_rate))
    ]
    return torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=0.0, fused=True)


def optimise(
    models: Models,
    optimizer: torch.optim.Optimizer,
    episodes: Episodes,
    config: PPOConfig,
    shuffle: torch.Generator,
    ranks: Ranks = ALONE,
) -> dict[str, float]:
    """Learn from the episodes; returns means over all tokens and steps.

    Raises: FloatingPointError: a gradient is not finite.
    """
    sums = torch.zeros(3, dtype=torch.float64, device=models.device)  # read once at the end: a GPU need not wait
    num_tokens, norms = 0, list[tuple[float, float]]()
    models.learner.train()  # for gradient checkpointing alone: dropout is off for good
    for _ in range(config.num_epochs):
        order = torch.randperm(len(episodes.prompts), generator=shuffle)
        for rows in order.split(config.mini_batch_size):
            tokens = int(episodes.mask[rows].sum())
            sums += _accumulate(models, episodes, rows.tolist(), config, tokens, ranks)
            norms.append(_step(models.learner, optimizer, config.max_grad_norm, ranks))
            num_tokens += tokens
    policy_sum, value_sum, num_clipped = ranks.add(sums.tolist())
    return {
        "policy_loss": policy_sum / num_tokens,
        "value_loss": value_sum / num_tokens,
        "clip_fraction": num_clipped / num_tokens,
        "grad_norm_policy": sum(policy for policy, _ in norms) / len(norms),
        "grad_norm_value": sum(value for _, value in norms) / len(norms),
        "explained_variance": explained_variance(episodes.values, episodes.returns, episodes.mask),
    }


def token_losses(
    models: Models, episodes: Episodes, rows: list[int], config: PPOConfig
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(policy losses, value losses, whether clipping won), each (tokens,) over the rows' completions."""
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
    return surrogate, value_loss(values, old_values, returns, config.value_clip_range), clipped


def _accumulate(
    models: Models, episodes: Episodes, rows: list[int], config: PPOConfig, num_tokens: int, ranks: Ranks
) -> torch.Tensor:
    """Add the gradient of this process's part of the rows' mean loss; returns its sums of losses and of clipped tokens.

    Of rows of like length each process takes one, so that all have about as many tokens; the mean is over the tokens
    of all of them.
    """
    lengths = [len(prompt) + len(done) for prompt, done in zip(episodes.prompts, episodes.completions, strict=True)]
    mine = ranks.share(sorted(rows, key=lengths.__getitem__))
    sums = torch.zeros(3, dtype=torch.float64, device=models.device)
    for chunk in chunks_by_length([lengths[i] for i in mine], config.micro_batch_size):
        losses = token_losses(models, episodes, [mine[i] for i in chunk], config)
        ((losses[0].sum() + losses[1].sum()) / num_tokens).backward()
        sums += torch.stack([column.detach().sum() for column in losses])
    return sums


def _step(
    learner: PolicyAndValue, optimizer: torch.optim.Optimizer, max_grad_norm: float, ranks: Ranks
) -> tuple[float, float]:
    """Step along everybody's gradients, cut to the norm; returns the norms that policy and value model had."""
    ranks.add_gradients(learner.parameters())
    policy, value = (
        nn.utils.clip_grad_norm_(part.parameters(), max_grad_norm, error_if_nonfinite=False).item()
        for part in (learner.policy, learner.value)
    )
    if not (policy < float("inf") and value < float("inf")):
        raise FloatingPointError(
            f"ppo: gradient norms are {policy} (policy) and {value} (value), expected finite ones; "
            "lower the learning rates, or use precision float32"
        )
    optimizer.step()
    optimizer.zero_grad()
    return policy, value
