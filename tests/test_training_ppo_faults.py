"""Trainings that go wrong on purpose: each ends by the rule that is meant for it, and says what to do."""

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tasks.training.ppo.trainer import train_ppo
from tasks.training.supervision import UNWATCHED
from tests.ppo_leaving import PROMPTS
from tests.ppo_world import CONFIG, Models, digest, models_in, same_weights, with_rules


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Models:
    return models_in(tmp_path_factory.getbasetemp())


def test_kl_explosion_is_stopped_and_the_sl_policy_is_the_result(models, tmp_path):
    config = with_rules(CONFIG.model_copy(update={"learning_rate": 5e-2}), max_kl=10)
    result = train_ppo(config, PROMPTS, models.policy, models.likes_a, tmp_path, 0, UNWATCHED)
    assert result["stopped"]["rule"] == "max_kl"
    assert result["num_updates"] == result["stopped"]["update"] == len(result["history"]) < 8
    assert "raise kl_coef" in result["stopped"]["message"]
    assert result["best_update"] == 0 and "The result is the SL policy" in result["stopped"]["message"]
    assert same_weights(tmp_path, models.policy)


def test_collapse_of_entropy_is_stopped_and_the_result_is_the_best_before(models, tmp_path):
    config = with_rules(CONFIG.model_copy(update={"num_updates": 20}), min_entropy=0.4)
    result = train_ppo(config, PROMPTS, models.policy, models.likes_a, tmp_path, 0, UNWATCHED)
    assert result["stopped"]["rule"] == "min_entropy"
    best = next(line for line in result["evaluations"] if line["update"] == result["best_update"])
    assert best["entropy"] >= 0.4 > (result["history"][-1]["entropy"] + result["history"][-2]["entropy"]) / 2
    assert best["score"] > result["evaluations"][0]["score"]
    assert 0 < best["update"] <= result["num_updates"] and f"after update {best['update']}" in result["outcome"]


def test_reward_model_that_likes_length_is_found_out_by_length(models, tmp_path):
    """The result is just what a training would have had that had ended at its update."""
    config = with_rules(CONFIG.model_copy(update={"max_tokens": 12, "eval_every": 1}), max_length_ratio=1.4)
    given = PROMPTS, models.policy, models.likes_length
    result = train_ppo(config, *given, tmp_path / "stopped", 0, UNWATCHED)
    assert result["stopped"]["rule"] == "max_length_ratio"
    assert "whether the reward model likes length" in result["stopped"]["message"]
    lengths = {line["update"]: line["num_tokens"] for line in result["evaluations"]}
    assert 0 < result["best_update"] < result["num_updates"]
    assert lengths[0] < lengths[result["best_update"]] <= 1.4 * lengths[0] < max(lengths.values())
    ended = config.model_copy(update={"num_updates": result["best_update"]})
    train_ppo(ended, *given, tmp_path / "ended", 0, UNWATCHED)
    assert digest(tmp_path / "stopped") == digest(tmp_path / "ended")


def test_reward_model_that_likes_length_is_found_out_by_the_held_out_one(models, tmp_path):
    config = with_rules(CONFIG.model_copy(update={"max_tokens": 12}), max_reward_gap=1.0)
    result = train_ppo(
        config,
        PROMPTS,
        models.policy,
        models.likes_length,
        tmp_path,
        0,
        UNWATCHED,
        held_out_reward=models.likes_brevity,
    )
    assert result["stopped"]["rule"] == "max_reward_gap"
    assert "train it on more or better comparisons" in result["stopped"]["message"]
    first, last = result["evaluations"][0], result["evaluations"][-1]
    assert last["score"] > first["score"] + 0.3 and last["held_out_score"] < first["held_out_score"] - 0.3
    assert result["best_update"] == 0 and same_weights(tmp_path, models.policy)


def test_scores_that_are_not_finite_are_the_reward_models_fault(models, tmp_path):
    broken = Path(shutil.copytree(models.likes_a, tmp_path / "broken"))
    tensors = load_file(broken / "model.safetensors")
    tensors["score.weight"].fill_(float("nan"))
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(FloatingPointError, match=r"4 of 4 scores by the reward model.*look at the reward model"):
        train_ppo(CONFIG, PROMPTS, models.policy, broken, tmp_path / "out", 0, UNWATCHED)
    with pytest.raises(FloatingPointError, match="4 of 4 scores by the held-out reward model"):
        train_ppo(
            CONFIG, PROMPTS, models.policy, models.likes_a, tmp_path / "out", 0, UNWATCHED, held_out_reward=broken
        )
    assert not (tmp_path / "out").exists()


def test_stop_of_a_training_that_measures_nothing_goes_back_to_the_sl_policy(models, tmp_path):
    config = with_rules(CONFIG.model_copy(update={"learning_rate": 5e-2, "eval_prompts": 0}), max_kl=10)
    result = train_ppo(config, PROMPTS, models.policy, models.likes_a, tmp_path, 0, UNWATCHED)
    assert (result["stopped"]["rule"], result["best_update"], result["evaluations"]) == ("max_kl", 0, [])
    assert same_weights(tmp_path, models.policy)
