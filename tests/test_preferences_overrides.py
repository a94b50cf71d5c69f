"""Hard constraints and visible reasoning: what decides whatever the drawn principle says."""

import pytest

from constitutions import Constitution
from tasks.preference.config import PreferencesConfig
from tasks.preference.decide import Ranks, decide
from tasks.preferences import ai_preference
from tests.judged_rows import ASK, both, comparison, consistency, label
from tests.worlds import principle

FOR_A = both(0.9, 0.9)
RANKS = Ranks({"one": 0, "law": 1, "life": 2}, frozenset({"law", "life"}))


def hard(name: str, ab: float, ba: float, **fields):
    return both(ab, ba, slot=f"hard/{name}", principle_id=name, **fields)


def decided(labels, ranks: Ranks = RANKS, **config):
    return decide(labels, PreferencesConfig(**config), ranks)


def preference(labels, **config):
    return ai_preference(ASK, comparison(), labels, PreferencesConfig(**config), RANKS)[0]


# --- hard constraints ---------------------------------------------------------------------------------------------


def test_constraint_broken_in_both_orders_rejects_whatever_the_principle_says():
    row = preference([*FOR_A, *hard("law", 0.02, 0.06)])
    assert (row.chosen, row.rejected, row.decided_by) == ("text B", "text A", "hard/law")
    assert row.target_prob == pytest.approx(0.96) and row.principle_id == "one"


def test_constraint_that_b_breaks_rejects_b():
    row = preference([*both(0.2, 0.2), *hard("law", 0.98, 0.94)])
    assert (row.chosen, row.decided_by, row.target_prob) == ("text A", "hard/law", pytest.approx(0.96))


@pytest.mark.parametrize(("ab", "ba"), [(0.02, 0.2), (0.2, 0.02), (0.02, 0.98), (0.5, 0.5), (0.15, 0.15)])
def test_constraint_that_is_not_decisive_in_each_order_overrides_nothing(ab, ba):
    found = decided([*FOR_A, *hard("law", ab, ba)])
    assert (found.decided_by, found.prob_a) == ("labels", pytest.approx(0.9))


def test_constraint_margin_is_a_setting():
    assert decided([*FOR_A, *hard("law", 0.2, 0.2)], hard_margin=0.25).decided_by == "hard/law"


def test_constraint_does_not_enter_the_mean_of_the_principles():
    assert decided([*FOR_A, *hard("law", 0.5, 0.5)]).prob_a == pytest.approx(0.9)


def test_constraint_keeps_the_surer_of_its_own_and_the_labels_probability():
    found = decided([*both(0.005, 0.005), *hard("law", 0.06, 0.06)])
    assert found.prob_a == pytest.approx(0.005) and found.decided_by == "hard/law"


def test_constraint_decides_where_the_principle_has_no_label():
    failed = [label(order, None, status="failed", reason="no mass") for order in ("ab", "ba")]
    row = preference([*failed, *hard("law", 0.02, 0.02)])
    assert row.status == "ok" and (row.chosen, row.target_prob) == ("text B", pytest.approx(0.98))


def test_constraint_is_judged_by_the_mean_of_the_evaluators():
    both_sure = [*hard("law", 0.04, 0.04), *hard("law", 0.12, 0.12, evaluator="strict")]
    assert decided([*FOR_A, *both_sure]).decided_by == "hard/law"
    one_unsure = [*hard("law", 0.04, 0.04), *hard("law", 0.4, 0.4, evaluator="strict")]
    assert decided([*FOR_A, *one_unsure]).decided_by == "labels"


def test_constraint_that_was_drawn_counts_in_its_own_slot():
    drawn = [*both(0.9, 0.9, slot="0"), *both(0.05, 0.05, slot="1", principle_id="law")]
    found = decided(drawn)
    assert (found.decided_by, found.prob_a) == ("hard/law", pytest.approx(0.05))
    assert decided(drawn, Ranks({}, frozenset())).prob_a == pytest.approx(0.475)


def test_constraint_after_reasoning_is_not_clamped():
    drawn = both(0.05, 0.05, slot="0", principle_id="law", form="reasoned")
    assert decided(drawn).decided_by == "hard/law"
    assert decided(drawn).prob_a == pytest.approx(0.05)


def test_constraints_that_reject_opposite_sides_leave_it_to_the_higher_priority():
    found = decided([*FOR_A, *hard("law", 0.02, 0.02), *hard("life", 0.95, 0.95)])
    assert (found.decided_by, found.prob_a) == ("hard/life", pytest.approx(0.95))


def test_constraints_of_one_priority_that_reject_opposite_sides_override_nothing_and_say_so():
    same = Ranks({"law": 1, "life": 1}, frozenset({"law", "life"}))
    rows = [*FOR_A, *hard("law", 0.02, 0.02), *hard("life", 0.95, 0.95)]
    found = decided(rows, same)
    assert (found.decided_by, found.prob_a) == ("labels", pytest.approx(0.9))
    row = ai_preference(ASK, comparison(), rows, PreferencesConfig(), same)[0]
    assert row.status == "ok" and "reject opposite sides" in (row.reason or "") and "law, life" in (row.reason or "")


def test_constraints_on_one_side_are_named_by_the_surest():
    found = decided([*FOR_A, *hard("law", 0.02, 0.02), *hard("life", 0.08, 0.08)])
    assert (found.decided_by, found.prob_a) == ("hard/law", pytest.approx(0.02))


# --- visible reasoning --------------------------------------------------------------------------------------------


def test_inconsistent_completion_is_rejected_with_its_own_probability():
    row = preference([*FOR_A, *consistency(0.1, 0.8)])
    assert (row.chosen, row.decided_by, row.target_prob) == ("text B", "consistency", pytest.approx(0.9))
    row = preference([*both(0.2, 0.2), *consistency(0.8, 0.3)])
    assert (row.chosen, row.decided_by, row.target_prob) == ("text A", "consistency", pytest.approx(0.7))


def test_inconsistent_completion_loses_to_one_without_reasoning():
    assert decided([*FOR_A, *consistency(0.1, None)]).prob_a == pytest.approx(0.1)


@pytest.mark.parametrize(("a", "b"), [(0.1, 0.2), (0.9, 0.8), (None, None), (0.5, None)])
def test_consistency_that_tells_the_sides_not_apart_overrides_nothing(a, b):
    found = decided([*FOR_A, *consistency(a, b)])
    assert (found.decided_by, found.prob_a) == ("labels", pytest.approx(0.9))


def test_consistency_that_could_not_be_judged_is_not_taken_for_consistent():
    rows = consistency(0.1, None, status="failed", reason="no mass")
    rows[0] = rows[0].model_copy(update={"status": "ok", "reason": None})
    assert decided([*FOR_A, *rows]).decided_by == "labels"


def test_consistency_of_several_evaluators_is_their_mean():
    rows = [*consistency(0.1, 0.9), *consistency(0.95, 0.9, evaluator="strict")]
    assert decided([*FOR_A, *rows]).decided_by == "labels"


def test_constraint_comes_before_consistency():
    found = decided([*FOR_A, *hard("law", 0.97, 0.97), *consistency(0.1, 0.9)])
    assert (found.decided_by, found.prob_a) == ("hard/law", pytest.approx(0.97))


# --- what of the constitution enters ------------------------------------------------------------------------------


def constitution(**of_first):
    principles = [principle("one", **of_first), principle("two")]
    return Constitution.model_validate({"id": "test", "title": "t", "description": "d", "principles": principles})


def test_ranks_slice_is_none_without_priorities_and_constraints_whatever_the_texts():
    assert Ranks.of(constitution()).slice is None
    assert Ranks.of(constitution(comparison_question="Which is kinder?")).slice is None


def test_ranks_slice_moves_with_a_priority_or_a_constraint():
    slices = {Ranks.of(constitution(**f)).slice for f in ({"priority": 1}, {"priority": 2}, {"hard_constraint": True})}
    assert len(slices) == 3 and None not in slices


def test_ranks_of_a_constitution_name_its_constraints():
    found = Ranks.of(constitution(hard_constraint=True, priority=4))
    assert found == Ranks({"one": 4, "two": 0}, frozenset({"one"}))
