"""How many rounds are made and used under each gate, in a run and in a plan."""

import re
from typing import Any

import pytest

from flows.config import AlignConfig
from flows.given import FEEDBACK, Given
from flows.rounds import revisions_of
from tasks.planning.planner import Planner
from tasks.schema import Completion, DatasetRef, Improvement, Prompt, Revision
from tasks.serving import FakeGenerator
from tasks.stage import StageFailed
from tasks.store.identity import digest
from tests.aligned import small_config
from tests.worlds import (
    FAKE_MODEL,
    commit,
    commit_constitution,
    constitution_of,
    open_store,
    prompt,
    rows_of,
    session_on,
)

NUM_PROMPTS = 30
LEVEL = re.compile(r"level (\d+)")


class Direct:
    """A run without Prefect: makes each stage here and now."""

    def __init__(self, store: Any, generator: FakeGenerator) -> None:
        self.store, self.generator = store, generator
        self.made: list[str] = []

    def dataset(self, stage: Any) -> DatasetRef:
        found = stage.result(self.store)
        self.made += [] if found else [stage.stage]
        return found or stage.make(session_on(self.store, self.generator))

    def known_rows(self, ref: DatasetRef, row_type: Any) -> list[Any]:
        return rows_of(self.store, ref, row_type)


def improves(*rounds: int) -> FakeGenerator:
    """Each revision is one level higher; the feedback model likes those of these rounds and is unsure of others."""

    def reply(request):
        # the completion stands before the only request of a critique, and before both of a revision
        asks_revision = len(request.messages) == 5
        level = int(LEVEL.search(request.messages[1].content)[1])  # type: ignore[index]
        name = digest([m.content for m in request.messages])[:8]
        return f"level {level + 1} of {name}" if asks_revision else f"That is low, says {name}."

    def weigh(request):
        options = request.messages[-1].content.split("Options:\n")[1]
        first, second = (int(LEVEL.search(part)[1]) for part in options.split("\n(B)"))  # type: ignore[index]
        return (1.0, 0.0) if max(first, second) - 1 in rounds and first > second else (0.0, 0.0)

    return FakeGenerator(reply, weigh)


class World:
    def __init__(self, folder: Any, num_rounds: int = 4, **improve: Any) -> None:
        self.store = open_store(folder)
        prompts = [prompt(f"Ask {i}.") for i in range(NUM_PROMPTS)]
        given = [
            Completion(row_id=f"{p.prompt_id}/0", reuse_key="k", prompt_id=p.prompt_id, sample=0, completion="level 0")
            for p in prompts
        ]
        base = small_config(folder).model_dump()
        base["revise"]["num_rounds"], base["improve"] = num_rounds, improve
        self.config = AlignConfig.model_validate(base)
        self.given = Given(
            helpful_only=FAKE_MODEL,
            pretrained=FAKE_MODEL,
            evaluators={FEEDBACK: FAKE_MODEL},
            constitution=commit_constitution(self.store, constitution_of("one", "two")),
            prompts=commit(self.store, "prompts", prompts, Prompt),
            judges={FEEDBACK: FAKE_MODEL},
            references={},
            question_sets={},
        )
        self.completions = commit(self.store, "completions", given, Completion)

    def revisions(self, run: Any) -> tuple[DatasetRef, DatasetRef | None]:
        return revisions_of(run, self.config, self.given, self.completions)


def rounds_in(store, ref, row_type):
    return sorted({row.round for row in rows_of(store, ref, row_type)})


def test_rounds_gate_off_makes_all_rounds_and_measures_nothing(tmp_path):
    world = World(tmp_path, gate="off")
    run = Direct(world.store, improves())
    revisions, improvements = world.revisions(run)
    assert rounds_in(world.store, revisions, Revision) == [0, 1, 2, 3]
    assert improvements is None and run.made == ["revise"] and not run.generator.choices


def test_rounds_gate_measure_reports_and_decides_nothing(tmp_path):
    world = World(tmp_path, gate="measure")
    run = Direct(world.store, improves())
    revisions, improvements = world.revisions(run)
    assert rounds_in(world.store, revisions, Revision) == [0, 1, 2, 3] and run.made == ["revise", "improve"]
    assert improvements is not None and rounds_in(world.store, improvements, Improvement) == [0, 1, 2, 3]


def test_rounds_gate_stop_uses_the_rounds_before_the_first_that_does_not_improve(tmp_path):
    world = World(tmp_path, gate="stop")
    run = Direct(world.store, improves(0, 1, 3))
    revisions, improvements = world.revisions(run)
    assert rounds_in(world.store, revisions, Revision) == [0, 1]
    assert {row.status for row in rows_of(world.store, revisions, Revision)} == {"ok"}
    # what was measured says why it stopped
    assert improvements is not None and rounds_in(world.store, improvements, Improvement) == [0, 1, 2]
    assert run.made == ["revise", "improve"] * 3
    # every round was made and measured once
    assert len(run.generator.requests) == 2 * 3 * NUM_PROMPTS
    assert len(run.generator.choices) == 2 * 3 * NUM_PROMPTS


def test_rounds_gate_stop_with_all_improving_is_what_gate_off_makes(tmp_path):
    stop, off = World(tmp_path / "stop", gate="stop"), World(tmp_path / "off", gate="off")
    revisions, _ = stop.revisions(Direct(stop.store, improves(0, 1, 2, 3)))
    assert revisions == off.revisions(Direct(off.store, improves()))[0]


def test_rounds_gate_stop_resumed_makes_nothing_again(tmp_path):
    world = World(tmp_path, gate="stop")
    first = world.revisions(Direct(world.store, improves(0, 1)))
    again = Direct(world.store, improves(0, 1))
    assert world.revisions(again) == first and not again.made and not again.generator.num_calls


def test_rounds_gate_stop_first_round_that_does_not_improve_fails_the_run(tmp_path):
    world = World(tmp_path, gate="stop")
    run = Direct(world.store, improves(1, 2, 3))
    with pytest.raises(StageFailed, match=r"round 1 does not .* 0\.500 to 0\.500 over 30 prompts.*improve\.gate"):
        world.revisions(run)
    assert run.made == ["revise", "improve"]


def test_rounds_gate_fail_makes_all_rounds_and_names_the_one_that_does_not_improve(tmp_path):
    world = World(tmp_path, gate="fail", min_win_prob=0.55)
    run = Direct(world.store, improves(0, 1, 3))
    with pytest.raises(
        StageFailed, match=r"round 3 does not .* P\(revision is better\) is 0\.500.*min_win_prob = 0\.55"
    ):
        world.revisions(run)
    assert run.made == ["revise", "improve"]


def test_rounds_gate_fail_with_all_improving_gives_them(tmp_path):
    world = World(tmp_path, gate="fail")
    revisions, improvements = world.revisions(Direct(world.store, improves(0, 1, 2, 3)))
    assert rounds_in(world.store, revisions, Revision) == [0, 1, 2, 3] and improvements is not None


@pytest.mark.parametrize(
    ("gate", "stages"),
    [
        ("off", ["revise"]),
        ("measure", ["revise", "improve"]),
        ("fail", ["revise", "improve"]),
        ("stop", ["revise", "improve"] * 4),
    ],
)
def test_rounds_plan_of_what_is_not_known_yet_has_all_rounds(tmp_path, gate, stages):
    world = World(tmp_path / "world", gate=gate)
    planner = Planner(world.store, tmp_path / "scratch")
    revisions, _ = world.revisions(planner)
    assert [stage.stage for stage in planner.stages] == stages
    assert revisions.rows == 4 * NUM_PROMPTS


def test_rounds_plan_after_a_stop_is_what_the_run_did(tmp_path):
    world = World(tmp_path / "world", gate="stop")
    made = world.revisions(Direct(world.store, improves(0)))
    planner = Planner(world.store, tmp_path / "scratch")
    assert world.revisions(planner) == made
    assert [stage.state for stage in planner.stages] == ["fresh"] * 4
