import pytest

from tasks.respond import RespondConfig, RespondStage, list_asks, respond
from tasks.schema import Completion, Prompt
from tasks.serving import FakeGenerator, Generation, Sampling
from tasks.stage import RunContext
from tests.worlds import FAKE_MODEL, commit, echo, open_store, prompt, recipe, rows_of, session_on


def test_respond_two_kinds_samples_helpful_prompts_twice():
    asks = list_asks(iter([prompt("steal"), prompt("bake", kind="helpful")]), num_helpful_samples=2)
    assert [(ask.prompt.kind, ask.sample) for ask in asks] == [("red_team", 0), ("helpful", 0), ("helpful", 1)]


def test_respond_many_prompts_keeps_order_and_gives_each_its_own_seed():
    generator = FakeGenerator(lambda request: request.messages[-1].content.upper())
    asks = list(list_asks(iter([prompt(f"text {i}") for i in range(20)]), 1))
    rows = respond(asks, generator, Sampling(), recipe())
    assert [row.completion for row in rows] == [f"TEXT {i}" for i in range(20)]
    assert len({request.seed for request in generator.requests}) == 20


def test_respond_other_run_seed_asks_with_other_seeds():
    asks = list(list_asks(iter([prompt("x")]), 1))
    seeds = []
    for seed in (0, 1):
        generator = FakeGenerator()
        respond(asks, generator, Sampling(), recipe(seed=seed))
        seeds.append(generator.requests[0].seed)
    assert seeds[0] != seeds[1]


def test_respond_bad_rows_are_kept_with_their_reasons():
    replies = {
        "long": Generation(None, error="prompt has 20000 tokens, the context holds 16384"),
        "silent": Generation("  ", "stop"),
        "good": Generation("yes", "stop"),
    }
    generator = FakeGenerator(lambda request: replies[request.messages[-1].content])
    broken = prompt("?", status="unparsable", reason="no human turn", messages=[])
    asks = list(list_asks(iter([prompt("long"), broken, prompt("silent"), prompt("good")]), 1))
    rows = respond(asks, generator, Sampling(), recipe())
    assert [row.status for row in rows] == ["failed", "skipped", "unparsable", "ok"]
    assert "20000" in (rows[0].reason or "") and "no human turn" in (rows[1].reason or "")


def test_respond_stage_killed_after_two_chunks_makes_only_the_rest(tmp_path):
    store = open_store(tmp_path)
    prompts = commit(store, "prompts", [prompt(f"text {i}") for i in range(10)], Prompt)
    stage = RespondStage(
        run=RunContext(store=str(tmp_path), chunk_rows=2),
        prompts=prompts,
        helpful_only=FAKE_MODEL,
        config=RespondConfig(),
    )

    def dies_at_five(request):
        if request.messages[-1].content == "text 5":
            raise KeyboardInterrupt
        return echo("c")(request)

    with pytest.raises(KeyboardInterrupt):
        stage.make(session_on(store, FakeGenerator(dies_at_five)))
    assert stage.result(store) is None
    second = FakeGenerator(echo("c"))
    resumed = stage.make(session_on(store, second))
    assert len(second.requests) == 6  # chunks 0 and 1 stay; 2, 3 and 4 are made

    other = open_store(tmp_path / "other")
    commit(other, "prompts", [prompt(f"text {i}") for i in range(10)], Prompt)
    uninterrupted = stage.make(session_on(other, FakeGenerator(echo("c"))))
    assert resumed == uninterrupted
    assert rows_of(store, resumed, Completion) == rows_of(other, uninterrupted, Completion)
