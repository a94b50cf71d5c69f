"""The arithmetic of PPO: pure functions of tensors.

Shapes: `(batch, time)` over the tokens of completions, padded at the end, with a bool `mask` that is True on
real tokens (EOS included); `(tokens,)` where those tokens are packed into one row. Losses come back a token,
not averaged, so that micro-batches and processes with unequal numbers of tokens add up to the same mean.
"""

from typing import Literal

import torch


def kl_penalty(
    logprobs: torch.Tensor, reference_logprobs: torch.Tensor, estimator: Literal["k1", "k3"]
) -> torch.Tensor:
    """A token's estimate of KL(policy || reference) in nats, same shape, from tokens the policy sampled.

    k1 = log p - log q is unbiased; k3 = q/p - 1 - log(q/p) is too, and never negative (Schulman 2020).
    """
    log_ratio = reference_logprobs - logprobs
    return -log_ratio if estimator == "k1" else log_ratio.exp() - 1 - log_ratio


def penalise_missing_eos(scores: torch.Tensor, ended: torch.Tensor, penalty: float) -> torch.Tensor:
    """Scores (batch,) less `penalty` where a completion did not end (`ended` is False)."""
    return scores - penalty * (~ended).float()


def token_rewards(scores: torch.Tensor, kl: torch.Tensor, mask: torch.Tensor, kl_coef: float) -> torch.Tensor:
    """(batch, time): -kl_coef * kl a token, and at the last the score (batch,): r = r_PM - lambda KL."""
    rewards = -kl_coef * kl * mask
    last = mask.sum(1) - 1
    rewards[torch.arange(len(scores), device=scores.device), last] += scores
    return rewards


def gae(
    rewards: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, gamma: float, lam: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Advantages and returns (batch, time), generalised advantage estimation (Schulman et al. 2016, eq. 16).

    delta_t = r_t + gamma V_{t+1} - V_t, A_t = delta_t + gamma lam A_{t+1}, return_t = A_t + V_t. A completion
    ends at its last token: what follows is worth 0. Zero where masked.
    """
    values = values * mask
    advantage = torch.zeros_like(values[:, 0])
    next_value = torch.zeros_like(advantage)
    advantages = torch.zeros_like(values)
    for t in reversed(range(values.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        advantage = (delta + gamma * lam * advantage) * mask[:, t]
        advantages[:, t] = advantage
        next_value = values[:, t]
    return advantages, advantages + values


def masked_mean(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean over real tokens, a scalar."""
    return (x * mask).sum() / mask.sum()


def whiten(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Shifted and scaled to mean 0 and variance 1 over real tokens; zero where masked."""
    mean = masked_mean(x, mask)
    variance = masked_mean((x - mean) ** 2, mask)
    return (x - mean) * torch.rsqrt(variance + 1e-8) * mask


def policy_loss(
    logprobs: torch.Tensor, old_logprobs: torch.Tensor, advantages: torch.Tensor, clip_range: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Clipped surrogate max(-A ratio, -A clip(ratio)), (Schulman et al. 2017, eq. 7), and where clipping won.

    Both of the shape of the arguments, the second bool.
    """
    ratio = (logprobs - old_logprobs).exp()
    free = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - clip_range, 1 + clip_range)
    return torch.maximum(free, clipped), clipped > free


def value_loss(
    values: torch.Tensor, old_values: torch.Tensor, returns: torch.Tensor, clip_range: float
) -> torch.Tensor:
    """Half the squared error of the value or of the value held near the old one, whichever is larger."""
    held = torch.clamp(values, old_values - clip_range, old_values + clip_range)
    return 0.5 * torch.maximum((values - returns) ** 2, (held - returns) ** 2)


def explained_variance(values: torch.Tensor, returns: torch.Tensor, mask: torch.Tensor) -> float:
    """1 - Var(return - value) / Var(return) over real tokens: 1 is perfect, 0 no better than a constant."""
    error = (returns - values)[mask]
    return (1 - error.var(unbiased=False) / returns[mask].var(unbiased=False).clamp(min=1e-8)).item()


def adapt_kl_coef(kl_coef: float, kl: float, target_kl: float, num_episodes: int, horizon: int) -> float:
    """The coefficient after an update with mean `kl` an episode (Ziegler et al. 2019, section 2.2).

    Moves in proportion to the relative error, which is held within 0.2 either way.
    """
    error = max(-0.2, min(0.2, kl / target_kl - 1))
    return kl_coef * (1 + error * num_episodes / horizon)
