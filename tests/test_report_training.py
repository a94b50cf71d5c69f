"""The report's part about training: curves by algorithm, what was measured beside them, how a training ended."""

from typing import Any

import pytest

from tasks.report.over_optimisation import over_optimisation_chart, over_optimised
from tasks.report.training import (
    FITTED,
    SECOND,
    draw_calibration,
    ending,
    left_out,
    reward_fit,
    second_model,
    smoothed,
    training_charts,
)
from tasks.report.training_charts import Bin, Measured, measured_chart, reliability_chart
from tasks.store import Manifest

EVALUATIONS = [
    {"update": 0, "score": 0.0, "held_out_score": 0.1, "kl": 0.0, "num_tokens": 20.0, "entropy": 1.1},
    {"update": 5, "score": 0.9, "held_out_score": 0.6, "kl": 2.0, "num_tokens": 21.0, "entropy": 0.9},
    {"update": 9, "score": 1.5, "held_out_score": 0.4, "kl": 6.0, "num_tokens": 30.0, "entropy": 0.4},
]
HISTORY = [{"update": i, "score": i / 6, "kl": i / 2, "num_tokens": 20.0 + i, "entropy": 1 - i / 20} for i in range(9)]
PPO = {"algorithm": "ppo", "stopped": None, "best_update": 5, "evaluations": EVALUATIONS, "num_too_long": 2}


def manifest(history: Any = None, final: Any = None) -> Manifest:
    """One that has what the trainer said and nothing else."""
    return Manifest.model_construct(metrics={"history": history, "final": final})


def manifests(rl: Any = PPO, history: Any = HISTORY, reward: Any = None) -> dict[str, Manifest]:
    return {
        "models/sl": manifest([{"step": 1, "loss": 2.0}], {"num_too_long": 1}),
        "models/reward": manifest([{"step": 1, "loss": 0.6}], reward),
        "models/rl": manifest(history, rl),
    }


@pytest.mark.parametrize(
    ("algorithm", "lines", "titles"),
    [
        ("ppo", HISTORY, ["PPO: score", "PPO: KL from the SL policy", "PPO: length", "PPO: entropy"]),
        ("rloo", HISTORY, ["RLOO: score", "RLOO: KL from the SL policy", "RLOO: length"]),
        ("grpo", HISTORY, ["GRPO: score", "GRPO: KL from the SL policy", "GRPO: length"]),
        (
            "dpo",
            [{"step": 1, "loss": 0.69, "accuracy": 0.5, "margin": 0.0}],
            ["DPO: loss", "DPO: accuracy", "DPO: margin"],
        ),
    ],
)
def test_charts_are_those_of_the_algorithm_that_ran(algorithm, lines, titles) -> None:
    drawn = training_charts(manifests({"algorithm": algorithm}, lines))
    assert [d.title for d in drawn[2:]] == titles
    assert all(d.chart for d in drawn)


def test_chart_of_the_score_shows_both_reward_models_and_the_result() -> None:
    score = str(training_charts(manifests())[2].chart)
    assert "by the reward model: 0 at 0, 0.9 at 5, 1.5 at 9" in score
    assert "by the second reward model: 0.1 at 0, 0.6 at 5, 0.4 at 9" in score
    assert "the result is that at 5" in score and ">result<" in score
    assert score.count('class="dot p0"') == score.count('class="dot p1"') == 3


def test_chart_without_a_second_reward_model_shows_one() -> None:
    alone = [line | {"held_out_score": None} for line in EVALUATIONS]
    score = training_charts(manifests(PPO | {"evaluations": alone}))[2]
    assert str(score.chart).count('class="dot') == 3 and "second reward model" not in score.caption


def test_chart_of_the_kl_shows_what_was_measured() -> None:
    kl = training_charts(manifests())[3]
    assert "by the same measure: 0 at 0, 2 at 5, 6 at 9" in str(kl.chart)


def test_chart_reaches_as_far_as_what_was_measured() -> None:
    chart = str(measured_chart("t", [(0, 0), (1, 1)], "update", [Measured(0, "m", [(4, 9.0)])], None))
    assert ">4<" in chart and ">8<" in chart and "result" not in chart


def test_ending_by_a_rule_names_rule_update_and_result() -> None:
    stopped = {"rule": "max_kl", "update": 9, "message": "ppo: KL is 60, the limit is 50. What to do: raise kl_coef"}
    first, second = ending(manifests(PPO | {"stopped": stopped, "outcome": "the policy after update 5"}))
    assert first == "Stopped by the rule max_kl after update 9; the result is update 5."
    assert second == "ppo: KL is 60, the limit is 50. What to do: raise kl_coef."


def test_ending_by_the_start_says_that_it_is_the_sl_policy() -> None:
    stopped = {"rule": "min_entropy", "update": 3, "message": "m"}
    first, _ = ending(manifests(PPO | {"stopped": stopped, "best_update": 0}))
    assert first.endswith("the result is the SL policy, no update of it.")


def test_ending_as_planned_says_which_policy_is_the_result() -> None:
    assert ending(manifests(PPO | {"outcome": "the policy after update 5, the best of 3"})) == [
        "The result is the policy after update 5, the best of 3."
    ]
    assert ending(manifests({"algorithm": "dpo"})) == ending(manifests(None)) == []


REWARD = {
    "num_train": 90,
    "num_held_out": 10,
    "num_held_out_ai": 4,
    "num_held_out_human": 6,
    "train_accuracy": 0.95,
    "held_out_accuracy": 0.8,
    "held_out_ai_accuracy": 0.75,
    "held_out_human_accuracy": None,
    "held_out_ece": 0.07,
    "held_out_calibration": [
        {"confidence": 0.6, "accuracy": 0.55, "num_labels": 5},
        {"confidence": 0.9, "accuracy": 0.8, "num_labels": 5},
    ],
}


def test_fit_has_a_column_for_each_origin_and_says_what_is_missing() -> None:
    fit = dict(reward_fit(manifests(reward=REWARD)))
    assert list(FITTED) == ["Trained on", "Held out", "of these AI", "of these human"]
    assert fit["Comparisons"] == ["90", "10", "4", "6"]
    assert fit["Accuracy"] == ["0.950", "0.800", "0.750", "not measured"]
    assert "Cross entropy, nats" not in fit
    assert reward_fit(manifests(reward=None)) == []


def test_calibration_is_drawn_from_its_bins() -> None:
    drawn = training_charts(manifests(reward=REWARD))[-1]
    assert drawn.title == "Reward model: calibration" and "Error 0.070" in drawn.caption
    assert "0.600: 0.550 (5); 0.900: 0.800 (5)" in str(drawn.chart)
    assert draw_calibration({"held_out_calibration": []}) is None


def test_calibration_below_a_half_stays_inside_the_picture() -> None:
    chart = str(reliability_chart("t", [Bin(0.6, 0.1, 3)]))
    assert ",162 " in chart  # the diamond's middle is at the foot of the frame, not below it


def test_second_model_says_how_far_it_agrees_with_the_first() -> None:
    final = {"num_held_out": 40, "held_out_models_agree": 0.9, "held_out_models_correlation": 0.85}
    said = second_model(manifests() | {SECOND: manifest([], final)})
    assert "On 40 comparisons that neither was trained on" in said and "90.0%" in said and "0.850" in said
    assert second_model(manifests()) == ""


def test_left_out_names_what_the_algorithm_learns_from() -> None:
    assert left_out(manifests()) == "Left out of training as too long: 1 SFT examples, 2 prompts."
    assert left_out(manifests({"algorithm": "dpo", "num_too_long": 3})).endswith("3 comparisons (DPO).")


def test_long_curve_is_shown_as_means_that_lose_no_step():
    points = [(float(step), float(step % 2)) for step in range(1, 503)]
    shown = smoothed(points)
    assert len(shown) <= 50 and shown[-1][0] == 502
    assert all(value == pytest.approx(0.5, abs=0.1) for _, value in shown)
    assert smoothed(points[:50]) == points[:50] and smoothed([]) == []


def reward_course(*scores: tuple[float, float | None]) -> list[dict]:
    """Evaluations every 5 updates: by the reward model, and by the second one."""
    return [
        {
            "update": 5 * i,
            "score": score,
            "held_out_score": held_out,
            "kl": float(i * i),
            "num_tokens": 9.0,
            "entropy": 1.0,
        }
        for i, (score, held_out) in enumerate(scores)
    ]


def test_over_optimisation_is_told_where_only_the_model_that_trains_goes_on_rising():
    course = reward_course((0.0, 0.0), (1.0, 0.9), (2.0, 0.5), (3.0, -0.2))
    said = over_optimised(manifests(PPO | {"evaluations": course}))
    assert "rose by 3.00" in said and "fell by 0.20" in said
    assert "confirms 0% of the rise: the reward model was over-optimised" in said
    assert "exploited: from update 5 on its score went up by 2.00 while the second one's went down by 1.10" in said


def test_over_optimisation_is_told_where_the_second_model_sees_little_of_the_rise():
    said = over_optimised(manifests(PPO | {"evaluations": reward_course((0.0, 0.0), (1.0, 0.2), (2.0, 0.3))}))
    assert "confirms 15% of the rise: the reward model was over-optimised" in said and "exploited" not in said


@pytest.mark.parametrize(
    "course",
    [
        reward_course((0.0, 0.0), (1.0, 0.9), (2.0, 1.6)),  # both rise
        reward_course((0.0, 0.0), (1.0, 0.9), (1.2, 0.85)),  # a fall that is nothing
        reward_course((0.0, 0.0), (1.0, 0.9), (0.5, 0.3)),  # both fall: the policy got worse, nothing was exploited
    ],
)
def test_over_optimisation_is_not_told_where_both_agree(course):
    said = over_optimised(manifests(PPO | {"evaluations": course}))
    assert said.startswith("From the SL policy to update 10")
    assert "exploited" not in said and "over-optimised" not in said


def test_over_optimisation_needs_a_second_model_for_words_and_two_policies_for_a_chart():
    alone = reward_course((0.0, None), (1.0, None))
    assert over_optimised(manifests(PPO | {"evaluations": alone})) == ""
    drawn = over_optimisation_chart(manifests(PPO | {"evaluations": alone}))
    assert drawn is not None and "squares" not in drawn.caption
    assert over_optimisation_chart(manifests(PPO | {"evaluations": alone[:1]})) is None


def test_over_optimisation_chart_has_the_square_root_of_the_kl_below():
    course = reward_course((0.0, 0.0), (1.0, 0.9), (2.0, 0.5))
    drawn = over_optimisation_chart(manifests(PPO | {"evaluations": course}))
    assert drawn is not None and "by the second reward model: 0 at 0, 0.9 at 1, 0.5 at 2" in str(drawn.chart)
    assert "the result is that at 1" in str(drawn.chart)  # update 5
