"""The gradient of the whole PPO loss, policy and value model together, against finite differences in float64."""

import pytest
import torch
from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel

from tasks.training.ppo.episodes import Episodes, Models
from tasks.training.ppo.model import PolicyAndValue
from tasks.training.ppo.update import optimise, token_losses
from tasks.training.rl_config import PPOConfig

# one micro-batch, one step, no clipping of the gradient: a step of plain descent at rate 1 is the gradient
CONFIG = PPOConfig(
    num_updates=1,
    batch_size=4,
    mini_batch_size=4,
    micro_batch_size=4,
    max_grad_norm=1e12,
    clip_range=0.2,
    value_clip_range=0.2,
    temperature=0.8,
)
PROMPTS = [[5, 6], [7, 8, 9], [10], [11, 12, 13, 14]]
COMPLETIONS = [[15, 16, 3], [17, 3], [18, 19, 20, 21, 3], [22]]
STEP = 1e-6


@pytest.fixture
def models() -> Models:
    """GPT-2, because Llama computes its norms in float32 whatever its weights are in."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=32,
        n_positions=16,
        n_embd=16,
        n_layer=2,
        n_head=2,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        pad_token_id=0,
        num_labels=1,
        initializer_range=0.3,  # far from uniform, so that no direction is flat
    )
    learner = PolicyAndValue(GPT2LMHeadModel(config), GPT2ForSequenceClassification(config)).double()
    return Models(learner, learner.policy, learner.value, 0.0, 1.0, tokenizer=None)


@pytest.fixture
def episodes(models) -> Episodes:
    """Old figures lie so far from the model's that both clips hold some tokens and leave others."""
    lengths = torch.tensor([len(completion) for completion in COMPLETIONS])
    mask = torch.arange(5) < lengths[:, None]
    generator = torch.Generator().manual_seed(1)

    def noise(scale: float) -> torch.Tensor:
        return scale * torch.randn(mask.shape, dtype=torch.float64, generator=generator) * mask

    now, values = current(models)
    return Episodes(
        prompts=PROMPTS,
        completions=COMPLETIONS,
        mask=mask,
        logprobs=now + noise(0.4),
        values=values + noise(0.4),
        kl=torch.zeros_like(now),
        advantages=noise(1.0),
        returns=values + noise(1.0),
        scores=torch.zeros(4),
        ended=torch.ones(4, dtype=torch.bool),
        entropy=0.0,
    )


@torch.no_grad()
def current(models: Models) -> tuple[torch.Tensor, torch.Tensor]:
    """(log-probabilities, values) of the model, row by row, straight from the definition."""
    logprobs, values = torch.zeros(2, 4, 5, dtype=torch.float64)
    for row, (prompt, completion) in enumerate(zip(PROMPTS, COMPLETIONS, strict=True)):
        ids = torch.tensor([prompt + completion])
        everywhere = (models.learner.policy(ids).logits[0] / CONFIG.temperature).log_softmax(-1)
        states = models.learner.value.transformer(ids).last_hidden_state
        for t, token in enumerate(completion):
            before = len(prompt) + t - 1
            logprobs[row, t] = everywhere[before, token]
            values[row, t] = models.learner.value.score(states)[0, before, 0]
    return logprobs, values


def loss(models: Models, episodes: Episodes) -> float:
    """The mean over tokens that a step descends, worked out one token at a time."""
    logprobs, values = current(models)
    total = 0.0
    for row, completion in enumerate(COMPLETIONS):
        for t in range(len(completion)):
            ratio = (logprobs[row, t] - episodes.logprobs[row, t]).exp()
            gain = episodes.advantages[row, t]
            total += torch.maximum(-gain * ratio, -gain * ratio.clamp(0.8, 1.2)).item()
            value, old, target = values[row, t], episodes.values[row, t], episodes.returns[row, t]
            held = old + (value - old).clamp(-0.2, 0.2)
            total += 0.5 * max((value - target) ** 2, (held - target) ** 2).item()
    return total / sum(map(len, COMPLETIONS))


def gradient(models: Models, episodes: Episodes, config: PPOConfig = CONFIG) -> list[torch.Tensor]:
    """What a step of plain descent moves each parameter by; the parameters are put back."""
    before = [p.detach().clone() for p in models.learner.parameters()]
    optimise(models, torch.optim.SGD(models.learner.parameters(), lr=1.0), episodes, config, torch.Generator())
    with torch.no_grad():
        moved = [old - p for old, p in zip(before, models.learner.parameters(), strict=True)]
        for old, p in zip(before, models.learner.parameters(), strict=True):
            p.copy_(old)
    return moved


def test_whole_loss_gradient_equals_finite_differences(models, episodes):
    moved = gradient(models, episodes)
    generator = torch.Generator().manual_seed(2)
    for _ in range(8):
        direction = [torch.randn(g.shape, dtype=torch.float64, generator=generator) for g in moved]
        values = []
        for sign in (1, -1):
            shift(models, direction, sign * STEP)
            values.append(loss(models, episodes))
            shift(models, direction, -sign * STEP)
        measured = (values[0] - values[1]) / (2 * STEP)
        expected = sum((g * d).sum().item() for g, d in zip(moved, direction, strict=True))
        assert measured == pytest.approx(expected, rel=1e-5)


@torch.no_grad()
def shift(models: Models, direction: list[torch.Tensor], by: float) -> None:
    for p, d in zip(models.learner.parameters(), direction, strict=True):
        p += by * d


def test_gradient_check_has_clipped_and_free_tokens_of_both_kinds(models, episodes):
    """What the finite differences are taken of: without it the check could pass on a loss that never clips."""
    _, _, clipped = token_losses(models, episodes, [0, 1, 2, 3], CONFIG)
    assert 2 <= clipped.sum() <= 9
    _, values = current(models)
    old, mask = episodes.values, episodes.mask
    held = old + (values - old).clamp(-0.2, 0.2)
    by_held = ((held - episodes.returns) ** 2 > (values - episodes.returns) ** 2)[mask]
    assert 2 <= by_held.sum() <= 9


def test_gradient_of_micro_batches_is_that_of_the_whole_batch(models, episodes):
    whole = gradient(models, episodes)
    parts = gradient(models, episodes, CONFIG.model_copy(update={"micro_batch_size": 1}))
    assert all(torch.allclose(a, b, rtol=1e-12, atol=1e-14) for a, b in zip(whole, parts, strict=True))


def test_token_whose_clip_holds_has_no_gradient_in_the_policy(models, episodes):
    """With only clipped tokens kept and targets at the values, nothing moves."""
    surrogate, _, clipped = token_losses(models, episodes, [0, 1, 2, 3], CONFIG)
    surrogate[clipped].sum().backward()
    assert clipped.any()
    assert all(p.grad is None or not p.grad.any() for p in models.learner.policy.parameters())
