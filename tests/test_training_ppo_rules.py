"""When PPO ends early, and with which policy: by figures written down here."""

import pytest

from tasks.training.ppo.evaluation import set_aside
from tasks.training.ppo.rules import Stop, best_evaluation, check_rules, choose_result
from tasks.training.rl_config import StopRules

RULES = StopRules(window=2, max_kl=10, min_entropy=0.5, max_length_ratio=1.5, max_reward_gap=1.0)
STOP = Stop(rule="max_kl", update=4, value=12, limit=10, message="too far")


def update(**figures: float) -> dict:
    return {"kl": 1.0, "entropy": 2.0, "num_tokens": 20.0, "score": 0.0} | figures


def evaluation(number: int, score: float = 0.0, held_out_score: float | None = None, **figures: float) -> dict:
    return update(score=score, **figures) | {"update": number, "held_out_score": held_out_score}


START = evaluation(0)


def test_rules_of_a_quiet_training_break_none():
    assert check_rules(RULES, [update()] * 9, [START, evaluation(5, score=3.0)]) is None


@pytest.mark.parametrize(
    ("figures", "rule", "value", "limit", "remedy"),
    [
        ({"kl": 10.5}, "max_kl", 10.5, 10, "raise kl_coef"),
        ({"entropy": 0.25}, "min_entropy", 0.25, 0.5, "lower the learning rates"),
        ({"num_tokens": 32.0}, "max_length_ratio", 1.6, 1.5, "likes length"),
    ],
)
def test_rules_a_figure_past_its_limit_stops_and_names_the_remedy(figures, rule, value, limit, remedy):
    stop = check_rules(RULES, [update(), update(), update(**figures), update(**figures)], [START])
    assert stop and (stop.rule, stop.update, stop.limit) == (rule, 4, limit)
    assert stop.value == pytest.approx(value)
    assert f"{value:.3g}" in stop.message and f"{limit:g}" in stop.message and f"rules.{rule}" in stop.message
    assert remedy in stop.message


@pytest.mark.parametrize("figures", [{"kl": 10.0}, {"entropy": 0.5}, {"num_tokens": 30.0}])
def test_rules_a_figure_at_its_limit_stops_nothing(figures):
    assert check_rules(RULES, [update(**figures)] * 4, [START]) is None


def test_rules_one_odd_update_within_the_window_stops_nothing():
    odd = [update(), update(), update(kl=18.9)]
    assert check_rules(RULES, odd, [START]) is None  # (1 + 18.9) / 2 is under 10
    assert check_rules(RULES, [*odd, update(kl=1.2)], [START])  # (18.9 + 1.2) / 2 is over 10
    assert check_rules(RULES, [*odd, update(kl=1.2), update()], [START]) is None  # it has left the window


def test_rules_wait_until_a_window_is_full():
    assert check_rules(RULES, [update(kl=99.0)], [START]) is None
    assert check_rules(RULES, [], [START]) is None
    assert check_rules(RULES.model_copy(update={"window": 1}), [update(kl=99.0)], [START])


def test_rules_length_is_against_the_first_update_where_nothing_was_measured():
    longer = [update(num_tokens=10.0), update(num_tokens=14.0), update(num_tokens=17.0)]
    stop = check_rules(RULES, longer, [])
    assert stop and stop.value == pytest.approx(1.55)  # (14 + 17) / 2 / 10
    assert check_rules(RULES, longer, [START]) is None  # the SL policy's evaluation has 20


def test_rules_reward_gap_is_what_the_score_rose_by_more_since_the_start():
    start = evaluation(0, score=0.2, held_out_score=-0.3)
    # risen by 1.9 - 0.2 = 1.7 and by 0.3 - -0.3 = 0.6: 1.1 more, over 1.0
    gone = evaluation(4, score=1.9, held_out_score=0.3)
    stop = check_rules(RULES, [update()] * 4, [start, gone])
    assert stop and stop.rule == "max_reward_gap" and stop.value == pytest.approx(1.1)
    assert "held-out reward model" in stop.message and "more or better comparisons" in stop.message
    fine = evaluation(4, score=1.9, held_out_score=0.5)  # 0.9 more
    assert check_rules(RULES, [update()] * 4, [start, fine]) is None
    # both within the window of updates 3 and 4: (1.1 + 0.9) / 2 is not over 1.0
    assert check_rules(RULES, [update()] * 4, [start, gone | {"update": 3}, fine | {"held_out_score": 0.51}]) is None


def test_rules_reward_gap_of_long_ago_or_without_a_held_out_model_stops_nothing():
    start, gone = evaluation(0, 0.0, 0.0), evaluation(2, 5.0, 0.0)
    assert check_rules(RULES, [update()] * 2, [start, gone])
    assert check_rules(RULES, [update()] * 4, [start, gone]) is None
    assert check_rules(RULES, [update()] * 2, [START, evaluation(2, 5.0)]) is None


def test_best_is_by_the_held_out_score_where_there_is_one():
    by_training = [START, evaluation(1, 0.5), evaluation(2, 0.4)]
    assert best_evaluation(RULES, by_training) is by_training[1]
    held_out = [evaluation(0, 0.0, 0.0), evaluation(1, 0.5, 0.1), evaluation(2, 0.4, 0.3)]
    assert best_evaluation(RULES, held_out) is held_out[2]
    assert best_evaluation(RULES, []) is None


def test_best_of_equals_is_the_earliest():
    same = [evaluation(0, 0.5), evaluation(1, 0.5), evaluation(2, 0.5)]
    assert best_evaluation(RULES, same) is same[0]


@pytest.mark.parametrize("figures", [{"kl": 11.0}, {"entropy": 0.4}, {"num_tokens": 31.0}])
def test_best_never_breaks_a_rule_by_itself(figures):
    measured = [START, evaluation(1, 0.5), evaluation(2, 0.9, **figures)]
    assert best_evaluation(RULES, measured) is measured[1]
    gap = [evaluation(0, 0.0, 0.0), evaluation(1, 0.5, 0.4), evaluation(2, 1.9, 0.8)]  # 1.1 more
    assert best_evaluation(RULES, gap) is gap[1]


def test_result_is_the_best_measured_and_words_say_so():
    measured = [START, evaluation(2, 0.9), evaluation(4, 0.7)]
    number, words = choose_result(RULES, measured, 4, None)
    assert number == 2 and "after update 2" in words
    assert choose_result(RULES, measured, 4, STOP) == (number, words)


def test_result_without_anything_better_is_the_sl_policy_and_words_say_so():
    number, words = choose_result(RULES, [START, evaluation(2, -0.1)], 4, None)
    assert number == 0 and words.startswith("the SL policy: of 1 measured after it none was better")


def test_result_without_measurements_is_the_last_policy_but_after_a_stop_the_sl_policy():
    number, words = choose_result(RULES, [], 4, None)
    assert number == 4 and "the last update, 4" in words and "eval_prompts" in words
    number, words = choose_result(RULES, [], 4, STOP)
    assert number == 0 and words.startswith("the SL policy") and "eval_prompts" in words


def test_set_aside_takes_so_many_but_a_tenth_at_most_and_keeps_order():
    prompts = [(position, [position, 7]) for position in range(0, 90, 2)]
    kept, aside = set_aside(prompts, 3, seed=0)
    assert len(aside) == 3 and sorted([*kept, *aside]) == prompts and kept == sorted(kept) and aside == sorted(aside)
    assert len(set_aside(prompts, 64, seed=0)[1]) == 4  # of 45
    assert set_aside(prompts, 0, seed=0) == (prompts, [])
    assert set_aside(prompts[:9], 64, seed=0) == (prompts[:9], [])


def test_set_aside_depends_on_the_seed_and_not_on_positions():
    prompts = [(position, [position, 7]) for position in range(50)]
    aside = [ids for _, ids in set_aside(prompts, 5, seed=0)[1]]
    moved = [(position + 100, ids) for position, ids in reversed(prompts)]
    assert sorted(ids for _, ids in set_aside(moved, 5, seed=0)[1]) == aside
    assert [ids for _, ids in set_aside(prompts, 5, seed=1)[1]] != aside


def test_set_aside_takes_all_of_equal_prompts_or_none():
    prompts = [(position, [position % 20]) for position in range(60)]  # each three times
    kept, aside = set_aside(prompts, 64, seed=0)
    assert len(aside) == 6
    assert not {ids[0] for _, ids in kept} & {ids[0] for _, ids in aside}
