"""What each round is worth to the feedback model, and when a round does not count as an improvement."""

import pytest

from constitutions import draw
from tasks.chunks import forecast_rows
from tasks.improve import Case, ImproveConfig, ImproveStage, improve, improvement_of, read_cases, shortfall
from tasks.schema import Completion, Improvement, Prompt, Revision
from tasks.serving import Choice, FakeGenerator
from tasks.stage import RunContext
from tests.revision_world import kept_of
from tests.worlds import (
    FAKE_MODEL,
    commit,
    commit_constitution,
    constitution_of,
    open_store,
    prompt,
    recipe,
    rows_of,
    session_on,
)

CONSTITUTION = constitution_of("one", "two", "three")
PRINCIPLES = CONSTITUTION.comparison_principles()


def revision(asked, number, text, status="ok", reason=None):
    names = {"row_id": f"{asked.prompt_id}/{number}", "reuse_key": f"{asked.prompt_id}/{number}/{text}"}
    principle = {"principle_id": "one", "principle_hash": "h", "critique_request": "c?", "revision_request": "r?"}
    return Revision(
        **names, prompt_id=asked.prompt_id, round=number, **principle, critique="c", revision=text, status=status,
        reason=reason,
    )  # fmt: skip


def case(text="kind", before="rude", ask="Ask.", number=0, **fields):
    asked = prompt(ask)
    return Case(asked, revision(asked, number, text, **fields), before)


def prefers(text, strength=2.0):
    """A feedback model that likes one text, wherever it stands, and always leans to the first position."""

    def weigh(request):
        first, second = request.messages[-1].content.split("Options:\n(A) ")[1].split("\n(B) ")
        lead = strength * (first == text) - strength * second.startswith(f"{text}\n") + 0.5
        return (lead, 0.0)

    return FakeGenerator(weigh=weigh)


def test_improve_compares_revision_and_earlier_text_in_both_orders_under_a_drawn_question():
    generator = prefers("kind")
    (row,) = improve([case()], PRINCIPLES, generator, recipe(seed=4))
    drawn = draw(PRINCIPLES, 4, "improve", row.prompt_id, 0)
    assert (row.principle_id, row.principle_hash) == (drawn.id, drawn.comparison_hash)
    shown = [choice.messages[-1].content for choice in generator.choices]
    assert len(shown) == 2 and all(drawn.comparison_question in text for text in shown)
    assert "(A) kind\n(B) rude" in shown[0] and "(A) rude\n(B) kind" in shown[1]
    assert row.win_prob is not None and 0.8 < row.win_prob < 0.9 and row.status == "ok"


def test_improve_each_round_of_each_prompt_draws_its_own_principle():
    cases = [case(ask=f"Ask {i}.", number=number) for i in range(20) for number in range(2)]
    rows = improve(cases, PRINCIPLES, prefers("kind"), recipe(seed=4))
    drawn = [draw(PRINCIPLES, 4, "improve", row.prompt_id, row.round).id for row in rows]
    assert [row.principle_id for row in rows] == drawn
    assert drawn[::2] != drawn[1::2] and set(drawn) == {"one", "two", "three"}


def test_improve_swapped_texts_give_the_other_probability():
    (better,), (worse,) = (
        improve([case(*texts)], PRINCIPLES, prefers("kind"), recipe()) for texts in (("kind", "rude"), ("rude", "kind"))
    )
    assert better.win_prob is not None and worse.win_prob is not None
    assert better.win_prob + worse.win_prob == pytest.approx(1)


def test_improve_position_alone_leaves_it_at_half():
    (row,) = improve([case()], PRINCIPLES, prefers("neither"), recipe())
    assert row.win_prob == pytest.approx(0.5)


def test_improve_no_op_stands_at_half_and_a_round_without_revision_has_none():
    generator = FakeGenerator()
    cases = [
        case("rude", status="skipped", reason="no-op: the revision repeats the text"),
        case(None, status="skipped", reason="all four checks passed: nothing to revise"),
        case("Critique: bad", status="unparsable", reason="point-of-view confusion: ..."),
    ]
    rows = improve(cases, PRINCIPLES, generator, recipe())
    assert [(row.win_prob, row.status) for row in rows] == [(0.5, "skipped"), (None, "skipped"), (None, "skipped")]
    assert rows[0].reason == "no-op: the revision repeats the text"
    assert rows[2].reason == "revision is unparsable: point-of-view confusion: ..."
    assert not generator.choices


def test_improve_failed_answer_is_a_failed_row_and_the_others_keep_theirs():
    answers = iter([Choice(None, error="too long"), Choice((0.0, 0.0)), Choice((1.0, 0.0)), Choice((0.0, 1.0))])
    rows = improve([case(), case(ask="B.")], PRINCIPLES, FakeGenerator(weigh=lambda r: next(answers)), recipe())
    assert (rows[0].status, rows[0].reason, rows[0].win_prob) == ("failed", "too long", None)
    assert rows[1].status == "ok" and rows[1].win_prob == pytest.approx(0.731, abs=1e-3)


def test_improve_kept_rows_ask_nothing_and_are_written_under_the_principle_of_now():
    same = [p.model_copy(update={"comparison_question": "Which is better?"}) for p in PRINCIPLES]
    rows = improve([case(), case(ask="B.")], same, prefers("kind"), recipe())
    renamed = [p.model_copy(update={"id": f"new-{p.id}"}) for p in same]
    idle = FakeGenerator()
    again = improve([case(), case(ask="B.")], renamed, idle, recipe(), kept_of(rows))
    assert not idle.choices and [row.win_prob for row in again] == [row.win_prob for row in rows]
    assert all(row.principle_id.startswith("new-") for row in again)


def test_improve_reworded_question_or_another_text_asks_again_and_only_there():
    cases = [case(ask=f"Ask {i}.") for i in range(20)]
    rows = improve(cases, PRINCIPLES, prefers("kind"), recipe())
    reworded = [p.model_copy(update={"comparison_question": "Kinder?"}) if p.id == "two" else p for p in PRINCIPLES]
    generator = prefers("kind")
    improve(cases, reworded, generator, recipe(), kept_of(rows))
    drew_two = sum(row.principle_id == "two" for row in rows)
    assert 0 < drew_two < 20 and len(generator.choices) == 2 * drew_two
    other = [case("kinder", ask="Ask 0."), case(before="ruder", ask="Ask 1."), *cases[2:]]
    generator = prefers("kind")
    improve(other, PRINCIPLES, generator, recipe(), kept_of(rows))
    assert len(generator.choices) == 2 * 2


def measured(round, *probs, prompts=None):
    names = prompts or [f"p{i}" for i in range(len(probs))]
    common = {"reuse_key": "k", "round": round, "principle_id": "one", "principle_hash": "h"}
    return [
        Improvement(row_id=f"{n}/{round}/{i}", prompt_id=n, win_prob=p, status="ok" if p else "skipped", **common)
        for i, (n, p) in enumerate(zip(names, probs, strict=True))
    ]


def test_improvement_of_a_round_is_the_mean_of_its_own_rows_that_have_a_figure():
    rows = [*measured(0, 0.9, 0.7, None), *measured(1, 0.1)]
    found = improvement_of(rows, 0)
    assert found is not None
    assert (found.mean, found.num_samples, found.num_units) == (pytest.approx(0.8), 2, 2)
    assert 0.7 <= found.low <= found.mean <= found.high <= 0.9
    assert improvement_of(rows, 2) is None and improvement_of(measured(0, None), 0) is None


def test_shortfall_names_round_figure_interval_and_limit():
    rows = measured(1, *[0.5, 0.6, 0.4] * 20)
    said = shortfall(rows, 1, ImproveConfig()) or ""
    assert "round 2" in said and "0.500" in said and "60 prompts" in said and "min_win_prob = 0.5" in said
    assert "no revision that could be compared" in (shortfall(rows, 0, ImproveConfig()) or "")


def test_shortfall_asks_for_the_lower_end_and_not_the_mean():
    unsure, sure = measured(0, 0.95, 0.2, 0.9, 0.3), measured(0, *[0.7, 0.6] * 30)
    assert shortfall(unsure, 0, ImproveConfig()) and not shortfall(sure, 0, ImproveConfig())
    assert shortfall(sure, 0, ImproveConfig(min_win_prob=0.64))


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path)


def stage_on(store, revisions, prompts=None, constitution=CONSTITUTION, **config):
    prompts = prompts or [prompt("Ask 0."), prompt("Ask 1.")]
    given = [
        Completion(row_id=f"{p.prompt_id}/0", reuse_key=p.prompt_id, prompt_id=p.prompt_id, sample=0, completion="rude")
        for p in prompts
    ]
    return ImproveStage(
        run=RunContext(),
        prompts=commit(store, "prompts", prompts, Prompt),
        completions=commit(store, "completions", given, Completion),
        revisions=commit(store, "revisions", revisions, Revision),
        constitution=commit_constitution(store, constitution),
        feedback=FAKE_MODEL,
        config=ImproveConfig(**config),
    )


def test_improve_stage_compares_each_round_with_the_newest_good_text_before_it(store):
    asks = [prompt("Ask 0."), prompt("Help me.", kind="helpful"), prompt("Ask 1.")]
    no_op = {"status": "skipped", "reason": "no-op: the revision repeats the text"}
    rows = [
        revision(asks[0], 0, "one"),
        revision(asks[0], 1, "Critique: bad", status="unparsable", reason="confused"),
        revision(asks[0], 2, "two"),
        revision(asks[2], 0, "rude", **no_op),
        revision(asks[2], 1, "three"),
        revision(asks[2], 2, "four"),
    ]
    stage = stage_on(store, rows, asks)
    cases = list(read_cases(store, stage.prompts, stage.completions, stage.revisions))
    assert [c.before for c in cases] == ["rude", "one", "one", "rude", "rude", "three"]
    assert [c.prompt.messages[0].content for c in cases] == ["Ask 0."] * 3 + ["Ask 1."] * 3
    generator = FakeGenerator()
    forecast = forecast_rows(stage, store)
    made = stage.make(session_on(store, generator))
    assert (forecast.rows, forecast.to_make, stage.num_rows(store)) == (6, 4, 6) == (made.rows, 4, made.rows)
    assert len(generator.choices) == 2 * 4
    assert [row.row_id for row in rows_of(store, made, Improvement)] == [row.row_id for row in rows]


def test_improve_stage_one_more_round_asks_only_for_that(store):
    asks = [prompt("Ask 0."), prompt("Ask 1.")]
    first = [revision(asks[0], 0, "one"), revision(asks[1], 0, "three")]
    stage_on(store, first).make(session_on(store, FakeGenerator()))
    more = [first[0], revision(asks[0], 1, "two"), first[1], revision(asks[1], 1, "four")]
    generator = FakeGenerator()
    assert forecast_rows(stage_on(store, more), store).to_make == 2
    stage_on(store, more).make(session_on(store, generator))
    assert len(generator.choices) == 2 * 2


def test_improve_stage_the_gate_is_no_part_of_what_was_measured(store):
    rows = [revision(prompt("Ask 0."), 0, "one"), revision(prompt("Ask 1."), 0, "two")]
    version = stage_on(store, rows, gate="stop").derivation(store).version
    assert stage_on(store, rows, gate="measure", min_win_prob=0.6).derivation(store).version == version
    reworded = constitution_of("one", "two", "four")
    assert stage_on(store, rows, constitution=reworded).derivation(store).version != version


def test_improve_stage_revisions_of_other_prompts_are_refused(store):
    stage = stage_on(store, [revision(prompt("Ask 1."), 0, "one"), revision(prompt("Ask 0."), 0, "two")])
    with pytest.raises(AssertionError, match="revisions of"):
        list(stage.items(store))
