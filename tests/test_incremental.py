"""An amended constitution makes only what it touches, and the plan says beforehand how much that is."""

import pytest

from benchmarks.amendments import (
    NUM_ROUNDS,
    Killed,
    World,
    amendments,
    constitution,
    moved_draws,
    principle,
    touched_chain_rows,
)
from constitutions import draw
from tasks.respond import RespondConfig, RespondStage
from tasks.revise import ReviseStage
from tasks.schema import Revision
from tasks.stage import RunContext
from tests.worlds import FAKE_MODEL, rows_of

FIRST = constitution([principle(i) for i in range(16)])
AMENDED = amendments()
NUM_PROMPTS = 150


@pytest.fixture
def world(tmp_path):
    return World(tmp_path, NUM_PROMPTS, RunContext(chunk_rows=32))


def manifest_of(world, stage):
    return world.store.manifest(stage.dataset, stage.result(world.store).version)


@pytest.mark.parametrize("name", [name for name, (_, changes) in AMENDED.items() if changes])
def test_amendment_makes_exactly_the_chains_it_touches_from_the_first_touched_round(world, name):
    world.make(world.revise(FIRST))
    amended, _ = AMENDED[name]
    expected = touched_chain_rows(world, FIRST, amended)
    out = world.make(world.revise(amended))
    assert 0 < expected < out.rows
    assert (out.forecast, out.made, out.calls) == (expected, expected, 2 * expected)


@pytest.mark.parametrize("name", [name for name, (_, changes) in AMENDED.items() if not changes])
def test_amendment_of_what_no_row_depends_on_makes_nothing(world, name):
    first = world.revise(FIRST)
    world.make(first)
    amended = world.revise(AMENDED[name][0])
    assert amended.result(world.store) == first.result(world.store)
    assert world.make(amended).calls == 0


def test_amendment_that_adds_or_removes_one_moves_only_its_share_of_the_draws(world):
    assert moved_draws(world, FIRST, AMENDED["add one"][0]) < 1 / 17 + 0.03
    removed = AMENDED["remove one"][0]
    own = sum(
        draw(FIRST.revision_principles(), 0, "revise", prompt_id, number).id == "p-07"
        for prompt_id in world.prompt_ids
        for number in range(NUM_ROUNDS)
    )
    assert moved_draws(world, FIRST, removed) == own / (NUM_ROUNDS * NUM_PROMPTS)


def test_amendment_untouched_rows_are_the_same_rows(world):
    world.make(world.revise(FIRST))
    before = {row.row_id: row for row in rows_of(world.store, world.revise(FIRST).result(world.store), Revision)}
    world.make(world.revise(AMENDED["reword one"][0]))
    after = rows_of(world.store, world.revise(AMENDED["reword one"][0]).result(world.store), Revision)
    changed = {row.row_id for row in after if row.row_hash != before[row.row_id].row_hash}
    assert len(changed) == touched_chain_rows(world, FIRST, AMENDED["reword one"][0])
    first_touched = {row.prompt_id: row for row in reversed(after) if row.row_id in changed}
    assert {row.principle_id for row in first_touched.values()} == {"p-03"}


def test_amendment_back_to_the_first_makes_nothing(world):
    world.make(world.revise(FIRST))
    world.make(world.revise(AMENDED["reword one"][0]))
    assert world.make(world.revise(FIRST)).calls == 0


def test_amendment_to_a_third_takes_rows_from_every_earlier_version(world):
    world.make(world.revise(FIRST))
    world.make(world.revise(AMENDED["reword one"][0]))
    both = [principle(i) for i in range(16)]
    both[3], both[9] = principle(3, " kindly"), principle(9, " gently")
    third = world.revise(constitution(both))
    out = world.make(third)
    assert out.made < touched_chain_rows(world, FIRST, constitution(both))
    sources = manifest_of(world, third).sources
    assert len(sources) == 2 and sum(sources.values()) + out.made == out.rows


def test_code_version_raised_makes_the_whole_stage(world):
    class Raised(ReviseStage):
        code_version = ReviseStage.code_version + 1

    world.make(world.revise(FIRST))
    out = world.make(world.revise(FIRST, Raised))
    assert out.made == out.forecast == out.rows


def test_force_makes_the_whole_stage_once(world):
    world.make(world.revise(FIRST))
    forced = world.make(world.revise(FIRST, force=("revise",)))
    assert forced.made == forced.rows
    assert world.make(world.revise(FIRST, force=("revise",))).calls == 0


def test_killed_then_amended_takes_what_the_uncommitted_chunks_hold(world):
    whole = 2 * NUM_ROUNDS * NUM_PROMPTS
    world.generator.dies_at = world.generator.num_calls + whole // 2
    with pytest.raises(Killed):
        world.make(world.revise(FIRST))
    world.generator.dies_at = None
    stage = world.revise(AMENDED["reword one"][0])
    out = world.make(stage)
    sources = manifest_of(world, stage).sources
    assert sources and all(source.startswith("chunks/") for source in sources)
    assert out.made == out.forecast == out.rows - sum(sources.values())
    assert sum(sources.values()) > out.rows // 4


def test_killed_then_run_in_other_chunks_takes_what_is_there(world):
    world.generator.dies_at = world.generator.num_calls + NUM_ROUNDS * NUM_PROMPTS
    with pytest.raises(Killed):
        world.make(world.revise(FIRST))
    world.generator.dies_at = None
    out = world.make(world.revise(FIRST, chunk_rows=7))
    assert 0 < out.made < out.rows and out.made == out.forecast


def test_label_reworded_question_relabels_its_draws_in_both_orders(world):
    world.make(world.label(FIRST))
    reworded = [principle(i) for i in range(16)]
    reworded[5] |= {"comparison_question": "Which is kinder?"}
    drawn = [draw(FIRST.comparison_principles(), 0, "label", f"{i}/0").id for i in world.prompt_ids]
    out = world.make(world.label(constitution(reworded)))
    assert out.made == out.forecast == out.calls == 2 * drawn.count("p-05") > 0


def test_label_renamed_principle_with_the_same_question_is_written_under_its_new_name(world):
    world.make(world.label(constitution([principle(0)])))
    renamed = constitution([principle(0) | {"id": "renamed"}])
    out = world.make(world.label(renamed))
    assert out.calls == 0
    rows = world.store.read(world.label(renamed).result(world.store))
    assert set(rows.column("principle_id").to_pylist()) == {"renamed"}


def test_respond_more_prompts_makes_only_the_new_ones(world, tmp_path):
    from benchmarks.amendments import prompt
    from tasks.schema import Prompt

    more = world.given("prompts", map(prompt, range(NUM_PROMPTS + 20)), Prompt, NUM_PROMPTS + 20)
    stage = RespondStage(run=world.run, prompts=more, helpful_only=FAKE_MODEL, config=RespondConfig())
    out = world.make(stage)
    assert (out.made, out.calls, out.rows) == (20, 20, NUM_PROMPTS + 20)


def test_reuse_failed_rows_are_tried_again(world):
    from tasks.serving import Generation

    generate = world.generator.generate

    def fails_first(requests, sampling):
        return [Generation(None, error="too long"), *generate(requests[1:], sampling)]

    world.generator.generate = fails_first
    run = world.run.model_copy(update={"seed": 5})
    stage = RespondStage(run=run, prompts=world.prompts, helpful_only=FAKE_MODEL, config=RespondConfig())
    failed = world.make(stage)
    world.generator.generate = generate
    statuses = manifest_of(world, stage).statuses
    assert failed.made == NUM_PROMPTS and statuses["failed"] == 5  # one a chunk
    other = stage.model_copy(update={"config": RespondConfig(num_helpful_samples=1)})  # another version, the same rows
    assert world.make(other).made == 5


def test_stage_without_items_is_a_version_without_rows(world):
    from tasks.sample import SampleConfig, SampleStage

    stage = SampleStage(run=world.run, prompts=world.prompts, policy=FAKE_MODEL, config=SampleConfig())
    out = world.make(stage)  # nothing is held out
    assert (out.rows, out.made, out.calls) == (0, 0, 0)
    assert "completion" in world.store.read(stage.result(world.store)).column_names
