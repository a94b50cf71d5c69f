import math

import pytest

from tasks.judging import ANSWERS, ORDERS
from tasks.label import Question, label
from tasks.preferences import ai_preferences, average_both_orders
from tasks.schema import Comparison
from tasks.serving import Choice, FakeGenerator
from tests.worlds import constitution_of, prompt, recipe

PRINCIPLES = constitution_of("one", "two").comparison_principles()


def comparison(a, b, **fields):
    values = {"row_id": "p/0", "reuse_key": "k", "prompt_id": prompt("ask").prompt_id}
    return Comparison.model_validate({**values, "completion_a": a, "completion_b": b, **fields})


def questions(*comparisons):
    return [Question(prompt("ask"), c, order) for c in comparisons for order in ORDERS]


def prefers(text, logit=2.0):
    """A judge that likes the option that holds `text`, wherever it stands."""

    def weigh(request):
        shown = request.messages[0].content
        first = shown.index("(A) ") < shown.index(text) < shown.index("(B) ")
        return (-0.1, -0.1 - logit) if first else (-0.1 - logit, -0.1)

    return FakeGenerator(weigh=weigh)


def always(letter):
    return FakeGenerator(weigh=lambda request: (-0.1, -3.0) if letter == "A" else (-3.0, -0.1))


def test_label_swapped_presentation_names_the_same_completion():
    ab, ba = label(questions(comparison("GOOD", "bad")), PRINCIPLES, prefers("GOOD"), "f", recipe())
    assert ab.prob_a == ba.prob_a == pytest.approx(1 / (1 + math.exp(-2)))
    assert (ab.logprob_a, ab.logprob_b) == (ba.logprob_a, ba.logprob_b)


def test_label_swapped_pair_flips_the_label():
    good_first = label(questions(comparison("GOOD", "bad")), PRINCIPLES, prefers("GOOD"), "f", recipe())
    good_last = label(questions(comparison("bad", "GOOD")), PRINCIPLES, prefers("GOOD"), "f", recipe())
    assert [r.prob_a for r in good_first] == pytest.approx([1 - r.prob_a for r in good_last])


@pytest.mark.parametrize("letter", ["A", "B"])
def test_label_judge_that_follows_the_position_averages_to_half(letter):
    rows = label(questions(comparison("x", "y")), PRINCIPLES, always(letter), "f", recipe())
    assert average_both_orders(rows) == pytest.approx(0.5)


def test_label_prompt_holds_the_conversation_the_question_and_the_options_in_order():
    generator = FakeGenerator()
    rows = label(questions(comparison("text {a}", "text (B)")), PRINCIPLES, generator, "f", recipe())
    shown = generator.choices[1].messages[0].content
    question = next(p.comparison_question for p in PRINCIPLES if p.id == rows[1].principle_id)
    parts = ["Human: ask", question, "(A) text (B)", "(B) text {a}", "The answer is:"]
    assert sorted(parts, key=shown.index) == parts
    assert rows[0].principle_id == rows[1].principle_id


def test_label_identical_pair_is_skipped_without_a_request():
    generator = FakeGenerator()
    same = comparison("x", "x", status="skipped", reason="identical pair")
    rows = label(questions(same), PRINCIPLES, generator, "f", recipe())
    assert [(r.status, r.prob_a) for r in rows] == [("skipped", None)] * 2
    assert generator.choices == []


def test_label_failed_choice_is_a_failed_row_and_its_preference_is_skipped():
    replies = iter([Choice(None, error="prompt has 9 tokens, the context holds 8"), Choice((-1.0, -2.0))])
    rows = label(
        questions(comparison("x", "y")), PRINCIPLES, FakeGenerator(weigh=lambda r: next(replies)), "f", recipe()
    )
    assert [r.status for r in rows] == ["failed", "ok"]
    preference = ai_preferences([prompt("ask")], [comparison("x", "y")], rows, 0.0)[0]
    assert preference.status == "skipped" and "9 tokens" in (preference.reason or "")


def test_preference_chosen_is_the_likelier_side_and_soft():
    pair = comparison("bad", "GOOD")
    rows = label(questions(pair), PRINCIPLES, prefers("GOOD"), "f", recipe())
    preference = ai_preferences([prompt("ask")], [pair], rows, 0.0)[0]
    assert (preference.chosen, preference.rejected) == ("GOOD", "bad")
    assert preference.target_prob == pytest.approx(1 / (1 + math.exp(-2)))


def test_preference_below_the_margin_is_kept_but_skipped():
    pair = comparison("x", "y")
    rows = label(questions(pair), PRINCIPLES, always("A"), "f", recipe())
    preference = ai_preferences([prompt("ask")], [pair], rows, 0.1)[0]
    assert preference.status == "skipped" and (preference.chosen, preference.rejected) == ("x", "y")


def test_answers_name_two_letters():
    assert ANSWERS == ("(A", "(B")
