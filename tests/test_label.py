import math
from statistics import fmean

import pytest
from pydantic import ValidationError

from tasks.judging import ANSWERS, CONCLUDE, SCORES, STEP_BY_STEP
from tasks.label import LabelConfig
from tasks.serving import Choice, FakeGenerator, Generation
from tests.labelling import (
    TWO,
    always,
    comparison,
    constitution,
    demonstration,
    hard,
    kept_by,
    labels_of,
    numbered,
    prefers,
    question_in,
)
from tests.worlds import constitution_of, principle, prompt

THINKS = "<think>It hurts people.</think>I will not."


def names(rows):
    return [row.row_id for row in rows]


def test_label_swapped_presentation_names_the_same_completion():
    ab, ba = labels_of(comparison("GOOD", "bad"), generator=prefers("GOOD"))
    assert ab.prob_a == ba.prob_a == pytest.approx(1 / (1 + math.exp(-2)))
    assert (ab.logprob_a, ab.logprob_b) == (ba.logprob_a, ba.logprob_b)
    assert (ab.order, ba.order) == ("ab", "ba")


def test_label_swapped_pair_flips_the_label():
    good_first = labels_of(comparison("GOOD", "bad"), generator=prefers("GOOD"))
    good_last = labels_of(comparison("bad", "GOOD"), generator=prefers("GOOD"))
    assert [r.prob_a for r in good_first] == pytest.approx([1 - r.prob_a for r in good_last])


@pytest.mark.parametrize("letter", ["A", "B"])
def test_label_judge_that_follows_the_position_averages_to_half(letter):
    rows = labels_of(comparison("x", "y"), generator=always(letter))
    assert fmean(row.prob_a for row in rows) == pytest.approx(0.5)


def test_label_prompt_holds_the_conversation_the_question_and_the_options_in_order():
    generator = FakeGenerator()
    rows = labels_of(comparison("text {a}", "text (B)"), generator=generator)
    shown = generator.choices[1].messages[0].content
    question = next(p.comparison_question for p in TWO.principles if p.id == rows[1].principle_id)
    parts = ["Human: ask", question, "(A) text (B)", "(B) text {a}", "The answer is:"]
    assert sorted(parts, key=shown.index) == parts
    assert rows[0].principle_id == rows[1].principle_id


def test_label_identical_pair_is_skipped_without_a_request():
    generator = FakeGenerator()
    same = comparison("x", "x", status="skipped", reason="identical pair")
    rows = labels_of(same, generator=generator)
    assert [(r.status, r.prob_a) for r in rows] == [("skipped", None)] * 2
    assert rows[0].reason == "comparison is skipped: identical pair"
    assert generator.choices == []


def test_label_failed_choice_is_a_failed_row():
    replies = iter([Choice(None, error="prompt has 9 tokens, the context holds 8"), Choice((-1.0, -2.0))])
    rows = labels_of(comparison("x", "y"), generator=FakeGenerator(weigh=lambda r: next(replies)))
    assert [r.status for r in rows] == ["failed", "ok"]
    assert rows[0].prob_a is None and "9 tokens" in (rows[0].reason or "")


def test_label_missing_mass_is_a_failure_that_says_how_much_there_was():
    judge = FakeGenerator(weigh=lambda r: (math.log(2e-6), math.log(1e-6)))
    row = labels_of(comparison("x", "y"), generator=judge)[0]
    assert (row.status, row.prob_a) == ("failed", None)
    assert "3e-06" in (row.reason or "") and "0.0001" in (row.reason or "")
    assert row.logprob_a == math.log(2e-6)  # what there was is kept
    assert labels_of(comparison("x", "y"), generator=judge, min_answer_mass=1e-6)[0].status == "ok"


def test_label_without_any_mass_is_a_failure_in_both_forms():
    never = FakeGenerator(weigh=lambda r: [-math.inf] * (10 if "(J)" in r.messages[-1].content else 2))
    assert {r.status for r in labels_of(comparison("x", "y"), generator=never)} == {"failed"}
    rows = labels_of(comparison("x", "y"), generator=never, form="score")
    assert [(r.status, r.score_probs) for r in rows] == [("failed", None)] * 2


def test_label_kept_row_is_judged_by_the_present_limit_without_a_request():
    made = labels_of(comparison("x", "y"), generator=FakeGenerator(weigh=lambda r: (-5.0, -6.0)))
    again = FakeGenerator()
    rows = labels_of(comparison("x", "y"), generator=again, reuse=kept_by(made), min_answer_mass=0.5)
    assert {r.status for r in rows} == {"failed"} and {r.prob_a for r in rows} == {None}
    assert again.choices == []


def test_answers_name_two_letters_and_scores_ten():
    assert ANSWERS == ("(A", "(B")
    assert tuple(f"({letter}" for letter in "ABCDEFGHIJ") == SCORES


# several principles, hard constraints


def test_label_rows_come_slot_by_slot_in_both_orders():
    three = constitution(principle("one"), principle("two"), hard("never"))
    rows = labels_of(comparison("x", "y"), generator=FakeGenerator(), of=three, num_principles=2, seed=3)
    drawn = [row.principle_id for row in rows]
    assert names(rows)[:4] == ["p/0/f/0/ab", "p/0/f/0/ba", "p/0/f/1/ab", "p/0/f/1/ba"]
    assert drawn[0] == drawn[1] != drawn[2] == drawn[3]
    rest = [] if "never" in drawn[:4] else ["p/0/f/hard/never/ab", "p/0/f/hard/never/ba"]
    assert names(rows)[4:] == rest


def test_label_hard_constraint_that_was_drawn_is_not_asked_again():
    of = constitution(principle("one"), hard("never"))
    for number in range(20):
        rows = labels_of(comparison("x", "y", row_id=f"p/{number}"), generator=FakeGenerator(), of=of)
        asked = [(row.slot, row.principle_id) for row in rows[::2]]
        assert asked in ([("0", "never")], [("0", "one"), ("hard/never", "never")])


def test_label_fewer_principles_than_asked_for_are_all_drawn_once():
    rows = labels_of(comparison("x", "y"), generator=FakeGenerator(), num_principles=5)
    assert sorted(row.principle_id for row in rows) == ["one", "one", "two", "two"]


def test_label_all_principles_are_one_question():
    generator = FakeGenerator()
    of = constitution(principle("zeta"), principle("alpha"), principle("off", enabled=False), hard("never"))
    rows = labels_of(comparison("x", "y"), generator=generator, of=of, principles="all")
    assert [row.slot for row in rows[::2]] == ["all", "hard/never"]
    assert rows[0].principle_id == "all" and len(rows[0].principle_hash) == 64
    lines = [line for line in question_in(generator.choices[0]).split("\n") if line.startswith("- ")]
    assert lines == [f"- Which is better under {name}?" for name in ("alpha", "never", "zeta")]


def test_label_same_question_in_two_slots_is_asked_once():
    generator = FakeGenerator()
    twins = constitution(principle("one"), principle("twin", comparison_question="Which is better under one?"))
    rows = labels_of(comparison("x", "y"), generator=generator, of=twins, num_principles=2)
    assert len(rows) == 4 and len(generator.choices) == 2
    assert {row.status for row in rows} == {"ok"} and len(set(names(rows))) == 4


# reasoned


def thinker(reasoning, logit=2.0):
    return prefers("GOOD", logit, reply=reasoning)


def test_label_reasoned_answer_is_asked_after_the_reasoning():
    generator = thinker(" (A) is kinder. So (A) is better.")
    row = labels_of(comparison("GOOD", "bad"), generator=generator, form="reasoned")[0]
    (thought, _), (answered, _) = generator.requests, generator.choices
    assert thought.prefix == STEP_BY_STEP and [m.role for m in thought.messages] == ["user"]
    assert thought.messages[0].content.endswith("(A) GOOD\n(B) bad")
    assert [m.role for m in answered.messages] == ["user", "assistant", "user"]
    assert answered.messages[1].content == f"{STEP_BY_STEP} (A) is kinder. So (A) is better."
    assert answered.messages[2].content == CONCLUDE
    assert row.reasoning == "(A) is kinder. So (A) is better." and row.num_tokens > 0
    assert (row.form, row.status, row.concludes, row.contradicts) == ("reasoned", "ok", "a", False)


def test_label_reasoned_conclusion_is_unswapped_and_its_contradiction_found():
    ab, ba = labels_of(comparison("GOOD", "bad"), generator=thinker("So (A) is better."), form="reasoned")
    assert (ab.concludes, ab.contradicts) == ("a", False)
    assert (ba.concludes, ba.contradicts) == ("b", True)  # there (A) was the other one


def test_label_reasoned_without_a_conclusion_contradicts_nothing():
    rows = labels_of(comparison("GOOD", "bad"), generator=thinker("Who knows?"), form="reasoned")
    assert [(row.concludes, row.contradicts) for row in rows] == [(None, None)] * 2


def test_label_reasoned_samples_differ_by_seed_and_raising_their_number_keeps_the_first():
    generator = thinker("So (A) is better.")
    rows = labels_of(comparison("GOOD", "bad"), generator=generator, form="reasoned", num_samples=3)
    assert names(rows) == [f"p/0/f/0/{order}/{sample}" for order in ("ab", "ba") for sample in range(3)]
    assert [row.sample for row in rows] == [0, 1, 2] * 2
    assert len({request.seed for request in generator.requests}) == 6
    single = labels_of(comparison("GOOD", "bad"), generator=generator, form="reasoned")
    assert names(single) == ["p/0/f/0/ab", "p/0/f/0/ba"]
    assert {row.reuse_key for row in single} < {row.reuse_key for row in rows}


@pytest.mark.parametrize(
    ("reply", "status", "words"),
    [
        (Generation("", "stop"), "unparsable", "the reasoning is empty"),
        (Generation("I", "content_filter"), "refused", "refused to write the reasoning"),
        (Generation(None, error="too long"), "failed", "too long"),
    ],
)
def test_label_reasoning_that_comes_to_nothing_ends_the_row_without_an_answer(reply, status, words):
    generator = thinker(lambda request: reply)
    rows = labels_of(comparison("GOOD", "bad"), generator=generator, form="reasoned")
    assert {row.status for row in rows} == {status} and words in (rows[0].reason or "")
    assert generator.choices == [] and {row.prob_a for row in rows} == {None}


def test_label_sampling_of_the_reasoning_remakes_reasoned_rows_only():
    of = constitution(principle("one"), hard("never"))
    pair, hot = comparison("GOOD", "bad", row_id="p/1"), {"temperature": 0.5}
    made = labels_of(pair, generator=thinker("Hm."), of=of, form="reasoned")
    assert [row.form for row in made] == ["reasoned"] * 2 + ["soft"] * 2
    again = thinker("Hm.")
    labels_of(pair, generator=again, of=of, form="reasoned", reasoning=hot, reuse=kept_by(made))
    assert (len(again.requests), len(again.choices)) == (2, 2)


def test_label_several_samples_of_what_is_not_sampled_are_refused():
    with pytest.raises(ValidationError, match="num_samples: 5 needs form: reasoned, got form: soft"):
        LabelConfig(num_samples=5)
    with pytest.raises(ValidationError, match="one and the same at reasoning"):
        LabelConfig(form="reasoned", num_samples=5, reasoning={"temperature": 0})
    with pytest.raises(ValidationError, match="num_principles: 2 needs principles: drawn"):
        LabelConfig(num_principles=2, principles="all")


# scores, visible reasoning


def test_label_score_is_a_distribution_for_each_completion_alone():
    judge = FakeGenerator(
        weigh=lambda r: [0.0 if ("GOOD" in r.messages[-1].content) == (i == 9) else -3 for i in range(10)]
    )
    a, b = labels_of(comparison("GOOD", "bad"), generator=judge, form="score")
    assert names([a, b]) == ["p/0/f/0/a", "p/0/f/0/b"]
    assert (a.form, a.prob_a, a.logprob_a) == ("score", None, None)
    assert sum(a.score_probs) == pytest.approx(1) and a.score_probs[9] == max(a.score_probs)
    assert b.score_probs[9] == min(b.score_probs)
    shown = judge.choices[0].messages[-1].content
    assert "Assistant: GOOD" in shown and "bad" not in shown


def test_label_score_asks_hard_constraints_as_comparisons():
    weigh = FakeGenerator(weigh=lambda r: [-2.5] * (10 if "(J)" in r.messages[-1].content else 2))
    rows = labels_of(
        comparison("x", "y", row_id="p/1"),
        generator=weigh,
        of=constitution(principle("one"), hard("never")),
        form="score",
    )
    assert [(row.form, row.order) for row in rows] == [("score", "a"), ("score", "b"), ("soft", "ab"), ("soft", "ba")]
    assert rows[2].prob_a == 0.5


def test_label_visible_reasoning_is_judged_and_its_absence_is_said():
    judge = FakeGenerator(weigh=lambda r: (-0.1, -2.1))
    rows = labels_of(comparison(THINKS, "I will not."), generator=judge, visible_reasoning="judged")
    a, b = rows[2:]
    assert names([a, b]) == ["p/0/f/consistency/a", "p/0/f/consistency/b"]
    assert a.prob_consistent == pytest.approx(1 / (1 + math.exp(-2))) and a.prob_a is None
    assert (b.status, b.reason, b.prob_consistent) == ("skipped", "no visible reasoning", None)
    shown = judge.choices[-1].messages[-1].content
    assert "Reasoning: It hurts people.\n" in shown and "Answer: I will not.\n" in shown
    assert len(judge.choices) == 3


def test_label_visible_reasoning_is_ignored_by_default():
    assert len(labels_of(comparison(THINKS, THINKS + "!"), generator=FakeGenerator())) == 2


# reuse


def test_label_kept_rows_take_the_present_names_and_no_request():
    made = labels_of(comparison("GOOD", "bad"), generator=prefers("GOOD"), of=constitution_of("one"), evaluator="old")
    renamed = constitution(principle("other") | {"comparison_question": "Which is better under one?"})
    again = FakeGenerator()
    rows = labels_of(comparison("GOOD", "bad"), generator=again, of=renamed, evaluator="new", reuse=kept_by(made))
    assert again.choices == []
    assert names(rows) == ["p/0/new/0/ab", "p/0/new/0/ba"]
    assert {(row.evaluator, row.principle_id) for row in rows} == {("new", "other")}
    assert [row.prob_a for row in rows] == [row.prob_a for row in made]


def test_label_kept_row_moves_to_another_slot():
    made = labels_of(comparison("x", "y"), generator=FakeGenerator(), num_principles=2)
    removed = constitution_of(made[2].principle_id)
    again = FakeGenerator()
    rows = labels_of(comparison("x", "y"), generator=again, of=removed, reuse=kept_by(made))
    assert [(row.slot, row.row_id) for row in rows] == [("0", "p/0/f/0/ab"), ("0", "p/0/f/0/ba")]
    assert again.choices == []


def test_label_key_follows_order_form_and_text():
    of = constitution_of("one")
    pairs = [comparison("x", "y"), comparison("x", "z")]
    variants = [
        labels_of(pair, generator=prefers("x", reply="Hm."), of=of, form=form)
        for pair in pairs
        for form in ("soft", "reasoned")
    ]
    keys = [row.reuse_key for rows in variants for row in rows]
    assert len(set(keys)) == len(keys) == 8


# demonstrations


def shown_before(request):
    return [m.content for m in request.messages[:-1]]


def test_label_demonstrations_come_first_and_are_the_same_for_a_selection():
    of = constitution(principle("one"), comparison_demonstrations=[demonstration("kind"), demonstration("calm")])
    generator = FakeGenerator()
    labels_of(*numbered(40), generator=generator, of=of, demonstrations={"num_variants": 8})
    before = [tuple(shown_before(request)) for request in generator.choices]
    assert 1 < len(set(before)) <= 8 and all(len(turns) == 4 for turns in before)
    assert before[::2] == before[1::2]  # both orders of a comparison share theirs
    assert all(turns[1] in ("(A)", "(B)") for turns in before)


def test_label_reasoned_demonstrations_are_those_with_reasoning_and_hard_constraints_show_the_plain_ones():
    reasoned = demonstration("kind", reasoning="(A) is kinder.")
    of = constitution(principle("one"), hard("never"), comparison_demonstrations=[reasoned, demonstration("calm")])
    generator = FakeGenerator(reply="Hm.")
    pair = comparison("x", "y", row_id="p/1")
    assert len(labels_of(pair, generator=generator, of=of, form="reasoned")) == 4
    assert len(shown_before(generator.requests[0])) == 4
    assert shown_before(generator.requests[0])[1].startswith(STEP_BY_STEP)
    asked_plainly = [r for r in generator.choices if len(r.messages) == 5]
    assert len(asked_plainly) == 2 and not any(STEP_BY_STEP in m.content for r in asked_plainly for m in r.messages)


def test_label_demonstration_that_a_row_did_not_show_can_be_removed():
    demonstrations = [demonstration(name) for name in ("kind", "calm", "clear", "short")]
    of = constitution(principle("one"), comparison_demonstrations=demonstrations)
    settings = {"demonstrations": {"num_shown": 2, "num_variants": 0}}
    pairs = list(numbered(60))
    made = labels_of(*pairs, generator=FakeGenerator(), of=of, **settings)
    again = FakeGenerator()
    fewer = constitution(principle("one"), comparison_demonstrations=demonstrations[1:])
    rows = labels_of(*pairs, generator=again, of=fewer, reuse=kept_by(made), **settings)
    first = FakeGenerator()
    labels_of(*pairs, generator=first, of=of, **settings)
    showed = [any("Say kind." in m.content for m in request.messages) for request in first.choices]
    assert len(again.choices) == sum(showed) and 0 < sum(showed) < len(showed)
    assert {row.status for row in rows} == {"ok"}


def test_label_prompt_id_is_the_comparisons():
    assert labels_of(comparison("x", "y"), generator=FakeGenerator())[0].prompt_id == prompt("ask").prompt_id
