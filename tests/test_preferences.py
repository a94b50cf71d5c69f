"""How all labels of one comparison become one preference."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.preference.combine import evaluator_answers
from tasks.preference.config import PreferencesConfig
from tasks.preference.decide import Decision, Ranks, decide
from tasks.preference.opinions import opinions_of
from tasks.preferences import ai_preference
from tests.judged_rows import ASK, both, comparison, label, shown_alone

NO_RANKS = Ranks({}, frozenset())


def decided(rows, ranks: Ranks = NO_RANKS, **config) -> Decision:
    return decide(rows, PreferencesConfig(**config), ranks)


def prob(rows, **config) -> float | None:
    return decided(rows, **config).prob_a


def preference(rows, ranks: Ranks = NO_RANKS, **config):
    return ai_preference(ASK, comparison(), rows, PreferencesConfig(**config), ranks)[0]


def reasoned(order: str, prob_a: float, sample: int = 0, contradicts: bool | None = False, **fields):
    return label(order, prob_a, form="reasoned", sample=sample, contradicts=contradicts, **fields)


# --- one evaluator ------------------------------------------------------------------------------------------------


def test_preference_is_the_mean_of_both_orders():
    assert prob(both(0.9, 0.7)) == pytest.approx(0.8)


@given(st.floats(0.0, 1.0))
def test_preference_of_a_judge_that_follows_the_position_is_undecided(sure):
    assert prob(both(sure, 1 - sure)) == pytest.approx(0.5)


def test_preference_surer_order_does_not_outvote_the_other_as_it_would_in_log_odds():
    first, second = 0.9999, 0.1  # takes the first option in both orders, more surely in one
    log_odds = (math.log(first / (1 - first)) + math.log(second / (1 - second))) / 2
    assert 1 / (1 + math.exp(-log_odds)) == pytest.approx(0.97, abs=0.005)
    assert prob(both(first, second)) == pytest.approx(0.55, abs=0.001)


@given(st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_preference_of_the_swapped_pair_is_the_other_side(ab, ba):
    assert prob(both(1 - ba, 1 - ab)) == pytest.approx(1 - (prob(both(ab, ba)) or 0.0))


def test_preference_without_one_order_is_skipped_with_the_failed_row_s_reason():
    failed = label("ba", None, status="failed", reason="prompt has 9 tokens, the context holds 8")
    row = preference([label("ab", 0.9), failed])
    assert row.status == "skipped" and row.reason == "prompt has 9 tokens, the context holds 8"
    assert preference([label("ab", 0.9)]).reason == "no label in both orders"
    assert preference([]).status == "skipped"


def test_preference_chosen_is_the_likelier_side_and_keeps_its_probability():
    row = preference(both(0.2, 0.1))
    assert (row.chosen, row.rejected, row.principle_id, row.decided_by) == ("text B", "text A", "one", "labels")
    assert row.target_prob == pytest.approx(0.85) and row.weight == 1.0


def test_preference_samples_of_an_order_are_averaged_before_the_orders():
    rows = [reasoned("ab", 0.9), reasoned("ab", 0.6, 1), reasoned("ab", 0.3, 2), reasoned("ba", 0.2)]
    assert prob(rows, clamp="off") == pytest.approx((0.6 + 0.2) / 2)


@pytest.mark.parametrize(("clamp", "expected"), [("0.4-0.6", 0.6), ("0.2-0.8", 0.8), ("off", 0.97)])
def test_preference_reasoned_labels_are_clamped_and_others_are_not(clamp, expected):
    assert prob([reasoned("ab", 0.98), reasoned("ba", 0.96)], clamp=clamp) == pytest.approx(expected)
    assert prob([reasoned("ab", 0.02), reasoned("ba", 0.04)], clamp=clamp) == pytest.approx(1 - expected)
    assert prob(both(0.98, 0.96), clamp=clamp) == pytest.approx(0.97)


def test_preference_is_clamped_after_both_orders_are_averaged():
    assert prob([reasoned("ab", 0.9), reasoned("ba", 0.2)]) == pytest.approx(0.55)  # before it would be 0.5


def test_preference_by_scores_is_the_chance_that_one_scores_higher():
    a = [0, 0, 0, 0, 0, 0, 0, 0, 0.5, 0.5]
    b = [0, 0, 0, 0, 0, 0, 0, 0, 1.0, 0]
    assert prob(shown_alone(a, b)) == pytest.approx(0.75)
    assert prob(shown_alone(b, a)) == pytest.approx(0.25)
    assert prob(shown_alone(a, b)[:1]) is None


# --- contradictions -----------------------------------------------------------------------------------------------

CONTRADICTED = [
    reasoned("ab", 0.9),
    reasoned("ab", 0.1, 1, contradicts=True),
    reasoned("ba", 0.7),
    reasoned("ba", 0.5, 1, contradicts=None),
]


@pytest.mark.parametrize(
    ("policy", "expected", "weight"),
    [
        ("keep", (0.5 + 0.6) / 2, 1.0),
        ("drop", (0.9 + 0.6) / 2, 1.0),
        ("down_weight", ((0.9 + 0.25 * 0.1) / 1.25 + 0.6) / 2, 3.25 / 4),
    ],
)
def test_preference_contradicting_samples_count_by_policy(policy, expected, weight):
    found = decided(CONTRADICTED, contradictions=policy, clamp="off")
    assert found.prob_a == pytest.approx(expected)
    assert found.weight == pytest.approx(weight)


def test_preference_whose_reasonings_all_contradict_is_skipped_and_says_so():
    rows = [reasoned("ab", 0.9, contradicts=True), reasoned("ba", 0.7)]
    row = preference(rows)
    assert row.status == "skipped" and "feedback: 1 of 2 reasonings contradict their answer" in (row.reason or "")
    assert decided(rows).unanswered == ("feedback",)


def test_preference_evaluator_with_contradictions_counts_less_in_the_jury():
    doubtful = [reasoned("ab", 0.9, contradicts=True), reasoned("ba", 0.9, contradicts=True)]
    sound = [reasoned(o, 0.4, evaluator="strict") for o in ("ab", "ba")]
    found = decided([*doubtful, *sound], contradictions="down_weight", clamp="off")
    assert found.prob_a == pytest.approx((0.25 * 0.9 + 1 * 0.4) / 1.25)
    assert found.weight == pytest.approx(0.625)
    assert preference([*doubtful, *sound], contradictions="down_weight", clamp="off").weight == pytest.approx(0.625)


# --- several principles -------------------------------------------------------------------------------------------


def two_principles(first: float, second: float):
    return [*both(first, first, slot="0"), *both(second, second, slot="1", principle_id="two")]


RANKED = Ranks({"one": 0, "two": 2, "three": 1}, frozenset())


def test_preference_several_principles_are_averaged():
    assert prob(two_principles(0.9, 0.4)) == pytest.approx(0.65)


def test_preference_where_principles_disagree_the_higher_priority_decides():
    row = preference(two_principles(0.9, 0.3), RANKED)
    assert (row.chosen, row.decided_by, row.principle_id) == ("text B", "priority", "one")
    assert row.target_prob == pytest.approx(0.7)


@pytest.mark.parametrize("second", [0.46, 0.54, 0.9])
def test_preference_priority_does_not_decide_between_principles_that_do_not_disagree(second):
    row = preference(two_principles(0.8, second), RANKED)
    assert row.decided_by == "labels" and row.target_prob == pytest.approx((0.8 + second) / 2)


def test_preference_of_one_priority_disagreeing_principles_are_averaged():
    same = Ranks({"one": 3, "two": 3}, frozenset())
    assert decided(two_principles(0.9, 0.3), same).prob_a == pytest.approx(0.6)


def test_preference_only_the_clear_principles_of_the_highest_priority_decide():
    rows = [
        *two_principles(0.9, 0.2),
        *both(0.48, 0.48, slot="2", principle_id="three"),  # no opinion
        *both(0.4, 0.4, slot="3", principle_id="two", evaluator="feedback"),
    ]
    ranks = Ranks({"one": 0, "two": 2, "three": 9}, frozenset())
    assert decided(rows, ranks).prob_a == pytest.approx(0.3)


def test_preference_priority_is_settled_within_each_evaluator():
    other = [*both(0.8, 0.8, slot="0", evaluator="z"), *both(0.6, 0.6, slot="1", principle_id="two", evaluator="z")]
    found = decided([*two_principles(0.9, 0.3), *other], RANKED)
    assert found.prob_a == pytest.approx((0.3 + 0.7) / 2) and found.decided_by == "priority"


# --- several evaluators -------------------------------------------------------------------------------------------


def jury(*probs: float):
    return [row for i, p in enumerate(probs) for row in both(p, p, evaluator=f"e{i}")]


def test_preference_jury_is_the_mean_of_soft_labels():
    assert prob(jury(0.9, 0.6, 0.3)) == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("probs", "expected"),
    [
        ((0.9, 0.6, 0.1), 2 / 3),
        ((0.51, 0.51, 0.01), 2 / 3),  # the mean would be on the other side
        ((0.9, 0.5, 0.1), (0.9 + 0.5 + 0.1) / 3),  # a tie: the mean
        ((0.9, 0.2), 0.55),  # a tie
        ((0.9, 0.5), 0.75),  # half a vote for each side
        ((0.8,), 1.0),
    ],
)
def test_preference_majority_is_the_share_of_votes(probs, expected):
    assert prob(jury(*probs), combine="majority") == pytest.approx(expected)


def test_preference_does_not_depend_on_the_order_of_evaluators():
    rows = jury(0.9, 0.123, 0.77, 0.3)
    assert decided(rows) == decided(rows[::-1])


def test_preference_evaluator_that_failed_leaves_the_decision_to_the_others_and_is_named():
    failed = [label(o, None, evaluator="broken", status="failed", reason="no mass") for o in ("ab", "ba")]
    found = decided([*failed, *jury(0.9)])
    assert found.prob_a == pytest.approx(0.9) and found.unanswered == ("broken",)


def test_answers_name_evaluators_that_answered_only():
    rows = [*jury(0.9), label("ab", 0.4, evaluator="half")]
    assert set(evaluator_answers(opinions_of(rows, "drop", "0.4-0.6"), {})) == {"e0"}


# --- what the row says --------------------------------------------------------------------------------------------


def test_preference_below_the_margin_is_kept_but_skipped():
    row = preference(both(0.55, 0.55), min_margin=0.1)
    assert row.status == "skipped" and row.reason == "margin 0.050 is below 0.1"
    assert (row.chosen, row.rejected, row.target_prob) == ("text A", "text B", pytest.approx(0.55))


def test_preference_hard_label_is_certain_and_an_undecided_one_is_skipped():
    assert preference(both(0.6, 0.5), labels="hard").target_prob == 1.0
    undecided = preference(both(0.9, 1 - 0.9), labels="hard")
    assert undecided.status == "skipped" and undecided.target_prob == pytest.approx(0.5)
    assert preference(both(0.9, 1 - 0.9)).status == "ok"


def test_preference_margin_is_of_the_soft_label():
    assert preference(both(0.55, 0.55), labels="hard", min_margin=0.1).status == "skipped"


def test_config_fraction_without_a_file_is_refused():
    with pytest.raises(ValueError, match=r"human_fraction is 0\.5 but human is empty"):
        PreferencesConfig(human_fraction=0.5)
