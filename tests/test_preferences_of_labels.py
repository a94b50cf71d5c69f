"""Labels as the label stage makes them, in each of its forms, become the preferences that they should."""

import math
from typing import Any

import pytest

from tasks.preference.config import PreferencesConfig
from tasks.preference.decide import Decision, Ranks, decide
from tasks.serving import FakeGenerator
from tests.labelling import comparison, constitution, hard, labels_of, question_in
from tests.worlds import principle

PAIR = comparison("kind NASTY", "plain")
LAW = constitution(principle("one"), hard("law", weight=1e-9))  # hardly ever drawn


def judge(likes: dict[str, float], **fake: Any) -> FakeGenerator:
    """P(the option with NASTY is better) by a word of the question."""

    def weigh(request: Any) -> tuple[float, float]:
        shown = question_in(request)
        prob = next(p for word, p in likes.items() if word in shown)
        sides = math.log(prob), math.log(1 - prob)
        return sides if shown.index("(A) ") < shown.index("NASTY") < shown.index("(B) ") else sides[::-1]

    return FakeGenerator(weigh=weigh, **fake)


def decided(labels, of=LAW, **config) -> Decision:
    return decide(labels, PreferencesConfig(**config), Ranks.of(of))


def test_labels_under_one_principle_decide():
    found = decided(labels_of(PAIR, generator=judge({"under one": 0.8, "under law": 0.6}), of=LAW))
    assert (found.prob_a, found.decided_by) == (pytest.approx(0.8), "labels")


def test_labels_of_a_constraint_beside_the_principle_override_it():
    found = decided(labels_of(PAIR, generator=judge({"under one": 0.8, "under law": 0.03}), of=LAW))
    assert (found.prob_a, found.decided_by) == (pytest.approx(0.03), "hard/law")


def test_labels_of_a_constraint_that_was_drawn_override_the_other_principle():
    rows = labels_of(PAIR, generator=judge({"under one": 0.9, "under law": 0.03}), of=LAW, num_principles=2)
    assert {row.slot for row in rows} == {"0", "1"}
    assert (decided(rows).prob_a, decided(rows).decided_by) == (pytest.approx(0.03), "hard/law")


def test_labels_of_disagreeing_principles_are_settled_by_priority():
    ranked = constitution(principle("one"), principle("two", priority=1))
    rows = labels_of(PAIR, generator=judge({"under one": 0.9, "under two": 0.2}), of=ranked, num_principles=2)
    assert (decided(rows, ranked).prob_a, decided(rows, ranked).decided_by) == (pytest.approx(0.2), "priority")


def test_labels_after_reasoning_are_clamped_and_contradicting_ones_dropped():
    likes = {"under one": 0.9, "under law": 0.5}
    rows = labels_of(PAIR, generator=judge(likes, reply=lambda r: "Hard to say."), of=LAW, form="reasoned")
    assert decided(rows).prob_a == pytest.approx(0.6)
    rows = labels_of(PAIR, generator=judge(likes, reply=lambda r: "So (A) is better."), of=LAW, form="reasoned")
    assert [row.contradicts for row in rows if row.slot == "0"] == [False, True]
    assert decided(rows).prob_a is None and "contradict their answer" in (decided(rows).reason or "")
    assert decided(rows, contradictions="keep").prob_a == pytest.approx(0.6)


def test_labels_by_scores_compare_the_two_completions():
    def weigh(request: Any) -> tuple[float, ...]:
        best = 9 if "NASTY" in request.messages[-1].content else 2
        return tuple(0.0 if score == best else -50.0 for score in range(1, 11))

    rows = labels_of(PAIR, generator=FakeGenerator(weigh=weigh), form="score")
    assert decide(rows, PreferencesConfig(), Ranks({}, frozenset())).prob_a == pytest.approx(1.0)


def test_labels_of_the_whole_constitution_at_once_decide():
    generator = judge({"Which is better under one?\n- Which is better under two?": 0.7})
    rows = labels_of(PAIR, generator=generator, principles="all")
    assert decide(rows, PreferencesConfig(), Ranks({}, frozenset())).prob_a == pytest.approx(0.7)


def test_labels_of_an_inconsistent_completion_reject_it():
    reasoned = comparison("<think>It is wrong.</think>NASTY it is right", "<think>It is right.</think>it is right")

    def weigh(request: Any) -> tuple[float, float]:
        text = request.messages[-1].content
        if "Which is better" in text:
            return -0.1, -0.1
        prob = 0.1 if "NASTY" in text else 0.9
        return math.log(prob), math.log(1 - prob)

    rows = labels_of(reasoned, generator=FakeGenerator(weigh=weigh), visible_reasoning="judged")
    found = decide(rows, PreferencesConfig(), Ranks({}, frozenset()))
    assert (found.prob_a, found.decided_by) == (pytest.approx(0.1), "consistency")


def test_labels_of_an_identical_pair_make_a_skipped_preference():
    same = comparison("x", "x", status="skipped", reason="identical pair")
    rows = labels_of(same, generator=FakeGenerator(), of=LAW, visible_reasoning="judged")
    found = decided(rows)
    assert found.prob_a is None and found.reason == "comparison is skipped: identical pair"
