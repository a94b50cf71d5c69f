from collections import Counter

import pytest
from pydantic import ValidationError

from constitutions import ComparisonDemonstration, RevisionDemonstration
from tasks.demonstrations import (
    DemonstrationsConfig,
    before_comparison,
    before_revision,
    choose,
    comparison_turns,
    revision_turns,
)
from tasks.judging import CONCLUDE, STEP_BY_STEP
from tests.labelling import demonstration
from tests.worlds import constitution_of

PRINCIPLES = constitution_of("one", "two", "three").comparison_principles()
KEYS = [("label", f"row/{i}") for i in range(200)]


def shown(*names, **fields):
    return [ComparisonDemonstration.model_validate(demonstration(name, **fields)) for name in names]


def revised(name, **fields):
    values = {"prompt": f"Do {name}.", "completion": "Gladly.", "critique_request": "Criticise.", "critique": "Bad."}
    revision = {"revision_request": "Revise.", "revision": "No."}
    return RevisionDemonstration.model_validate({"id": name, **values, **revision, **fields})


SIX = shown("a", "b", "c", "d", "e", "f")


def texts(turns):
    return tuple((turn.role, turn.content) for turn in turns)


def test_demonstrations_without_any_are_no_turns():
    assert before_comparison([], PRINCIPLES, DemonstrationsConfig(), 0)("label", "x") == []
    assert before_revision([], DemonstrationsConfig(), 0)("revise", "x", 0) == []


def test_demonstrations_default_shows_all_in_the_constitutions_order():
    turns = before_comparison(SIX, PRINCIPLES, DemonstrationsConfig(), 0)(*KEYS[0])
    assert [turn.content.split("Say ")[1][0] for turn in turns[::2]] == list("abcdef")
    assert [turn.role for turn in turns] == ["user", "assistant"] * 6


def test_demonstrations_answers_are_balanced_in_every_selection_and_follow_the_better_side():
    before = before_comparison(SIX, PRINCIPLES, DemonstrationsConfig(num_variants=0), 0)
    for key in KEYS:
        turns = before(*key)
        assert Counter(turn.content for turn in turns[1::2]) == {"(A)": 3, "(B)": 3}
        for asked, answered in zip(turns[::2], turns[1::2], strict=True):
            assert f"{answered.content} nice" in asked.content


def test_demonstrations_rows_share_as_many_selections_as_they_may():
    before = before_comparison(SIX, PRINCIPLES, DemonstrationsConfig(num_variants=4), 0)
    assert len({texts(before(*key)) for key in KEYS}) == 4
    own = before_comparison(SIX, PRINCIPLES, DemonstrationsConfig(num_shown=3, num_variants=0), 0)
    assert len({texts(own(*key)) for key in KEYS}) > 60


def test_demonstrations_same_seed_is_the_same_and_another_is_not():
    def all_of(seed):
        return [texts(before_comparison(SIX, PRINCIPLES, DemonstrationsConfig(), seed)(*key)) for key in KEYS]

    assert all_of(1) == all_of(1) != all_of(2)


def test_demonstrations_turns_may_be_changed_by_who_gets_them():
    before = before_comparison(SIX, PRINCIPLES, DemonstrationsConfig(), 0)
    before(*KEYS[0]).clear()
    assert len(before(*KEYS[0])) == 12


@pytest.mark.parametrize("num_shown", [1, 2, 5])
def test_demonstrations_what_was_not_shown_can_be_removed_without_effect(num_shown):
    fewer, config = [d for d in SIX if d.id != "c"], DemonstrationsConfig(num_shown=num_shown, num_variants=0)
    old, new = (before_comparison(given, PRINCIPLES, config, 0) for given in (SIX, fewer))
    for key in KEYS:
        showed_it = "c" in {d.id for d in choose(SIX, num_shown, 0, *key)}
        assert (texts(old(*key)) != texts(new(*key))) == showed_it


def test_demonstrations_one_more_takes_its_share_and_reordering_takes_none():
    more = [*SIX, *shown("g")]
    moved = sum({d.id for d in choose(SIX, 2, 0, *k)} != {d.id for d in choose(more, 2, 0, *k)} for k in KEYS)
    assert moved == sum("g" in {d.id for d in choose(more, 2, 0, *k)} for k in KEYS) > 0
    assert all({d.id for d in choose(SIX, 2, 0, *k)} == {d.id for d in choose(SIX[::-1], 2, 0, *k)} for k in KEYS)


def test_demonstrations_none_shown_are_no_turns():
    assert before_comparison(SIX, PRINCIPLES, DemonstrationsConfig(num_shown=0), 0)("label", "x") == []


def test_demonstrations_without_a_question_get_one_of_their_own_draw():
    open_ones = shown("a", "b", "c", "d", question=None)
    before = before_comparison(open_ones, PRINCIPLES, DemonstrationsConfig(num_variants=0), 0)
    asked = Counter()
    for key in KEYS:
        for turn in before(*key)[::2]:
            asked.update(p.id for p in PRINCIPLES if f"\n\n{p.comparison_question}\n\n" in turn.content)
    assert asked.total() == 4 * len(KEYS) and min(asked.values()) > 0.25 * asked.total()


def test_demonstrations_reasoned_shows_only_those_with_reasoning_as_the_question_is_asked():
    given = [*shown("a"), *shown("b", reasoning="(A) is kind. So (A) is better.")]
    turns = before_comparison(given, PRINCIPLES, DemonstrationsConfig(), 0, reasoned=True)(*KEYS[0])
    assert [turn.role for turn in turns] == ["user", "assistant", "user", "assistant"]
    side = turns[3].content
    assert turns[1].content == f"{STEP_BY_STEP} {side} is kind. So {side} is better."
    assert (turns[2].content, f"{side} nice" in turns[0].content) == (CONCLUDE, True)
    assert not turns[0].content.endswith("The answer is:")


def test_demonstrations_comparison_shows_the_whole_conversation():
    turns = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "3"},
    ]
    d = ComparisonDemonstration.model_validate(demonstration("a", conversation=turns))
    asked, answered = comparison_turns(d, "Which?", reasoned=False)
    assert "Human: one\n\nAssistant: two\n\nHuman: 3\n\nWhich?" in asked.content
    assert answered.content == "(A)"


def test_demonstrations_revision_is_the_chat_that_the_stage_holds():
    turns = revision_turns(revised("x"))
    assert [t.content for t in turns] == ["Do x.", "Gladly.", "Criticise.", "Bad.", "Revise.", "No."]
    assert [t.role for t in turns] == ["user", "assistant"] * 3


def test_demonstrations_critique_free_revision_leaves_the_critique_out():
    given = [revised("x"), revised("y")]
    turns = before_revision(given, DemonstrationsConfig(), 0, critique=False)("revise", "p", 0)
    assert [t.content for t in turns] == ["Do x.", "Gladly.", "Revise.", "No.", "Do y.", "Gladly.", "Revise.", "No."]


def test_demonstrations_config_refuses_a_negative_number():
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        DemonstrationsConfig(num_shown=-1)
