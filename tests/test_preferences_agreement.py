"""Kappas by hand, and agreement between evaluators and with people."""

import pytest

from tasks.human_labels import HumanLabel
from tasks.preference.agreement import (
    ALL,
    answers_of,
    cohen_kappa,
    fleiss_kappa,
    human_agreement,
    judged_by_people,
    jury_agreement,
    jury_kappa,
)
from tests.judged_rows import both, consistency


def test_cohen_kappa_by_hand():
    # 20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: observed 0.7, expected 0.5 * 0.6 + 0.5 * 0.4 = 0.5
    first = ["a"] * 25 + ["b"] * 25
    second = ["a"] * 20 + ["b"] * 5 + ["a"] * 10 + ["b"] * 15
    assert cohen_kappa(first, second) == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [("abab", "abab", 1.0), ("abab", "baba", -1.0), ("aabb", "abab", 0.0), ("aaaa", "aaaa", None), ("", "", None)],
)
def test_cohen_kappa_at_its_ends(first, second, expected):
    assert cohen_kappa(first, second) == (None if expected is None else pytest.approx(expected))


def test_cohen_kappa_of_unequal_lists_is_refused():
    with pytest.raises(ValueError, match="1 ratings and 2"):
        cohen_kappa("a", "ab")


def test_fleiss_kappa_by_hand():
    # the example of Fleiss (1971) as it is often shown: 14 raters, 10 items, 5 categories, kappa 0.210
    counts = [
        (0, 0, 0, 0, 14), (0, 2, 6, 4, 2), (0, 0, 3, 5, 6), (0, 3, 9, 2, 0), (2, 2, 8, 1, 1),
        (7, 7, 0, 0, 0), (3, 2, 6, 3, 0), (2, 5, 3, 2, 2), (6, 5, 2, 1, 0), (0, 2, 2, 3, 7),
    ]  # fmt: skip
    ratings = [[name for name, count in zip("12345", row, strict=True) for _ in range(count)] for row in counts]
    assert fleiss_kappa(ratings) == pytest.approx(0.210, abs=0.0005)


def test_fleiss_kappa_needs_as_many_ratings_for_each_item():
    with pytest.raises(ValueError, match=r"items with \[2, 3\] ratings"):
        fleiss_kappa(["ab", "abb"])
    assert fleiss_kappa([]) is None and fleiss_kappa(["aa", "aa"]) is None


def test_answers_leave_out_consistency_and_constraints_and_clamp_nothing():
    rows = [
        *both(0.9, 0.7, form="reasoned", contradicts=True),
        *both(0.1, 0.1, slot="hard/law", principle_id="law"),
        *consistency(0.1, 0.9),
        *both(0.2, 0.2, comparison_id="p/1", evaluator="strict"),
    ]
    assert answers_of(rows) == {"p/0": {"feedback": pytest.approx(0.8)}, "p/1": {"strict": pytest.approx(0.2)}}


ANSWERS = {
    "p/0": {"x": 0.9, "y": 0.6, "z": 0.1},
    "p/1": {"x": 0.2, "y": 0.1, "z": 0.3},
    "p/2": {"x": 0.8, "y": 0.3},
    "p/3": {"x": 0.5, "y": 0.5, "z": 0.5},
}


def test_jury_agreement_is_of_every_two_on_what_both_answered():
    found = {(pair.first, pair.second): pair for pair in jury_agreement(ANSWERS)}
    assert {names: pair.num for names, pair in found.items()} == {("x", "y"): 4, ("x", "z"): 3, ("y", "z"): 3}
    assert found["x", "y"].agreement == pytest.approx(3 / 4)
    # sides a b a tie and a b b tie: expected (2 * 1 + 1 * 2 + 1 * 1) / 16
    assert found["x", "y"].kappa == pytest.approx((3 / 4 - 5 / 16) / (11 / 16))


def test_jury_kappa_is_of_what_all_answered():
    num, kappa = jury_kappa(ANSWERS)
    # a a b, b b b, tie tie tie: observed (1/3 + 1 + 1) / 3, expected (2^2 + 4^2 + 3^2) / 81
    assert num == 3 and kappa == pytest.approx((7 / 9 - 29 / 81) / (52 / 81))
    assert jury_kappa({"p/0": {"x": 0.9}}) == (1, None)


def person(number: int, better: str, principle_id: str = "one", **fields) -> HumanLabel:
    values = {"row_id": f"{number}", "reuse_key": "k", "prompt_id": f"p{number}", "comparison_hash": "h", "order": "ab"}
    values |= {"principle_id": principle_id, "principle_hash": f"hash of {principle_id}", "better": better}
    return HumanLabel.model_validate({**values, "comparison_id": f"p/{number}", **fields})


def test_human_agreement_counts_a_tie_half_and_is_per_principle():
    labels = [
        *both(0.9, 0.9, comparison_id="p/0"),
        *both(0.9, 0.9, comparison_id="p/1"),
        *both(0.2, 0.2, comparison_id="p/2"),
        *both(0.7, 0.7, comparison_id="p/3", principle_id="two"),
    ]
    people = [person(0, "a"), person(1, "tie"), person(2, "a"), person(3, "a", "two")]
    found = {row.principle_id: row for row in human_agreement(judged_by_people(labels, people))}
    assert {name: (row.num, row.agreement) for name, row in found.items()} == {
        ALL: (4, pytest.approx(2.5 / 4)),
        "one": (3, pytest.approx(1.5 / 3)),
        "two": (1, 1.0),
    }
    assert 0 <= found[ALL].low < found[ALL].agreement < found[ALL].high <= 1
    assert (found["two"].low, found["two"].high) == (0, 1)  # one prompt
    # model a a b a, people a tie a a: observed 2/4, expected (3 * 3 + 1 * 0) / 16
    assert found[ALL].kappa == pytest.approx((2 / 4 - 9 / 16) / (7 / 16))


def test_judged_by_people_joins_the_same_question_only():
    labels = [*both(0.9, 0.9, slot="0"), *both(0.2, 0.2, slot="1", principle_id="two")]
    (row,) = judged_by_people(labels, [person(0, "a", "two")])
    assert (row.prob_a, row.better, row.unit) == (pytest.approx(0.2), "a", "p0")
    assert judged_by_people(labels, [person(0, "a", principle_hash="another wording")]) == []
    assert judged_by_people(labels, [person(7, "a")]) == []
