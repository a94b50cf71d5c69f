"""How good a policy is after PPO: its score and its distance from the SL policy on fresh samples, the same way for all.

Every policy is sampled on the same prompts with the same random numbers, scored by the reward model that trained it,
and measured by plain forward passes over whole sequences.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

from tasks.training.rl_config import PPOConfig

BATCH_SIZE = 64


class Outcome(NamedTuple):
    """Means over the samples."""

    score: float
    """In standard deviations, less the penalty for a missing EOS."""
    kl: float
    """k1 estimate a completion, nats, against the SL policy."""
    ended: float
    """Share that ended by itself."""
    num_tokens: float
    scores: tuple[float, ...] = ()
    """Of each sample, in the order of the prompts."""


def outcome(
    policy: Path, sl: Path, reward: Path, prompts: Sequence[list[int]], config: PPOConfig, seed: int
) -> Outcome:
    """One completion a prompt, sampled from the model in `policy` and measured against the one in `sl`."""
    import torch
    from transformers.utils import logging

    from tasks.training.encode import load_tokenizer
    from tasks.training.folders import load_policy, load_scalar_model
    from tasks.training.ppo.rollout import sample_completions
    from tasks.training.scoring import load_scale, raw_scores

    logging.disable_progress_bar()
    generator = torch.Generator().manual_seed(seed)
    uniforms = torch.rand((len(prompts), config.max_tokens), dtype=torch.float64, generator=generator)
    model, reference, eos = load_policy(policy).eval(), load_policy(sl).eval(), load_tokenizer(sl).eos_token_id
    completions = sample_completions(model, prompts, uniforms, config.temperature, eos).completions
    sequences = [prompt + completion for prompt, completion in zip(prompts, completions, strict=True)]
    center, std = load_scale(reward)
    raw = torch.tensor(raw_scores(load_scalar_model(reward).eval(), sequences))
    ended = torch.tensor([float(completion[-1] == eos) for completion in completions])
    scores = (raw - center) / std - config.missing_eos_penalty * (1 - ended)
    starts = [len(prompt) for prompt in prompts]
    ours, theirs = (
        torch.tensor(list(logprobs(network, sequences, starts, config.temperature))) for network in (model, reference)
    )
    return Outcome(
        score=scores.mean().item(),
        kl=(ours - theirs).mean().item(),
        ended=ended.mean().item(),
        num_tokens=sum(map(len, completions)) / len(completions),
        scores=tuple(scores.tolist()),
    )


def difference(ours: Outcome, theirs: Outcome) -> tuple[float, float]:
    """Our score less theirs over the same prompts, and half of its 95 % interval (normal, paired)."""
    pairs = [a - b for a, b in zip(ours.scores, theirs.scores, strict=True)]
    return mean(pairs), 1.96 * stdev(pairs) / len(pairs) ** 0.5


def logprobs(
    model: object, sequences: Sequence[list[int]], starts: Sequence[int], temperature: float
) -> Iterator[float]:
    """Of each sequence from its start on, in order."""
    import torch

    for first in range(0, len(sequences), BATCH_SIZE):
        rows = [torch.tensor(ids) for ids in sequences[first : first + BATCH_SIZE]]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        with torch.no_grad():
            logits = model(input_ids=ids, use_cache=False).logits[:, :-1].double() / temperature  # type: ignore[operator]
        tokens = logits.log_softmax(-1).gather(2, ids[:, 1:, None]).squeeze(2)
        for row, start in enumerate(starts[first : first + BATCH_SIZE]):
            yield tokens[row, start - 1 : len(rows[row]) - 1].sum().item()
