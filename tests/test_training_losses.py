"""PPO's arithmetic against numbers worked out by hand."""

import math

import pytest
import torch

from tasks.training.ppo.losses import (
    adapt_kl_coef,
    explained_variance,
    gae,
    kl_penalty,
    penalise_missing_eos,
    policy_loss,
    token_rewards,
    value_loss,
    whiten,
)

MASK = torch.tensor([[True, True, True], [True, False, False]])


def close(actual: torch.Tensor, expected: object) -> bool:
    return torch.allclose(actual, torch.tensor(expected), atol=1e-6)


def test_gae_two_lengths_matches_hand_computation():
    rewards = torch.tensor([[0.0, 1.0, 2.0], [3.0, 9.0, 9.0]])
    values = torch.tensor([[0.5, 1.0, 1.5], [1.0, 7.0, 7.0]])
    advantages, returns = gae(rewards, values, MASK, gamma=0.9, lam=0.5)
    # row 0, backwards: 2 - 1.5 = 0.5; 1 + .9*1.5 - 1 + .45*0.5 = 1.575; 0 + .9*1 - .5 + .45*1.575 = 1.10875
    assert close(advantages, [[1.10875, 1.575, 0.5], [2.0, 0.0, 0.0]])
    assert close(returns, [[1.60875, 2.575, 2.0], [3.0, 0.0, 0.0]])


def test_gae_lambda_one_gives_reward_to_go():
    rewards = torch.tensor([[0.1, 0.2, 4.0]])
    _, returns = gae(rewards, torch.randn(1, 3), MASK[:1], gamma=1.0, lam=1.0)
    assert close(returns, [[4.3, 4.2, 4.0]])


def test_gae_padding_has_no_influence():
    rewards, values = torch.randn(1, 3), torch.randn(1, 3)
    mask = torch.tensor([[True, True, False]])
    full, _ = gae(rewards, values, mask, 0.9, 0.8)
    cut, _ = gae(rewards[:, :2], values[:, :2], mask[:, :2], 0.9, 0.8)
    assert torch.equal(full[:, :2], cut)


def test_token_rewards_put_score_on_last_real_token():
    kl = torch.tensor([[1.0, -1.0, 2.0], [3.0, 5.0, 5.0]])
    rewards = token_rewards(torch.tensor([10.0, 20.0]), kl, MASK, kl_coef=0.1)
    assert close(rewards, [[-0.1, 0.1, 9.8], [19.7, 0.0, 0.0]])


def test_kl_penalty_k1_is_log_ratio_and_k3_is_never_negative():
    logprobs, reference = torch.log(torch.tensor([0.5, 0.2])), torch.log(torch.tensor([0.25, 0.4]))
    assert close(kl_penalty(logprobs, reference, "k1"), [math.log(2), -math.log(2)])
    assert close(kl_penalty(logprobs, reference, "k3"), [0.5 - 1 + math.log(2), 2 - 1 - math.log(2)])


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_kl_penalty_mean_over_samples_is_the_divergence(estimator):
    p, q = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.2, 0.5, 0.3])
    estimates = kl_penalty(p.log(), q.log(), estimator)
    assert (p * estimates).sum().item() == pytest.approx((p * (p / q).log()).sum().item(), abs=1e-6)


def test_policy_loss_clips_only_where_it_holds_back():
    old = torch.zeros(4)
    new = torch.log(torch.tensor([1.5, 0.5, 1.5, 0.5]))
    losses, clipped = policy_loss(new, old, torch.tensor([1.0, 1.0, -1.0, -1.0]), clip_range=0.2)
    # good token grown past 1.2: held; good token shrunk: free; bad token grown: free; bad shrunk past 0.8: held
    assert close(losses, [-1.2, -0.5, 1.5, 0.8])
    assert clipped.tolist() == [True, False, False, True]


def test_policy_loss_clipped_token_has_no_gradient():
    new = torch.log(torch.tensor([1.5, 1.1])).requires_grad_()
    policy_loss(new, torch.zeros(2), torch.ones(2), clip_range=0.2)[0].sum().backward()
    assert close(new.grad, [0.0, -1.1])


def test_value_loss_takes_the_larger_of_free_and_held():
    losses = value_loss(
        values=torch.tensor([2.0, 2.0, 0.1]),
        old_values=torch.tensor([0.0, 0.0, 0.0]),
        returns=torch.tensor([2.0, 0.0, 1.0]),
        clip_range=0.5,
    )
    assert close(losses, [0.5 * 1.5**2, 0.5 * 2.0**2, 0.5 * 0.9**2])


def test_whiten_ignores_masked_tokens():
    x = torch.tensor([[1.0, 2.0, 3.0], [6.0, 100.0, -100.0]])
    white = whiten(x, MASK)
    std = math.sqrt((4 + 1 + 0 + 9) / 4)
    assert close(white, [[-2 / std, -1 / std, 0.0], [3 / std, 0.0, 0.0]])


def test_missing_eos_is_penalised_once():
    scores = penalise_missing_eos(torch.tensor([1.0, 1.0]), torch.tensor([True, False]), 0.75)
    assert scores.tolist() == [1.0, 0.25]


def test_explained_variance_of_perfect_and_constant_values():
    returns = torch.tensor([[1.0, 2.0, 4.0], [0.0, 50.0, 50.0]])
    assert explained_variance(returns, returns, MASK) == pytest.approx(1.0)
    assert explained_variance(torch.full_like(returns, 3.0), returns, MASK) == pytest.approx(0.0, abs=1e-6)


def test_adapt_kl_coef_moves_towards_the_target_and_is_bounded():
    assert adapt_kl_coef(0.1, kl=6.6, target_kl=6.0, num_episodes=100, horizon=1000) == pytest.approx(0.101)
    assert adapt_kl_coef(0.1, kl=600.0, target_kl=6.0, num_episodes=100, horizon=1000) == pytest.approx(0.102)
    assert adapt_kl_coef(0.1, kl=0.0, target_kl=6.0, num_episodes=100, horizon=1000) == pytest.approx(0.098)
