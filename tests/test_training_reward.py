"""The reward model: soft targets, the split, the scale, scores."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from tasks.reward import HeldOutRewardStage, RewardStage, is_seconds
from tasks.schema import Message, ModelRef, Preference
from tasks.stage import RunContext, Session
from tasks.store import Derivation, Store
from tasks.store.identity import rows_to_table
from tasks.training.config import RewardConfig
from tasks.training.examples import PreferenceExample, preference_examples
from tasks.training.reward import split_by_prompt, train_reward
from tasks.training.reward_figures import (
    agreement,
    calibration,
    fit_figures,
    form_of_margins,
    measure,
    models_agreement,
    scale_of,
)
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


def log_odds(prob: float) -> float:
    return math.log(prob / (1 - prob))


def test_figures_cross_entropy_and_its_floor_are_those_worked_out_by_hand():
    # the model says 0.8 where the label says 0.9, and 0.5 where it says 0.5
    found = fit_figures(np.array([log_odds(0.8), 0.0]), np.array([0.9, 0.5]))
    first = -0.9 * math.log(0.8) - 0.1 * math.log(0.2)
    floor = -0.9 * math.log(0.9) - 0.1 * math.log(0.1)
    assert found["cross_entropy"] == pytest.approx((first + math.log(2)) / 2)
    assert found["entropy_floor"] == pytest.approx((floor + math.log(2)) / 2)
    assert found["accuracy"] == 1.0


def test_figures_of_sure_labels_have_no_floor_and_huge_margins_do_not_overflow():
    found = fit_figures(np.array([2000.0, -2000.0]), np.array([1.0, 1.0]))
    assert found["entropy_floor"] == 0.0
    assert found["cross_entropy"] == pytest.approx(1000.0)


def test_figures_without_a_comparison_are_unknown():
    assert set(fit_figures(np.zeros(0), np.zeros(0)).values()) == {None}


def test_calibration_error_is_the_distance_from_the_labels_own_probability():
    # ten comparisons: the model always says 0.8 of the side whose label says 0.6, whichever side that is
    margins = np.array([log_odds(0.8), -log_odds(0.8)] * 5)
    targets = np.array([0.6, 0.4] * 5)
    assert fit_figures(margins, targets)["ece"] == pytest.approx(0.2)
    rows = [{"target_prob": target} for target in targets]
    (only,) = calibration(rows, np.stack([margins, np.zeros(10)], axis=1))
    assert only == {"confidence": pytest.approx(0.8), "accuracy": pytest.approx(0.6), "num_labels": 10}


def test_calibration_of_a_model_that_says_what_labels_say_has_no_error():
    targets = np.array([0.9, 0.6, 0.3, 0.55, 0.99])
    margins = np.array([log_odds(target) for target in targets])
    assert fit_figures(margins, targets)["ece"] == pytest.approx(0.0, abs=1e-9)
    assert form_of_margins(margins, targets).right.tolist() == pytest.approx([0.9, 0.6, 0.7, 0.55, 0.99])


ORIGIN_ROWS = [{"target_prob": prob, "origin": origin} for prob, origin in ((0.7, "ai"), (1.0, "human"), (0.2, "ai"))]
ORIGIN_SCORES = np.array([[1.0, 0.0], [0.0, 3.0], [-1.0, -2.0]])


def test_figures_are_told_apart_by_who_labelled():
    found = measure(ORIGIN_ROWS, ORIGIN_SCORES, "held_out_")
    assert (found["num_held_out_ai"], found["num_held_out_human"]) == (2, 1)
    assert (found["held_out_ai_accuracy"], found["held_out_human_accuracy"]) == (0.5, 0.0)
    assert found["held_out_accuracy"] == pytest.approx(1 / 3)
    assert found["held_out_human_entropy_floor"] == 0.0 < found["held_out_ai_entropy_floor"]
    mean = (2 * found["held_out_ai_cross_entropy"] + found["held_out_human_cross_entropy"]) / 3
    assert found["held_out_cross_entropy"] == pytest.approx(mean)


def test_figures_of_an_origin_that_is_not_there_are_unknown():
    found = measure(ORIGIN_ROWS[:1], ORIGIN_SCORES[:1], "train_")
    assert found["num_train_human"] == 0 and found["train_human_accuracy"] is None
    assert found["train_ai_cross_entropy"] == found["train_cross_entropy"]


def test_scale_is_that_of_the_policys_own_samples():
    # of the AI's two comparisons: 1, 0, -1, -2
    assert scale_of(ORIGIN_ROWS, ORIGIN_SCORES) == {"mean": -0.5, "std": pytest.approx(math.sqrt(1.25))}


def test_scale_without_such_samples_is_that_of_all():
    people = [row | {"origin": "human"} for row in ORIGIN_ROWS]
    assert scale_of(people, ORIGIN_SCORES)["mean"] == pytest.approx(ORIGIN_SCORES.mean())


def test_models_agree_where_they_prefer_the_same_side():
    mine = np.array([[2.0, 0.0], [0.0, 2.0], [2.0, 0.0], [0.0, 2.0]])
    theirs = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    found = models_agreement(mine, theirs)
    assert found["held_out_models_agree"] == 0.75
    # margins 2, -2, 2, -2 and 1, -1, -1, -1: covariance 1, variances 4 and 3/4
    assert found["held_out_models_correlation"] == pytest.approx(1 / math.sqrt(4 * 0.75))


def test_models_agreement_without_comparisons_or_differences_is_unknown():
    assert set(models_agreement(np.zeros((0, 2)), np.zeros((0, 2))).values()) == {None}
    level = np.array([[1.0, 0.0], [1.0, 0.0]])
    assert models_agreement(level, level) == {"held_out_models_agree": 1.0, "held_out_models_correlation": None}


def test_reward_beside_another_says_how_far_they_agree(trained, base, tmp_path):
    result = train_reward(CONFIG, preferences(320), base, tmp_path / "m", 0, UNWATCHED, compared=trained[0])
    assert result["held_out_models_agree"] == 1.0
    assert result["held_out_models_correlation"] == pytest.approx(1.0)
    assert "held_out_models_agree" not in trained[1]


def test_reward_reports_each_origin_and_scales_by_the_ais(base, tmp_path):
    rows = preferences(160)
    people = [row.model_copy(update={"origin": "human"}) for row in rows[80:]]
    result = train_reward(CONFIG, [*rows[:80], *people], base, tmp_path / "m", 0, UNWATCHED)
    assert result["num_train_ai"] + result["num_train_human"] == result["num_train"]
    assert result["num_held_out_ai"] + result["num_held_out_human"] == result["num_held_out"]
    assert result["held_out_human_entropy_floor"] > 0 and result["held_out_ai_ece"] is not None
    assert sum(found["num_labels"] for found in result["held_out_calibration"]) == result["num_held_out"]
    own, _ = split_by_prompt(rows, 0.2, seed=0)
    texts = [
        [*r.prompt, Message(role="assistant", content=c)] for r in own if r in rows[:80] for c in (r.chosen, r.rejected)
    ]
    scores = score(tmp_path / "m", texts)
    assert sum(scores) / len(scores) == pytest.approx(0, abs=1e-3)


def weights(folder: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors")


def test_head_has_a_rate_of_its_own(base, tmp_path):
    rows, found = preferences(16), {}
    one_step = CONFIG.model_copy(update={"epochs": 1, "held_out_fraction": 0.0, "max_grad_norm": 1e6})
    for name, rate in (("plain", None), ("same", 3e-3), ("faster", 3e-2), ("slower", 3e-4)):
        config = one_step.model_copy(update={"head_learning_rate": rate})
        train_reward(config, rows, base, tmp_path / name, 0, UNWATCHED)
        found[name] = weights(tmp_path / name)
    heads = {name: found[name].pop("score.weight") for name in found}
    assert np.array_equal(heads["same"], heads["plain"]) and not np.array_equal(heads["faster"], heads["plain"])
    # Adam's first step is a rate long, whatever the gradient: the slower head has gone a tenth of the plain one's way
    started = heads["plain"] + (heads["slower"] - heads["plain"]) / 0.9
    assert heads["faster"] - started == pytest.approx(10 * (heads["plain"] - started), abs=1e-5)
    for name in found:
        assert all(np.array_equal(found[name][key], found["plain"][key]) for key in found["plain"]), name


def test_head_with_a_rate_of_its_own_resumes_to_the_same_bytes(base, tmp_path):
    config = CONFIG.model_copy(update={"epochs": 1, "head_learning_rate": 3e-2, "checkpoint_every": 2})
    rows = preferences(100)

    def stop(folder: Path) -> None:
        raise KeyboardInterrupt

    train_reward(config, rows, base, tmp_path / "whole", 0, UNWATCHED)
    with pytest.raises(KeyboardInterrupt):
        train_reward(config, rows, base, tmp_path / "m", 0, Supervision(checkpoints=tmp_path / "c", on_checkpoint=stop))
    resumed = train_reward(config, rows, base, tmp_path / "m", 0, Supervision(checkpoints=tmp_path / "c"))
    assert resumed["num_steps"] == 5
    assert (tmp_path / "m" / "model.safetensors").read_bytes() == (
        tmp_path / "whole" / "model.safetensors"
    ).read_bytes()


# the stages


def row(number: int, words: str, **changes: object) -> Preference:
    fields: dict[str, object] = {
        "row_id": f"{number}",
        "reuse_key": "k",
        "prompt_id": f"{number}",
        "prompt": user(words),
        "chosen": "yes",
        "rejected": "no",
        "target_prob": 1.0,
        "origin": "ai",
    }
    return Preference.model_validate(fields | changes)


def test_examples_carry_who_labelled():
    assert [e.origin for e in preference_examples([row(0, "a"), row(1, "a", origin="human")])] == ["ai", "human"]


def test_second_models_share_is_drawn_by_the_prompts_words():
    rows = [row(i, f"prompt {i}") for i in range(1000)]
    seconds = [r for r in rows if is_seconds(r, 0.3)]
    assert 250 < len(seconds) < 350
    # the same words elsewhere, under another id and from somebody else
    twins = [row(i + 5000, f"prompt {i}", origin="human") for i in range(1000)]
    assert [is_seconds(twin, 0.3) for twin in twins] == [is_seconds(r, 0.3) for r in rows]
    assert not any(is_seconds(r, 0.0) for r in rows)


SECOND_ROWS = [row(i, f"prompt {i // 2}", origin=("ai", "human")[i % 2]) for i in range(200)]


@pytest.fixture
def stages(tmp_path, monkeypatch):
    """Both stages on the same preferences, and what each asked to be trained with."""
    asked: dict[str, tuple[list[PreferenceExample], ModelRef | None]] = {}

    def run_training(stage, session, config, examples, kind, model, reward=None):
        asked[stage.stage] = (examples, reward)
        return ModelRef(model=stage.dataset, version="c" * 64, content_hash="h")

    monkeypatch.setattr("tasks.reward.run_training", run_training)
    store = Store.open(str(tmp_path / "store"), cache=tmp_path / "cache")
    made = {"stage": "preferences", "dataset": "preferences", "code_version": 1, "config": {}, "inputs": {}, "seed": 0}
    given = Derivation.model_validate({**made, "constitution": None, "models": {}, "force": None})
    ref = store.commit_rows(given, rows_to_table(SECOND_ROWS, Preference), metrics={}, cost={})
    policy = ModelRef(model="models/sl", version="a" * 64, content_hash="p")
    fields = {"run": RunContext(), "preferences": ref, "policy": policy, "config": RewardConfig(second_model_share=0.4)}
    first = RewardStage(**fields).make(Session(store))
    HeldOutRewardStage(**fields, reward=first).make(Session(store))
    return asked, first


def test_two_reward_models_learn_from_different_prompts_and_from_all(stages):
    mine, seconds = ({str(e.prompt) for e in stages[0][name][0]} for name in ("reward", "held_out_reward"))
    assert not mine & seconds
    assert len(mine | seconds) == 100 and 20 < len(seconds) < 60
    assert sum(len(examples) for examples, _ in stages[0].values()) == 200


def test_second_reward_model_is_set_beside_the_first(stages):
    asked, first = stages
    assert asked["reward"][1] is None
    assert asked["held_out_reward"][1] == first


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
