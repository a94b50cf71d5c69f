"""From prompts to what an update learns from: completions, scores, KL, values, advantages."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tasks.training.batching import chunks_by_length, pad_right, spans_mask
from tasks.training.config import Precision
from tasks.training.encode import load_tokenizer
from tasks.training.folders import load_policy, load_scalar_model, training_device
from tasks.training.ppo.losses import gae, kl_penalty, penalise_missing_eos, token_rewards, whiten
from tasks.training.ppo.model import (
    PolicyAndValue,
    check_plain_head,
    disable_dropout,
    response_logits,
    token_entropies,
    token_logprobs,
)
from tasks.training.ppo.rollout import sample_completions
from tasks.training.rl_config import PPOConfig
from tasks.training.scoring import load_scale, raw_scores

FORWARD_FACTOR = 4  # without gradients so many more episodes fit a pass


@dataclass(frozen=True)
class Models:
    """Everything an update computes with. Only `learner` learns."""

    learner: PolicyAndValue
    reference: PreTrainedModel
    reward: PreTrainedModel
    score_mean: float
    score_std: float
    tokenizer: PreTrainedTokenizerBase

    @property
    def device(self) -> torch.device:
        return self.reference.device


@dataclass(frozen=True)
class Episodes:
    """One update's episodes. Tensors are (batch, time) over completion tokens unless said otherwise."""

    prompts: list[list[int]]
    completions: list[list[int]]
    mask: torch.Tensor
    logprobs: torch.Tensor
    values: torch.Tensor
    kl: torch.Tensor
    """k1 estimate a token, whatever estimator the penalty uses."""
    advantages: torch.Tensor
    """Whitened over the batch."""
    returns: torch.Tensor
    scores: torch.Tensor
    """(batch,) standardised, before the penalty for a missing EOS."""
    ended: torch.Tensor
    """(batch,) bool."""
    entropy: float
    """Mean over tokens, nats."""


def load_models(policy: Path, reward: Path) -> Models:
    """Policy and reference model from `policy`; reward and value model from `reward`, the latter's head zeroed.

    Raises: ValueError: the reward model has no scale or another vocabulary, or the policy's head is special.
    """
    tokenizer = load_tokenizer(policy)
    if load_tokenizer(reward).get_vocab() != tokenizer.get_vocab():
        raise ValueError(
            f"ppo: reward model {reward} and policy {policy} have different vocabularies, expected the same: "
            "train the reward model from this policy"
        )
    device = training_device()
    learner = PolicyAndValue(load_policy(policy), load_scalar_model(reward)).to(device)
    torch.nn.init.zeros_(learner.value.score.weight)
    disable_dropout(learner)
    reference = load_policy(policy).to(device).eval().requires_grad_(False)
    check_plain_head(reference)
    reward_model = load_scalar_model(reward).to(device).eval().requires_grad_(False)
    return Models(learner, reference, reward_model, *load_scale(reward), tokenizer)


def collect_episodes(
    models: Models, config: PPOConfig, prompts: list[list[int]], uniforms: torch.Tensor, kl_coef: float
) -> Episodes:
    """Sample a completion a prompt and work out its advantages. `uniforms` as in `sample_completions`."""
    eos = models.tokenizer.eos_token_id
    models.learner.eval()  # in training mode, gradient checkpointing would drop the key-value cache
    with autocast(models.device, config.precision):
        completions = sample_completions(models.learner.policy, prompts, uniforms, config.temperature, eos)
        sequences = [prompt + completion for prompt, completion in zip(prompts, completions, strict=True)]
        raw = torch.tensor(raw_scores(models.reward, sequences))
        measured = _measure_tokens(models, config, prompts, completions)
    logprobs, reference_logprobs, values, entropies, mask = measured
    scores = (raw - models.score_mean) / models.score_std
    ended = torch.tensor([completion[-1] == eos for completion in completions])
    penalty = kl_penalty(logprobs, reference_logprobs, config.kl_estimator)
    final = penalise_missing_eos(scores, ended, config.missing_eos_penalty)
    rewards = token_rewards(final, penalty, mask, kl_coef)
    advantages, returns = gae(rewards, values, mask, config.gamma, config.lam)
    return Episodes(
        prompts=prompts,
        completions=completions,
        mask=mask,
        logprobs=logprobs,
        values=values,
        kl=(logprobs - reference_logprobs) * mask,
        advantages=whiten(advantages, mask),
        returns=returns,
        scores=scores,
        ended=ended,
        entropy=(entropies[mask].mean()).item(),
    )


def padded_batch(
    prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]], pad: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids (batch, seq) of prompt and completion, padded at the right, and where completion tokens are."""
    ids = pad_right([[*prompt, *completion] for prompt, completion in zip(prompts, completions, strict=True)], pad)
    starts = [len(prompt) for prompt in prompts]
    ends = [start + len(completion) for start, completion in zip(starts, completions, strict=True)]
    return ids, spans_mask(starts, ends, ids.shape[1])


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Compute in bfloat16 where the config says so; weights stay float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")


@torch.no_grad()
def _measure_tokens(
    models: Models, config: PPOConfig, prompts: list[list[int]], completions: list[list[int]]
) -> tuple[torch.Tensor, ...]:
    """(logprobs, reference logprobs, values, entropies, mask), each (batch, time), on the CPU.

    Log-probabilities are recomputed with the training pass: an update's first ratio is then exactly 1.
    """
    lengths = torch.tensor([len(completion) for completion in completions])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    columns = torch.zeros((4, *mask.shape))
    totals = [len(prompt) + len(completion) for prompt, completion in zip(prompts, completions, strict=True)]
    for rows in chunks_by_length(totals, FORWARD_FACTOR * config.micro_batch_size):
        ids, response = padded_batch(
            [prompts[i] for i in rows], [completions[i] for i in rows], models.reward.config.pad_token_id
        )
        ids, response = ids.to(models.device), response.to(models.device)
        logits, values = models.learner(ids, response, config.temperature)
        reference = response_logits(models.reference, ids, response, config.temperature)
        tokens = ids[response]
        packed = (
            token_logprobs(logits, tokens),
            token_logprobs(reference, tokens),
            values,
            token_entropies(logits),
        )
        for column, flat in zip(columns, packed, strict=True):
            padded = torch.zeros(len(rows), mask.shape[1])
            padded[mask[rows]] = flat.float().cpu()
            column[rows] = padded
    return (*columns, mask)
