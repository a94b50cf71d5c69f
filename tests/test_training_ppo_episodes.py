"""What an update learns from, against the definitions: scores, log-probabilities and returns of given completions."""

import pytest
import torch

from tasks.training.encode import encode_prompt
from tasks.training.ppo.episodes import Models, collect_episodes, load_models, padded_batch
from tasks.training.ppo.model import final_scores
from tasks.training.ppo.rollout import Samples
from tasks.training.scoring import raw_scores
from tests.ppo_ranks import CONFIG, EOS, PROMPTS, make_models

COMPLETIONS = [[30, 31, EOS], [32, EOS], [33, 34, 35, 36, 37, 38], [39, 40, 41, EOS]]


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Models:
    return load_models(*make_models(tmp_path_factory.mktemp("episodes")), CONFIG)


@pytest.fixture(scope="module")
def prompts(models) -> list[list[int]]:
    return [encode_prompt(models.tokenizer, prompt) for prompt in PROMPTS[:4]]


def collect(models, prompts, **changes):
    config = CONFIG.model_copy(update=changes)
    given = torch.zeros(4, 6, dtype=torch.float64)
    return collect_episodes(models, config, prompts, given, 0.1, sample=lambda *_: Samples(COMPLETIONS))


def test_scores_are_those_of_whole_conversations_standardised(models, prompts):
    expected = raw_scores(models.reward, [p + c for p, c in zip(prompts, COMPLETIONS, strict=True)])
    scores = collect(models, prompts).scores
    assert scores.tolist() == pytest.approx(
        [(raw - models.score_mean) / models.score_std for raw in expected], rel=1e-4
    )


def test_score_is_read_at_the_last_token_even_if_that_is_the_padding_token(models):
    pad = models.reward.config.pad_token_id
    alone, response = padded_batch([[9, 10]], [[11, pad]], pad)
    longer, both = padded_batch([[9, 10], [9]], [[11, pad], [12, 13, 14, 15, 16]], pad)
    assert final_scores(models.reward, longer, both)[0].item() == pytest.approx(
        final_scores(models.reward, alone, response)[0].item(), rel=1e-5
    )
    hidden = models.reward.model(alone).last_hidden_state[0, -1]
    assert final_scores(models.reward, alone, response)[0].item() == pytest.approx(
        models.reward.score(hidden).item(), rel=1e-5
    )


def test_values_start_as_standardised_scores_of_the_text_before_the_token(models, prompts):
    values = collect(models, prompts).values
    for row, (prompt, completion) in enumerate(zip(prompts, COMPLETIONS, strict=True)):
        raw = raw_scores(models.reward, [prompt + completion[:t] for t in range(len(completion))])
        expected = [(score - models.score_mean) / models.score_std for score in raw]
        assert values[row, : len(completion)].tolist() == pytest.approx(expected, rel=1e-4)


def test_logprobs_and_entropy_are_those_of_each_row_alone(models, prompts):
    episodes = collect(models, prompts)
    entropies = []
    for row, (prompt, completion) in enumerate(zip(prompts, COMPLETIONS, strict=True)):
        logits = models.learner.policy(torch.tensor([prompt + completion])).logits[0].double() / CONFIG.temperature
        for t, token in enumerate(completion):
            logprobs = logits[len(prompt) + t - 1].log_softmax(-1)
            assert episodes.logprobs[row, t].item() == pytest.approx(logprobs[token].item(), abs=1e-4)
            entropies.append(-(logprobs.exp() * logprobs).sum().item())
    assert episodes.entropy == pytest.approx(sum(entropies) / len(entropies), abs=1e-4)
    assert not episodes.logprobs[~episodes.mask].any()


def given_by_sampler(models, prompts, precision):
    """Episodes of a sampler whose figures nobody could mistake, and these."""
    figures = torch.rand((4, 2, 6), generator=torch.Generator().manual_seed(0)) - 50
    config = CONFIG.model_copy(update={"precision": precision})
    given = torch.zeros(4, 6, dtype=torch.float64)
    samples = Samples(COMPLETIONS, figures)
    return collect_episodes(models, config, prompts, given, 0.1, sample=lambda *_: samples), figures


def test_logprobs_and_entropy_are_what_the_policy_said_while_it_sampled(models, prompts):
    episodes, figures = given_by_sampler(models, prompts, "float32")
    assert torch.equal(episodes.logprobs[episodes.mask], figures[:, 0][episodes.mask])
    assert episodes.entropy == pytest.approx(figures[:, 1][episodes.mask].mean().item())
    assert episodes.kl[episodes.mask].max() < -20


def test_logprobs_of_a_policy_that_sampled_in_bfloat16_are_measured_again(models, prompts):
    """There a step with a cache rounds otherwise than a whole pass, and the first ratio would not be 1."""
    episodes, _ = given_by_sampler(models, prompts, "bfloat16")
    measured = collect(models, prompts, precision="bfloat16")
    assert torch.equal(episodes.logprobs, measured.logprobs) and episodes.entropy == measured.entropy > 0


def test_completion_without_eos_loses_the_penalty_in_every_return(models, prompts):
    """Nothing is discounted and no value stands in for what follows, so each token of the third row loses 0.75."""
    free = collect(models, prompts, missing_eos_penalty=0.0, lam=1.0)
    strict = collect(models, prompts, missing_eos_penalty=0.75, lam=1.0)
    assert free.ended.tolist() == [True, True, False, True]
    lost = free.returns - strict.returns
    expected = torch.zeros(4, 6)
    expected[2] = 0.75
    assert torch.allclose(lost, expected, atol=1e-5)
    assert torch.equal(free.scores, strict.scores)


def test_advantages_are_whitened_over_real_tokens_alone(models, prompts):
    episodes = collect(models, prompts)
    real = episodes.advantages[episodes.mask]
    assert len(real) == sum(map(len, COMPLETIONS))
    assert real.mean().item() == pytest.approx(0, abs=1e-5)
    assert real.var(unbiased=False).item() == pytest.approx(1, abs=1e-4)
    assert not episodes.advantages[~episodes.mask].any()


@pytest.mark.parametrize("completions", [COMPLETIONS[:3], [*COMPLETIONS[:3], []]])
def test_sampler_that_loses_a_completion_is_refused(models, prompts, completions):
    with pytest.raises(ValueError, match="for 4 prompts, expected one of at least a token each"):
        collect_episodes(models, CONFIG, prompts, torch.zeros(4, 6), 0.1, sample=lambda *_: Samples(completions))
