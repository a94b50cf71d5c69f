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
    # q/p is 0.25/0.5 = 1/2 and 0.4/0.2 = 2, so log p/q is log 2 and -log 2
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
    # 1: right but moved too far, held at 0.5, 1.5 off; 2: held at 0.5 would be 0.5 off, free is 2 off and counts;
    # 3: moved by 0.1, within the range, so both are 0.9 off
    assert close(losses, [0.5 * 1.5**2, 0.5 * 2.0**2, 0.5 * 0.9**2])


def test_value_loss_held_value_has_no_gradient():
    values = torch.tensor([2.0, 2.0]).requires_grad_()
    value_loss(values, torch.zeros(2), torch.tensor([2.0, 0.0]), clip_range=0.5).sum().backward()
    assert close(values.grad, [0.0, 2.0])  # of the free one: value - return


def test_whiten_ignores_masked_tokens():
    x = torch.tensor([[1.0, 2.0, 3.0], [6.0, 100.0, -100.0]])
    white = whiten(x, MASK)
    # four real tokens: mean (1 + 2 + 3 + 6) / 4 = 3, variance ((-2)^2 + (-1)^2 + 0 + 3^2) / 4 = 3.5
    std = math.sqrt(3.5)
    assert close(white, [[-2 / std, -1 / std, 0.0], [3 / std, 0.0, 0.0]])


def test_unfinished_completion_returns_hand_computation():
    """Score 2, penalty 0.5, two tokens with KL 0.1 and 0.3 at coefficient 2, nothing discounted, no values.

    Rewards: -2*0.1 = -0.2, then 2 - 0.5 - 2*0.3 = 0.9; returns: -0.2 + 0.9 = 0.7, then 0.9. A completion that ended
    has 0.5 more at both.
    """
    scores = penalise_missing_eos(torch.tensor([2.0, 2.0]), torch.tensor([False, True]), 0.5)
    mask = torch.ones(2, 2, dtype=torch.bool)
    rewards = token_rewards(scores, torch.tensor([[0.1, 0.3]] * 2), mask, kl_coef=2.0)
    assert close(rewards, [[-0.2, 0.9], [-0.2, 1.4]])
    _, returns = gae(rewards, torch.zeros(2, 2), mask, gamma=1.0, lam=1.0)
    assert close(returns, [[0.7, 0.9], [1.2, 1.4]])


def test_missing_eos_is_penalised_once():
    scores = penalise_missing_eos(torch.tensor([1.0, 1.0]), torch.tensor([True, False]), 0.75)
    assert scores.tolist() == [1.0, 0.25]


def test_explained_variance_of_perfect_and_constant_values():
    returns = torch.tensor([[1.0, 2.0, 4.0], [0.0, 50.0, 50.0]])
    assert explained_variance(returns, returns, MASK) == pytest.approx(1.0)
    assert explained_variance(torch.full_like(returns, 3.0), returns, MASK) == pytest.approx(0.0, abs=1e-6)


def test_adapt_kl_coef_moves_towards_the_target_and_is_bounded():
    # 6.6 / 6 - 1 = 0.1, times 100 of 1000 episodes: 1 % up; 600 would be a hundredfold, held at 0.2: 2 % up or down
    assert adapt_kl_coef(0.1, kl=6.6, target_kl=6.0, num_episodes=100, horizon=1000) == pytest.approx(0.101)
    assert adapt_kl_coef(0.1, kl=600.0, target_kl=6.0, num_episodes=100, horizon=1000) == pytest.approx(0.102)
    assert adapt_kl_coef(0.1, kl=0.0, target_kl=6.0, num_episodes=100, horizon=1000) == pytest.approx(0.098)
