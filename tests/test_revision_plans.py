"""An amended demonstration or hard constraint makes exactly the rounds that showed or asked it, as the plan says."""

import pytest

from benchmarks.amendments import World, constitution, principle
from constitutions import Constitution
from tasks.demonstrations import DemonstrationsConfig
from tasks.revise import ReviseConfig, before_rounds
from tasks.schema import Revision
from tasks.serving import Generation
from tasks.stage import RunContext
from tests.revision_world import CHECKED, DEMONSTRATIONS
from tests.worlds import rows_of

NUM_PROMPTS = 60
NUM_ROUNDS = 3
FORMS = ("plain", "reasoned", "none")


@pytest.fixture
def world(tmp_path):
    return World(tmp_path, NUM_PROMPTS, RunContext(chunk_rows=16))


def constitution_with(num_demonstrations: int = 3, hard: tuple[int, ...] = ()) -> Constitution:
    principles = [principle(i) | {"hard_constraint": i in hard} for i in range(8)]
    shown = tuple(DEMONSTRATIONS[:num_demonstrations])
    return constitution(principles).model_copy(update={"revision_demonstrations": shown})


def stage_on(world, document, **config):
    return world.revise(document).model_copy(update={"config": ReviseConfig(num_rounds=NUM_ROUNDS, **config)})


def rows_from(world, touched):
    """By definition: in every chain, the rounds from the first touched one on."""
    firsts = (next((k for k in range(NUM_ROUNDS) if touched(i, k)), NUM_ROUNDS) for i in world.prompt_ids)
    return sum(NUM_ROUNDS - first for first in firsts)


@pytest.mark.parametrize("form", ["plain", "none"])
def test_removed_demonstration_makes_the_chains_from_the_round_that_showed_it(world, form):
    config = ReviseConfig(critique=form, demonstrations=DemonstrationsConfig(num_shown=1, num_variants=16))
    world.make(stage_on(world, constitution_with(), critique=form, demonstrations=config.demonstrations))
    before = before_rounds(DEMONSTRATIONS, config, 0)
    expected = rows_from(world, lambda i, k: before("revise", i, k)[0].content == "Ask third.")
    out = world.make(stage_on(world, constitution_with(2), critique=form, demonstrations=config.demonstrations))
    assert 0 < expected < out.rows and (out.forecast, out.made) == (expected, expected)


def test_demonstrations_make_nothing_of_a_reasoned_critique(world):
    says = checked(world)
    world.generator.generate = says
    world.make(stage_on(world, constitution_with(3), critique="reasoned"))
    out = world.make(stage_on(world, constitution_with(2), critique="reasoned"))
    assert (out.forecast, out.made) == (0, 0)


def checked(world, passes_every=0):
    """Reasoned critiques that never repeat, of which one in so many passes everything."""
    generate = world.generator.generate

    def says(requests, sampling):
        return [
            Generation(f"{made.text}\n{CHECKED.format(toxicity=answer(number))}", "stop") if asks(request) else made
            for number, (request, made) in enumerate(zip(requests, generate(requests, sampling), strict=True))
        ]

    def asks(request):
        return "yes or no" in request.messages[-1].content

    def answer(number):
        return "yes" if passes_every and number % passes_every == 0 else "no"

    return says


@pytest.mark.parametrize("form", FORMS)
def test_lifted_hard_constraint_makes_every_chain_that_was_asked_it_beside_another(world, form):
    world.generator.generate = checked(world)
    first = stage_on(world, constitution_with(0, (5,)), critique=form)
    world.make(first)
    rows = rows_of(world.store, first.result(world.store), Revision)
    drawn = {(row.prompt_id, row.round): row.principle_id for row in rows}
    out = world.make(stage_on(world, constitution_with(0), critique=form))
    expected = rows_from(world, lambda i, k: drawn[i, k] != "p-05")
    assert 0 < expected < out.rows and (out.forecast, out.made) == (expected, expected)


@pytest.mark.parametrize("form", FORMS)
def test_forecast_of_a_reworded_principle_is_never_less_than_what_is_made(world, form):
    world.generator.generate = checked(world, passes_every=3)
    world.make(stage_on(world, constitution_with(0), critique=form))
    kinder = principle(2, " kindly") | {"revision_request": "Revise kindly."}
    reworded = constitution([kinder if i == 2 else principle(i) for i in range(8)])
    out = world.make(stage_on(world, reworded, critique=form))
    assert 0 < out.made <= out.forecast < out.rows
