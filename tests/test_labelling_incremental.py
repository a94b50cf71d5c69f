"""A label is asked once: an amendment, another evaluator or a retry makes only what no version holds."""

from collections import Counter

import pytest

from benchmarks.amendments import Killed, World, principle
from constitutions import draw_several
from tasks.label import LabelConfig, LabelStage, examples_before, questionnaire_of
from tasks.schema import Label, ModelRef
from tasks.serving import Choice, TransientServingError
from tasks.stage import RunContext, Session
from tests.labelling import constitution, demonstration
from tests.worlds import rows_of

SIX = [principle(i) for i in range(6)]
SHOWN = [demonstration(name) for name in ("kind", "calm", "clear", "short")]
NUM_PROMPTS = 120


@pytest.fixture
def world(tmp_path):
    return World(tmp_path, NUM_PROMPTS, RunContext(chunk_rows=50))


def stage_of(world, of, evaluator="feedback", model="f", **config):
    stage = world.label(of)
    feedback = ModelRef(model="external", version=model * 32, content_hash=model * 64, source="fake")
    return stage.model_copy(update={"evaluator": evaluator, "feedback": feedback, "config": LabelConfig(**config)})


def test_label_removed_principle_remakes_the_places_it_held(world):
    world.make(stage_of(world, constitution(*SIX), num_principles=2))
    fewer = constitution(*SIX[:3], *SIX[4:])
    names = [f"{prompt_id}/0" for prompt_id in world.prompt_ids]
    drawn = [draw_several(constitution(*SIX).comparison_principles(), 2, 0, "label", name) for name in names]
    held = sum("p-03" in [p.id for p in each] for each in drawn)
    out = world.make(stage_of(world, fewer, num_principles=2))
    assert out.forecast == out.made == out.calls == 2 * held > 0
    assert out.rows == 4 * NUM_PROMPTS


def test_label_one_principle_more_in_the_ensemble_remakes_only_its_slot(world):
    world.make(stage_of(world, constitution(*SIX)))
    out = world.make(stage_of(world, constitution(*SIX), num_principles=2))
    assert out.forecast == out.made == out.calls == 2 * NUM_PROMPTS


def test_label_hard_constraint_switched_on_adds_only_its_questions(world):
    world.make(stage_of(world, constitution(*SIX)))
    hardened = constitution(SIX[0] | {"hard_constraint": True}, *SIX[1:])
    stage = stage_of(world, hardened)
    out = world.make(stage)
    rows = rows_of(world.store, stage.result(world.store), Label)
    asked = sum(row.slot == "hard/p-00" for row in rows)
    assert out.forecast == out.made == out.calls == asked > 0
    drew = sum(row.slot == "0" and row.principle_id == "p-00" for row in rows)
    assert asked + drew == 2 * NUM_PROMPTS


def showing(world, of, config, demonstration_id):
    """Rows whose request shows this demonstration."""
    before = examples_before(of, LabelConfig(**config), 0)["soft"]
    names = [f"{prompt_id}/0" for prompt_id in world.prompt_ids]
    shown = [any(f"Say {demonstration_id}." in turn.content for turn in before("label", name)) for name in names]
    return 2 * sum(shown)


@pytest.mark.parametrize("num_variants", [0, 8])
def test_label_removed_demonstration_remakes_the_rows_that_showed_it(world, num_variants):
    config = {"demonstrations": {"num_shown": 1, "num_variants": num_variants}}
    of = constitution(*SIX, comparison_demonstrations=SHOWN)
    world.make(stage_of(world, of, **config))
    fewer = constitution(*SIX, comparison_demonstrations=SHOWN[:2] + SHOWN[3:])
    out = world.make(stage_of(world, fewer, **config))
    assert out.forecast == out.made == out.calls == showing(world, of, config, "clear")
    assert 0 < out.made < out.rows


def test_label_demonstration_reworded_where_all_are_shown_remakes_everything(world):
    world.make(stage_of(world, constitution(*SIX, comparison_demonstrations=SHOWN)))
    reworded = [SHOWN[0] | {"completion_a": "very nice"}, *SHOWN[1:]]
    out = world.make(stage_of(world, constitution(*SIX, comparison_demonstrations=reworded)))
    assert out.forecast == out.made == out.rows


def test_label_another_evaluator_makes_its_own_rows_and_none_of_the_others(world):
    of = constitution(*SIX)
    jury = [stage_of(world, of), stage_of(world, of, "second", "a"), stage_of(world, of, "third", "b")]
    assert [world.make(stage).made for stage in jury] == [2 * NUM_PROMPTS] * 3
    assert len({stage.derivation(world.store).version for stage in jury}) == 3
    assert [world.make(stage).calls for stage in jury[1:]] == [0, 0]  # without the first, nothing is to do


def test_label_renamed_evaluator_keeps_its_model_and_so_its_rows(world):
    world.make(stage_of(world, constitution(*SIX)))
    renamed = stage_of(world, constitution(*SIX), "judge")
    assert world.make(renamed).calls == 0
    rows = rows_of(world.store, renamed.result(world.store), Label)
    assert {row.evaluator for row in rows} == {"judge"} and "/judge/0/" in rows[0].row_id


def test_label_reasoned_plan_is_what_is_made(world):
    of, config = constitution(*SIX), {"form": "reasoned", "num_samples": 2}
    first = world.make(stage_of(world, of, **config))
    assert (first.forecast, first.made, first.calls) == (4 * NUM_PROMPTS, 4 * NUM_PROMPTS, 8 * NUM_PROMPTS)
    more = world.make(stage_of(world, of, form="reasoned", num_samples=3))
    assert (more.forecast, more.made, more.calls) == (2 * NUM_PROMPTS, 2 * NUM_PROMPTS, 4 * NUM_PROMPTS)


class Flaky:
    """A feedback model that counts every request by its text, fails one batch and dies in another."""

    def __init__(self, fails_at=None, dies_at=None):
        self.asked = Counter()
        self.fails_at, self.dies_at = fails_at, dies_at

    def choose(self, requests, answers):
        self.asked.update(request.messages[-1].content for request in requests)
        if self.fails_at is not None and self.asked.total() > self.fails_at:
            self.fails_at = None
            raise TransientServingError("the server is gone")
        if self.dies_at is not None and self.asked.total() > self.dies_at:
            raise Killed
        return [Choice((-0.5, -1.0)) for _ in requests]

    def generate(self, requests, sampling):
        assert not requests, "nothing is to be written for labels without reasoning"
        return []


def trying_again(name, work):
    try:
        return work()
    except TransientServingError:
        return work()


def label_all(world, stage: LabelStage, generator):
    world.generator = generator
    return stage.make(Session(world.store, call=trying_again, open_generator=world.opened))


def test_label_ten_thousand_take_two_requests_each_and_none_twice(tmp_path):
    world = World(tmp_path, 10_000, RunContext(chunk_rows=500))
    model = Flaky()
    ref = label_all(world, stage_of(world, constitution(*SIX)), model)
    assert ref.rows == model.asked.total() == len(model.asked) == 20_000


def test_label_retry_and_kill_repeat_only_the_chunk_they_hit(tmp_path):
    world = World(tmp_path, 1_000, RunContext(chunk_rows=100))
    stage, model = stage_of(world, constitution(*SIX)), Flaky(fails_at=750, dies_at=1_550)
    with pytest.raises(Killed):
        label_all(world, stage, model)
    model.dies_at = None
    assert label_all(world, stage, model).rows == len(model.asked) == 2_000
    repeated = [count for count in model.asked.values() if count > 1]
    assert repeated == [2] * 200  # the chunk that failed and the one in flight when it was killed


def test_label_requests_of_a_chunk_begin_alike():
    of = constitution(*SIX, comparison_demonstrations=SHOWN)
    before = examples_before(of, LabelConfig(), 0)["soft"]
    beginnings = Counter(tuple(turn.content for turn in before("label", f"row/{i}")) for i in range(400))
    assert len(beginnings) <= 8 and min(beginnings.values()) > 20
    assert all(len(turns) == 2 * len(SHOWN) for turns in beginnings)
    assert questionnaire_of(of, LabelConfig(), 0).principles == of.comparison_principles()
