"""What a round asks: the three forms of critique, hard constraints, and demonstrations."""

from tasks.demonstrations import DemonstrationsConfig
from tasks.prompts import fill, template
from tasks.revise import ReviseConfig, before_rounds, revise
from tasks.serving import FakeGenerator
from tests.revision_world import CHECKED, DEMONSTRATIONS, PRINCIPLES, chains, constrained, in_turn, kept_of
from tests.worlds import echo, recipe

ONE_ROUND = ReviseConfig(num_rounds=1)


def test_revise_without_critique_asks_for_the_revision_at_once():
    generator = FakeGenerator(echo("text"))
    (row,) = revise(chains(1), PRINCIPLES, generator, ReviseConfig(num_rounds=1, critique="none"), recipe())
    (request,) = generator.requests
    assert [m.content for m in request.messages] == ["text 0", "first 0", row.revision_request]
    assert (row.critique, row.critique_request, row.status) == (None, "", "ok")


def test_revise_without_critique_keeps_its_rows_when_a_critique_request_is_reworded():
    config = ReviseConfig(num_rounds=2, critique="none")
    rows = revise(chains(5), PRINCIPLES, FakeGenerator(echo("t")), config, recipe())
    reworded = [p.model_copy(update={"critique_request": "Another."}) for p in PRINCIPLES]
    idle = FakeGenerator()
    again = revise(chains(5), reworded, idle, config, recipe(), kept_of(rows))
    assert not idle.requests
    assert [row.revision for row in again] == [row.revision for row in rows]
    assert {row.principle_hash for row in again} <= {p.revision_hash for p in reworded}


def test_revise_reasoned_critique_fills_the_four_answers_and_is_revised_where_one_is_no():
    said = CHECKED.format(toxicity="no")
    generator = in_turn(said, "A kind text.")
    (row,) = revise(chains(1), PRINCIPLES, generator, ReviseConfig(num_rounds=1, critique="reasoned"), recipe())
    drawn = next(p for p in PRINCIPLES if p.id == row.principle_id)
    asked = fill(template("four_checks"), {"critique_request": drawn.critique_request or ""})
    assert generator.requests[0].messages[-1].content == row.critique_request == asked
    assert [m.content for m in generator.requests[1].messages[-2:]] == [said, drawn.revision_request]
    assert (row.status, row.revision, row.critique, row.reasoning) == ("ok", "A kind text.", said, "It is rude.")
    assert (row.is_helpful, row.is_honest, row.is_harmless, row.is_free_of_toxicity) == (True, True, True, False)


def test_revise_reasoned_critique_that_passes_everything_is_skipped_without_a_revision():
    generator = in_turn(CHECKED.format(toxicity="yes"), CHECKED.format(toxicity="no"), "A kind text.")
    rows = revise(chains(1), PRINCIPLES, generator, ReviseConfig(num_rounds=2, critique="reasoned"), recipe())
    assert [(row.status, row.reason) for row in rows] == [
        ("skipped", "all four checks passed: nothing to revise"),
        ("ok", None),
    ]
    assert rows[0].revision is None and rows[0].is_free_of_toxicity is True and len(generator.requests) == 3


def test_revise_reasoned_critique_without_an_answer_is_unparsable_and_the_chain_goes_on():
    said = CHECKED.replace("Honest: yes", "Honest: perhaps").format(toxicity="no")
    generator = in_turn(said, CHECKED.format(toxicity="no"), "A kind text.")
    rows = revise(chains(1), PRINCIPLES, generator, ReviseConfig(num_rounds=2, critique="reasoned"), recipe())
    assert [row.status for row in rows] == ["unparsable", "ok"]
    assert rows[0].reason == "critique: 'honest' is 'perhaps', expected yes or no"
    assert (rows[0].critique, rows[0].is_honest, rows[0].is_helpful) == (said, None, True)
    assert generator.requests[1].messages[1].content == "first 0"


def test_revise_forms_share_no_keys():
    rows = [
        revise(chains(1), PRINCIPLES, FakeGenerator(echo("t")), ReviseConfig(num_rounds=1, critique=form), recipe())
        for form in ("plain", "reasoned", "none")
    ]
    assert len({row.reuse_key for (row,) in rows}) == 3


def test_revise_hard_constraints_are_asked_beside_the_drawn_principle_and_not_twice():
    constitution = constrained("two", "three")
    principles, constraints = constitution.revision_principles(), constitution.revision_constraints()
    rows = revise(chains(30), principles, FakeGenerator(echo("t")), ONE_ROUND, recipe(), constraints=constraints)
    expected = {"one": ["one", "three", "two"], "two": ["two", "three"], "three": ["three", "two"]}
    assert {row.principle_id for row in rows} == set(expected)
    for row in rows:
        names = expected[row.principle_id]
        assert row.critique_request == "\n\n".join(f"Criticise under {name}." for name in names)
        assert row.revision_request == "\n\n".join(f"Revise under {name}." for name in names)


def test_revise_hard_constraint_that_is_lifted_makes_what_it_was_asked_of_and_keeps_the_rest():
    both, one = constrained("two", "three"), constrained("two")
    first = revise(
        chains(30),
        both.revision_principles(),
        FakeGenerator(echo("t")),
        ONE_ROUND,
        recipe(),
        constraints=both.revision_constraints(),
    )
    generator = FakeGenerator(echo("t"))
    again = revise(
        chains(30),
        one.revision_principles(),
        generator,
        ONE_ROUND,
        recipe(),
        kept_of(first),
        one.revision_constraints(),
    )
    # those that drew `three` were asked it anyway, and still are
    drew_three = [row for row in again if row.principle_id == "three"]
    assert len(generator.requests) == 2 * (30 - len(drew_three)) and 0 < len(drew_three) < 30


def test_revise_demonstrations_come_first_and_are_the_same_for_all_rows_of_a_selection():
    config = ReviseConfig(num_rounds=2, demonstrations=DemonstrationsConfig(num_shown=2, num_variants=3))
    generator = FakeGenerator(echo("t"))
    before = before_rounds(DEMONSTRATIONS, config, seed=0)
    rows = revise(chains(20), PRINCIPLES, generator, config, recipe(), before=before)
    turns = 2 * (2 + 2 + 2)
    heads = [tuple(m.content for m in request.messages[:turns]) for request in generator.requests]
    assert len(heads) == 80 and len(set(heads)) == 3
    critiques = [request for request in generator.requests if len(request.messages) == turns + 3]
    assert {r.messages[turns].content for r in critiques} == {f"text {i}" for i in range(20)}
    assert [m.role for m in critiques[0].messages] == ["user", "assistant"] * (turns // 2) + [
        "user",
        "assistant",
        "user",
    ]
    # what shows which examples is named by phase, prompt and round
    named = {tuple(m.content for m in before("revise", row.prompt_id, row.round)) for row in rows}
    assert named == set(heads)


def test_revise_demonstrations_of_a_critique_free_revision_have_no_critique():
    config = ReviseConfig(num_rounds=1, critique="none")
    generator = FakeGenerator(echo("t"))
    revise(chains(1), PRINCIPLES, generator, config, recipe(), before=before_rounds(DEMONSTRATIONS[:1], config, 0))
    shown = [m.content for m in generator.requests[0].messages[:4]]
    assert shown == ["Ask first.", "Completion first.", "Revise first.", "Revision of first."]


def test_revise_demonstrations_are_not_shown_before_a_reasoned_critique():
    config = ReviseConfig(num_rounds=1, critique="reasoned")
    generator = FakeGenerator(echo("t"))
    revise(chains(1), PRINCIPLES, generator, config, recipe(), before=before_rounds(DEMONSTRATIONS, config, 0))
    assert len(generator.requests[0].messages) == 3


def test_revise_removed_demonstration_makes_only_the_chains_that_it_was_shown_to():
    config = ReviseConfig(num_rounds=1, demonstrations=DemonstrationsConfig(num_shown=1, num_variants=0))
    whole = before_rounds(DEMONSTRATIONS, config, 0)
    first = revise(chains(40), PRINCIPLES, FakeGenerator(echo("t")), config, recipe(), before=whole)
    less = before_rounds(DEMONSTRATIONS[:2], config, 0)
    generator = FakeGenerator(echo("t"))
    revise(chains(40), PRINCIPLES, generator, config, recipe(), kept_of(first), before=less)
    shown = [row for row in first if whole("revise", row.prompt_id, 0)[0].content == "Ask third."]
    assert 0 < len(shown) < 40 and len(generator.requests) == 2 * len(shown)


def test_revise_without_demonstrations_the_setting_changes_no_key():
    def keys(config):
        before = before_rounds((), config, 0)
        rows = revise(chains(3), PRINCIPLES, FakeGenerator(echo("t")), config, recipe(), before=before)
        return [row.reuse_key for row in rows]

    assert keys(ONE_ROUND) == keys(ReviseConfig(num_rounds=1, demonstrations=DemonstrationsConfig(num_shown=1)))
