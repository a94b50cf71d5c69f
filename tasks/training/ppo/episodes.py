"""From prompts to what an update learns from: completions, scores, KL, values, advantages."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tasks.training.batching import chunks_by_length, pad_right, spans_mask
from tasks.training.config import Precision, check_divides
from tasks.training.encode import load_tokenizer
from tasks.training.folders import load_policy, load_scalar_model, training_device
from tasks.training.ppo.losses import gae, kl_penalty, penalise_missing_eos, token_rewards, whiten
from tasks.training.ppo.model import (
    PolicyAndValue,
    check_plain_head,
    disable_dropout,
    final_scores,
    keep_frozen_in,
    plain,
    response_logits,
    token_logprobs,
    token_logprobs_and_entropies,
    with_adapters,
)
from tasks.training.ppo.rollout import Sampler, Samples, sample_completions
from tasks.training.ppo.unpadded import take_rows
from tasks.training.ranks import ALONE, Ranks
from tasks.training.rl_config import PPOConfig
from tasks.training.scoring import load_scale

FORWARD_FACTOR = 4
"""Without gradients so many times more episodes fit a pass."""


@dataclass(frozen=True)
class Models:
    """Everything an update computes with. Only `learner` learns."""

    learner: PolicyAndValue
    reference: PreTrainedModel
    """With adapters the policy itself: ask it `as_reference`."""
    reward: PreTrainedModel
    score_mean: float
    score_std: float
    tokenizer: PreTrainedTokenizerBase

    @property
    def device(self) -> torch.device:
        return self.reward.device

    def as_reference(self) -> AbstractContextManager[object]:
        """Within it the reference is one, also where it is the policy under its adapter."""
        return self.reference.disable_adapter() if self.reference is self.learner.policy else nullcontext()


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


def load_models(policy: Path, reward: Path, config: PPOConfig, ranks: Ranks = ALONE) -> Models:
    """Policy and reference model from `policy`, reward and value model from `reward`.

    Values start as the reward model's standardised scores of the text so far, which have the returns' unit. With
    adapters only they and the value head are trained, and the reference is the policy without its own. What is frozen
    keeps its linear layers in `config.precision`. Seed torch before: half of each adapter is drawn.

    Raises: ValueError: the reward model has no scale or another vocabulary, the policy's head is special, or the
    batches cannot be shared among the processes.
    """
    check_shares(config, ranks)
    tokenizer = load_tokenizer(policy)
    if load_tokenizer(reward).get_vocab() != tokenizer.get_vocab():
        raise ValueError(
            f"ppo: reward model {reward} and policy {policy} have different vocabularies, expected the same: "
            "train the reward model from this policy"
        )
    learner = _load_learner(policy, reward, config)
    reference = learner.policy if config.lora_rank else load_policy(policy).eval().requires_grad_(False)
    reward_model = load_scalar_model(reward).eval().requires_grad_(False)
    for model in (learner.policy, learner.value, reference, reward_model):
        take_rows(plain(model))
    for model in (learner, reference, reward_model):
        keep_frozen_in(config.precision, model)
        model.to(training_device())
    return Models(learner, reference, reward_model, *load_scale(reward), tokenizer)


def check_shares(config: PPOConfig, ranks: Ranks) -> None:
    """Raises: ValueError: a batch cannot be cut in equal shares."""
    check_divides(config.batch_size, "ppo: batch_size", ranks.size, "the number of processes")
    check_divides(config.mini_batch_size, "ppo: mini_batch_size", ranks.size, "the number of processes")


def collect_episodes(
    models: Models,
    config: PPOConfig,
    prompts: list[list[int]],
    uniforms: torch.Tensor,
    kl_coef: float,
    ranks: Ranks = ALONE,
    sample: Sampler = sample_completions,
) -> Episodes:
    """Sample a completion a prompt and work out its advantages. `uniforms` as in `sample_completions`.

    Each process samples and measures its share; then all have all, so that advantages are whitened over all tokens.
    """
    eos, room = models.tokenizer.eos_token_id, uniforms.shape[1]
    mine = ranks.share(range(len(prompts)))
    assert len(mine) * ranks.size == len(prompts), "processes must measure equally many"
    models.learner.eval()  # in training mode, gradient checkpointing would drop the key-value cache
    own_prompts = [prompts[i] for i in mine]
    with autocast(models.device, config.precision):
        own = sample(models.learner.policy, own_prompts, uniforms[mine], config.temperature, eos)
        _check_completions(own.completions, len(mine))
        raw, measured = _measure(models, config, own_prompts, own, room)
    completions = ranks.gather_sequences(own.completions, room)
    lengths = torch.tensor([len(completion) for completion in completions])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    columns = ranks.gather(measured)[..., : mask.shape[1]].movedim(1, 0).contiguous()
    logprobs, entropies, reference_logprobs, values = columns
    scores = (ranks.gather(raw) - models.score_mean) / models.score_std
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


def _check_completions(completions: list[list[int]], num_prompts: int) -> None:
    lengths = [len(completion) for completion in completions]
    if len(lengths) != num_prompts or 0 in lengths:
        raise ValueError(
            f"ppo: the sampler returned completions of {lengths} tokens for {num_prompts} prompts, "
            "expected one of at least a token each"
        )


def _load_learner(policy: Path, reward: Path, config: PPOConfig) -> PolicyAndValue:
    policy_model, value_model = load_policy(policy), load_scalar_model(reward)
    mean, std = load_scale(reward)
    value_model.score.weight.data.div_(std)
    check_plain_head(policy_model)
    learner = PolicyAndValue(
        with_adapters(policy_model, config, "CAUSAL_LM"), with_adapters(value_model, config, "SEQ_CLS"), mean / std
    )
    disable_dropout(learner)
    return learner


@torch.no_grad()
def _measure(
    models: Models, config: PPOConfig, prompts: list[list[int]], samples: Samples, room: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Raw scores (batch,), and (batch, 4, room) by token: logprobs, entropies, reference logprobs, values.

    Log-probabilities and entropies are those of the training model: what it said while it sampled, or, where another
    engine sampled or bfloat16 rounds a step with a cache otherwise than a whole pass, those of another pass.
    """
    completions = samples.completions
    known = samples.figures if config.precision == "float32" else None
    scores, figures = torch.zeros(len(prompts)), torch.zeros(len(prompts), 4, room)
    totals = [len(prompt) + len(completion) for prompt, completion in zip(prompts, completions, strict=True)]
    for rows in chunks_by_length(totals, FORWARD_FACTOR * config.micro_batch_size):
        ids, response = padded_batch(
            [prompts[i] for i in rows], [completions[i] for i in rows], models.reward.config.pad_token_id
        )
        ids, response = ids.to(models.device), response.to(models.device)
        scores[rows] = final_scores(models.reward, ids, response).cpu()
        taken = torch.arange(room) < torch.tensor([len(completions[i]) for i in rows])[:, None]
        own = _by_policy(models, config, ids, response) if known is None else known[rows].movedim(1, 2)[taken]
        with models.as_reference():
            logits = response_logits(models.reference, ids, response, config.temperature)
        others = torch.stack((token_logprobs(logits, ids[response]), models.learner.values(ids, response)), dim=1)
        padded = torch.zeros(len(rows), 4, room)
        padded.movedim(1, 2)[taken] = torch.cat((own.cpu(), others.cpu()), dim=1)
        figures[rows] = padded
    return scores, figures


def _by_policy(models: Models, config: PPOConfig, ids: torch.Tensor, response: torch.Tensor) -> torch.Tensor:
    """(tokens, 2): log-probability and entropy, by a pass like those of training."""
    logits = response_logits(models.learner.policy, ids, response, config.temperature)
    return torch.stack(token_logprobs_and_entropies(logits, ids[response]), dim=1)
