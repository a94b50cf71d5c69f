"""Sampling completions from the policy in process, with a key-value cache.

A completion depends on its prompt and on its own row of random numbers, not on who shares the batch (but for
rounding), so resuming needs no state of a generator.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch.nn.functional import pad
from transformers import PreTrainedModel

from tasks.training.batching import batches_by_length, pad_left
from tasks.training.ppo.cache import roomy_cache
from tasks.training.ppo.model import plain, tempered


class Samples(NamedTuple):
    """A completion a prompt, in order."""

    completions: list[list[int]]
    """Token ids, EOS included where it came."""
    figures: torch.Tensor | None = None
    """(batch, 2, max_tokens) float32: each token's log-probability, and the entropy of the distribution that it was
    drawn from, in nats; what follows the first EOS means nothing. None if another engine than the policy sampled."""


Sampler = Callable[[PreTrainedModel, Sequence[Sequence[int]], torch.Tensor, float, int], Samples]
"""What `sample_completions` is: (policy, prompts, uniforms, temperature, eos_token_id) to samples."""

TOKENS_PER_BATCH = 32_768  # bounds the cache, not the results
CACHE_AHEAD = 16  # tokens that the cache has room for beyond those it holds: what is dropped or grown is copied
SHRINK_BELOW = 0.8  # finished rows are dropped once fewer than this share still runs


@torch.no_grad()
def sample_completions(
    policy: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    uniforms: torch.Tensor,
    temperature: float,
    eos_token_id: int,
) -> Samples:
    """One completion a prompt, and what the policy thought of each token.

    `uniforms` (batch, max_tokens) float64 in [0, 1) decide each draw: token = first whose cumulative
    probability exceeds it.
    """
    completions: list[list[int]] = [[] for _ in prompts]
    room = uniforms.shape[1]
    figures = torch.zeros(len(prompts), 2, room)
    for batch in batches_by_length([len(prompt) + room for prompt in prompts], TOKENS_PER_BATCH):
        tokens, figures[batch] = _sample_batch(
            plain(policy), [prompts[i] for i in batch], uniforms[batch], temperature, eos_token_id
        )
        for i, row in zip(batch, tokens.tolist(), strict=True):
            completions[i] = row[: row.index(eos_token_id) + 1] if eos_token_id in row else row
    return Samples(completions, figures)


def _sample_batch(
    policy: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    uniforms: torch.Tensor,
    temperature: float,
    eos_token_id: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens (batch, max_tokens) and figures (batch, 2, max_tokens): what follows a row's first EOS means nothing."""
    ids, mask = (tensor.to(policy.device) for tensor in pad_left(prompts, eos_token_id))
    position = (mask.cumsum(1) - 1).clamp(min=0)
    cache = roomy_cache(policy.config, min(uniforms.shape[1], CACHE_AHEAD))
    rows = torch.arange(len(prompts))  # the rows that still run
    running = torch.ones(len(prompts), dtype=torch.bool)
    tokens = torch.full(uniforms.shape, eos_token_id)
    figures = torch.zeros(len(prompts), 2, uniforms.shape[1])
    for step in range(uniforms.shape[1]):
        states = policy.base_model(
            input_ids=ids, attention_mask=mask, position_ids=position, past_key_values=cache, use_cache=True
        ).last_hidden_state
        logits = tempered(policy.get_output_embeddings()(states[:, -1]), temperature)
        drawn, about = _draw(logits, uniforms[rows, step].to(logits.device))
        seen = drawn.cpu()
        tokens[rows[running], step], figures[rows, :, step] = seen[running], about.cpu()
        running &= seen != eos_token_id
        if not running.any():
            break
        ids, position, mask = drawn[:, None], position[:, -1:] + 1, pad(mask, (0, 1), value=1)
        if running.float().mean() < SHRINK_BELOW:
            kept = running.nonzero().squeeze(1)
            cache.batch_select_indices(kept.to(ids.device))
            ids, position, mask = (tensor[kept.to(ids.device)] for tensor in (ids, position, mask))
            rows, running = rows[kept], running[kept]
    return tokens, figures


def _draw(logits: torch.Tensor, uniform: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids (batch,) by inverse transform, and their figures (batch, 2); none of probability 0 is drawn."""
    logprobs = logits.log_softmax(-1)
    probabilities = logprobs.exp()
    cumulative = probabilities.cumsum(-1, dtype=torch.float64)
    threshold = uniform[:, None] * cumulative[:, -1:]
    drawn = torch.searchsorted(cumulative, threshold, right=True).clamp(max=logits.shape[1] - 1)
    entropies = -(probabilities * logprobs).sum(-1, keepdim=True)
    return drawn.squeeze(1), torch.cat([logprobs.gather(1, drawn), entropies], dim=1)
