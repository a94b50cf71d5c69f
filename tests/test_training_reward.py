"""The reward model: soft targets, the split, the scale, scores."""

import json
import math
from pathlib import Path

import pytest

from tasks.schema import Message
from tasks.training.config import RewardConfig
from tasks.training.examples import PreferenceExample
from tasks.training.reward import agreement, split_by_prompt, train_reward
from tasks.training.scoring import load_scale, score
from tasks.training.supervision import UNWATCHED, Supervision
from tests.tiny_model import make_tiny_model

CONFIG = RewardConfig(
    epochs=4, learning_rate=3e-3, batch_size=16, micro_batch_size=8, held_out_fraction=0.2, max_tokens=64
)
TARGETS = {"red": 0.9, "blue": 0.6}


def user(text: str) -> list[Message]:
    return [Message(role="user", content=text)]


def preferences(count: int) -> list[PreferenceExample]:
    """Under a prompt with the word, "yes" beats "no" with the word's probability, whichever side it is on."""
    rows = []
    for i in range(count):
        word = ("red", "blue")[i % 2]
        prob = TARGETS[word]
        sides = ("yes", "no", prob) if i % 4 < 2 else ("no", "yes", 1 - prob)
        rows.append(
            PreferenceExample(prompt=user(f"{word} {i}"), chosen=sides[0], rejected=sides[1], target_prob=sides[2])
        )
    return rows


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory):
    output = tmp_path_factory.mktemp("reward") / "model"
    lines: list[dict] = []
    return output, train_reward(CONFIG, preferences(320), base, output, 0, Supervision(log=lines.append)), lines


def conversation(word: str, completion: str) -> list[Message]:
    return [*user(f"{word} 1000"), Message(role="assistant", content=completion)]


def test_soft_loss_is_cross_entropy_with_the_label_and_centring():
    import torch

    from tasks.training.soft_reward import soft_preference_loss

    chosen, rejected = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])
    loss = soft_preference_loss(chosen, rejected, torch.tensor([0.7, 0.5]), torch.ones(2), center_coefficient=0.1)
    first = -0.7 * math.log(1 / (1 + math.exp(-1))) - 0.3 * math.log(1 / (1 + math.exp(1)))
    second = -0.5 * math.log(1 / (1 + math.exp(2))) - 0.5 * math.log(1 / (1 + math.exp(-2)))
    assert loss.item() == pytest.approx((first + second) / 2 + 0.1 * (1 + 4) / 2, abs=1e-6)


def test_soft_loss_weighs_each_comparison_and_divides_by_their_number():
    import torch

    from tasks.training.soft_reward import soft_preference_loss

    chosen, rejected = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])
    weights = torch.tensor([0.25, 1.5])
    loss = soft_preference_loss(chosen, rejected, torch.tensor([0.7, 0.5]), weights, center_coefficient=0.1)
    first = -0.7 * math.log(1 / (1 + math.exp(-1))) - 0.3 * math.log(1 / (1 + math.exp(1))) + 0.1 * 1
    second = -0.5 * math.log(1 / (1 + math.exp(2))) - 0.5 * math.log(1 / (1 + math.exp(-2))) + 0.1 * 4
    assert loss.item() == pytest.approx((0.25 * first + 1.5 * second) / 2, abs=1e-6)


def weighted(count: int, weight: float) -> list[PreferenceExample]:
    """So many prompts with two comparisons each; the second says the opposite, with this weight."""
    prompts = [user(f"red {i}") for i in range(count)]
    plain = [PreferenceExample(prompt=p, chosen="yes", rejected="no", target_prob=1.0) for p in prompts]
    opposite = {"chosen": "no", "rejected": "yes", "weight": weight}
    return [row for plain_row in plain for row in (plain_row, plain_row.model_copy(update=opposite))]


@pytest.mark.parametrize("weight", [0.25, 4.0])
def test_reward_follows_the_heavier_of_two_opposite_comparisons(base, tmp_path, weight):
    config = CONFIG.model_copy(update={"held_out_fraction": 0.0})
    train_reward(config, weighted(128, weight), base, tmp_path / "model", 0, UNWATCHED)
    _, std = load_scale(tmp_path / "model")
    yes, no = score(tmp_path / "model", [conversation("red", "yes"), conversation("red", "no")])
    # the cross entropy is least where P(yes) is its share of the weight
    assert 1 / (1 + math.exp(-(yes - no) * std)) == pytest.approx(1 / (1 + weight), abs=0.08)


def test_reward_is_the_same_whatever_all_weights_are(base, tmp_path):
    rows, config = preferences(32), CONFIG.model_copy(update={"epochs": 1, "held_out_fraction": 0.0})
    for name, weight in (("one", 1.0), ("four", 4.0)):
        heavier = [row.model_copy(update={"weight": weight}) for row in rows]
        train_reward(config, heavier, base, tmp_path / name, 0, UNWATCHED)
    one, four = (tmp_path / name / "model.safetensors" for name in ("one", "four"))
    assert one.read_bytes() == four.read_bytes()


def test_soft_loss_has_no_gradient_at_the_label():
    import torch

    from tasks.training.soft_reward import soft_preference_loss

    chosen = torch.tensor([math.log(0.8 / 0.2)], requires_grad=True)
    soft_preference_loss(chosen, torch.zeros(1), torch.tensor([0.8]), torch.ones(1), 0.0).backward()
    assert chosen.grad.item() == pytest.approx(0.0, abs=1e-6)


def test_reward_is_calibrated_to_soft_targets(trained):
    _, std = load_scale(trained[0])
    for word, target in TARGETS.items():
        yes, no = score(trained[0], [conversation(word, "yes"), conversation(word, "no")])
        assert 1 / (1 + math.exp(-(yes - no) * std)) == pytest.approx(target, abs=0.08)


def test_held_out_cross_entropy_approaches_its_floor(trained):
    _, result, lines = trained
    entropy = [-(p * math.log(p) + (1 - p) * math.log(1 - p)) for p in TARGETS.values()]
    assert result["num_held_out"] == 64 and result["num_train"] == 256
    assert min(entropy) < result["held_out_entropy_floor"] < max(entropy)
    assert 0 <= result["held_out_cross_entropy"] - result["held_out_entropy_floor"] < 0.05
    assert result["held_out_accuracy"] > 0.95
    assert lines[-1]["step"] == lines[-1]["num_steps"] == result["num_steps"] == 64


def test_scores_of_training_completions_have_mean_0_and_deviation_1(trained):
    train, _ = split_by_prompt(preferences(320), 0.2, seed=0)
    texts = [[*row.prompt, Message(role="assistant", content=c)] for row in train for c in (row.chosen, row.rejected)]
    scores = score(trained[0], texts)
    mean = sum(scores) / len(scores)
    assert mean == pytest.approx(0, abs=1e-3)
    assert sum((s - mean) ** 2 for s in scores) / len(scores) == pytest.approx(1, abs=1e-2)


def test_scores_do_not_depend_on_company_or_order(trained):
    texts = [conversation("red", "yes"), conversation("blue", "no " * 20), conversation("red", "n")]
    together = score(trained[0], texts)
    assert together == pytest.approx([score(trained[0], [text])[0] for text in texts], abs=1e-4)
    assert score(trained[0], texts[::-1]) == pytest.approx(together[::-1], abs=1e-4)


def test_same_inputs_give_the_same_bytes_in_another_folder(trained, tmp_path):
    elsewhere = make_tiny_model(tmp_path / "other")
    output = tmp_path / "out"
    train_reward(CONFIG, preferences(320), elsewhere, output, 0, UNWATCHED)
    for path in trained[0].iterdir():
        assert (output / path.name).read_bytes() == path.read_bytes(), path.name


def test_split_keeps_a_prompt_on_one_side_whatever_the_order():
    rows = [row.model_copy(update={"prompt": user(f"p{i % 20}")}) for i, row in enumerate(preferences(60))]
    train, held_out = split_by_prompt(rows, 0.25, seed=3)
    assert len({str(row.prompt) for row in held_out}) == 5
    assert not {str(row.prompt) for row in train} & {str(row.prompt) for row in held_out}
    again, _ = split_by_prompt(rows[::-1], 0.25, seed=3)
    assert sorted(map(str, again)) == sorted(map(str, train))
    assert split_by_prompt(rows, 0.25, seed=4)[1] != held_out


def test_agreement_leaves_undecided_labels_aside():
    assert agreement([1.0, -1.0, 1.0, 5.0], [0.9, 0.2, 0.3, 0.5]) == pytest.approx(2 / 3)
    assert agreement([1.0], [0.5]) is None


def test_equal_sides_are_refused(base, tmp_path):
    rows = [PreferenceExample(prompt=user("a"), chosen="b", rejected="b", target_prob=0.5)] * 16
    config = CONFIG.model_copy(update={"held_out_fraction": 0.0, "epochs": 1})
    with pytest.raises(ValueError, match="all 32 training completions score"):
        train_reward(config, rows, base, tmp_path, 0, UNWATCHED)


def test_score_by_a_folder_that_is_no_reward_model_is_refused(base):
    with pytest.raises(ValueError, match=r"has no reward_scale\.json"):
        score(base, [conversation("red", "yes")])


def test_scale_file_is_json(trained):
    assert set(json.loads((trained[0] / "reward_scale.json").read_text())) == {"mean", "std"}
