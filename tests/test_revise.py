import pytest

from constitutions import draw
from tasks.revise import Chain, ReviseConfig, revise
from tasks.serving import FakeGenerator, Generation
from tests.revision_world import PRINCIPLES, chains, in_turn, kept_of
from tests.worlds import echo, prompt, recipe

ONE_ROUND = ReviseConfig(num_rounds=1)


def test_revise_four_rounds_asks_critique_then_revision_of_the_newest_text():
    generator = FakeGenerator(echo("text"))
    rows = revise(chains(1), PRINCIPLES, generator, ReviseConfig(num_rounds=4), recipe())
    assert [row.round for row in rows] == [0, 1, 2, 3]
    critique, revision = generator.requests[0], generator.requests[1]
    assert [m.role for m in critique.messages] == ["user", "assistant", "user"]
    assert critique.messages[1].content == "first 0"
    assert critique.messages[2].content == rows[0].critique_request
    assert [m.content for m in revision.messages[3:]] == [rows[0].critique, rows[0].revision_request]
    # the next round starts from the revision, without the earlier critique
    assert [m.content for m in generator.requests[2].messages[:2]] == ["text 0", rows[0].revision]
    assert len(generator.requests[2].messages) == 3


def test_revise_every_request_has_a_seed_of_its_own_and_the_same_in_a_rerun():
    def seeds():
        generator = FakeGenerator(echo("t"))
        revise(chains(5), PRINCIPLES, generator, ReviseConfig(num_rounds=2), recipe())
        return [request.seed for request in generator.requests]

    assert len(set(seeds())) == 20 and seeds() == seeds()


def test_revise_each_round_draws_its_own_recorded_principle():
    rows = revise(chains(40), PRINCIPLES, FakeGenerator(echo("t")), ReviseConfig(num_rounds=2), recipe(seed=3))
    for row in rows:
        drawn = draw(PRINCIPLES, 3, "revise", row.prompt_id, row.round)
        assert (row.principle_id, row.principle_hash) == (drawn.id, drawn.revision_hash)
    by_round = [[row.principle_id for row in rows if row.round == k] for k in (0, 1)]
    assert by_round[0] != by_round[1] and set(by_round[0]) == {"one", "two", "three"}


def test_revise_failed_round_is_kept_and_the_chain_goes_on_from_the_last_good_text():
    generator = in_turn("critique 0", Generation(None, error="too long"), "critique 1", "fine")
    rows = revise(chains(1), PRINCIPLES, generator, ReviseConfig(num_rounds=2), recipe())
    assert [row.status for row in rows] == ["failed", "ok"]
    assert rows[0].critique == "critique 0" and rows[0].reason == "too long"
    assert generator.requests[2].messages[1].content == "first 0"


def test_revise_empty_critique_is_unparsable_and_asks_for_no_revision():
    generator = FakeGenerator("")
    rows = revise(chains(1), PRINCIPLES, generator, ONE_ROUND, recipe())
    assert rows[0].status == "unparsable" and "critique" in (rows[0].reason or "")
    assert len(generator.requests) == 1


def test_revise_prompt_without_completion_gets_a_skipped_row_a_round():
    broken = Chain(prompt("x"), "", problem="completion is failed: too long")
    generator = FakeGenerator()
    rows = revise([broken], PRINCIPLES, generator, ReviseConfig(num_rounds=3), recipe())
    assert [(row.status, row.reason) for row in rows] == [("skipped", "completion is failed: too long")] * 3
    assert generator.requests == []


def test_revise_retried_chunk_does_not_add_to_the_first_try():
    batch = chains(2)

    def fails(request):
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        revise(batch, PRINCIPLES, FakeGenerator(fails), ReviseConfig(num_rounds=2), recipe())
    rows = revise(batch, PRINCIPLES, FakeGenerator(echo("t")), ReviseConfig(num_rounds=2), recipe())
    assert len(rows) == 4


def test_revise_reworded_principle_changes_the_keys_of_its_rows_and_what_follows_them():
    before = revise(chains(60), PRINCIPLES, FakeGenerator(echo("t")), ReviseConfig(num_rounds=2), recipe())
    reworded = [
        p.model_copy(update={"critique_request": "Another wording."}) if p.id == "two" else p for p in PRINCIPLES
    ]
    after = revise(chains(60), reworded, FakeGenerator(echo("t")), ReviseConfig(num_rounds=2), recipe())
    for old, new in zip(before, after, strict=True):
        drew_two = [r.principle_id == "two" for r in before if r.prompt_id == old.prompt_id and r.round <= old.round]
        assert old.principle_id == new.principle_id
        assert (old.reuse_key != new.reuse_key) == any(drew_two)


def test_revise_critique_that_is_a_revision_is_unparsable_and_nothing_more_is_asked():
    generator = in_turn("Revision: Be kind.", "critique 1", "fine")
    rows = revise(chains(1), PRINCIPLES, generator, ReviseConfig(num_rounds=2), recipe())
    assert (rows[0].status, rows[0].critique, rows[0].revision) == ("unparsable", "Revision: Be kind.", None)
    assert rows[0].reason == "point-of-view confusion: the critique begins with 'Revision:'"
    assert rows[1].status == "ok" and generator.requests[1].messages[1].content == "first 0"


def test_revise_revision_that_is_a_critique_is_unparsable_and_the_chain_keeps_its_text():
    generator = in_turn("The response is rude.", "The response is still rude.", "critique 1", "fine")
    rows = revise(chains(1), PRINCIPLES, generator, ReviseConfig(num_rounds=2), recipe())
    assert (rows[0].status, rows[0].revision) == ("unparsable", "The response is still rude.")
    assert (rows[0].reason or "").startswith("point-of-view confusion: the revision speaks of the completion")
    assert rows[1].status == "ok" and generator.requests[2].messages[1].content == "first 0"


def test_revise_no_op_is_skipped_with_its_text_and_costs_nothing_again():
    generator = in_turn("critique 0", " first\n0 ", "critique 1", "fine")
    config = ReviseConfig(num_rounds=2)
    rows = revise(chains(1), PRINCIPLES, generator, config, recipe())
    assert [row.status for row in rows] == ["skipped", "ok"]
    assert (rows[0].reason, rows[0].revision) == ("no-op: the revision repeats the text", " first\n0 ")
    idle = FakeGenerator()
    again = revise(chains(1), PRINCIPLES, idle, config, recipe(), kept_of(rows))
    assert again == rows and not idle.requests


def test_revise_label_before_a_revision_is_taken_off_its_text():
    generator = in_turn("Critique: rude.", "Revision: Be kind.", "critique 1", "fine")
    rows = revise(chains(1), PRINCIPLES, generator, ReviseConfig(num_rounds=2), recipe())
    assert (rows[0].status, rows[0].critique, rows[0].revision) == ("ok", "Critique: rude.", "Be kind.")
    assert generator.requests[2].messages[1].content == "Be kind."
    (empty,) = revise(chains(1), PRINCIPLES, in_turn("rude", "Revision: "), ONE_ROUND, recipe())
    assert (empty.status, empty.reason) == ("unparsable", "the revision is empty")


def test_revise_labelled_no_op_is_a_no_op():
    (row,) = revise(chains(1), PRINCIPLES, in_turn("rude", "Revision: first 0"), ONE_ROUND, recipe())
    assert (row.status, row.revision) == ("skipped", "first 0")


def test_revise_kept_rows_are_asked_for_once_a_round_and_written_under_their_principle_now():
    same_texts = [p.model_copy(update={"critique_request": "C.", "revision_request": "R."}) for p in PRINCIPLES]
    rows = revise(chains(6), same_texts, FakeGenerator(echo("t")), ReviseConfig(num_rounds=2), recipe())
    asked: list[list[str]] = []

    def reuse(keys):
        asked.append(list(keys))
        return kept_of(rows)(keys)

    idle, renamed = FakeGenerator(), [p.model_copy(update={"id": f"new-{p.id}"}) for p in same_texts]
    again = revise(chains(6), renamed, idle, ReviseConfig(num_rounds=2), recipe(), reuse)
    assert not idle.requests and all(row.principle_id.startswith("new-") for row in again)
    assert [len(keys) for keys in asked] == [6, 6]
