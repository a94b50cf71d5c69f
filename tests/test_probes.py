"""Planted pairs: how they are read, who judges them, what they say, and what an amendment asks again."""

import json

import pytest

from constitutions import Constitution, load_constitution
from tasks.chunks import forecast_rows
from tasks.demonstrations import DemonstrationsConfig
from tasks.gates import GatesConfig
from tasks.gates.canaries import canary_principles, read_canaries
from tasks.gates.probing import probe_gates
from tasks.judging import ORDERS
from tasks.probes import ProbeStage
from tasks.readers import ReadError
from tasks.schema import Probe
from tasks.serving import Choice, FakeGenerator, ServingConfig
from tasks.stage import RunContext, Session
from tasks.store import Store, resolve_external_model
from tests.planted_judges import always_a, good, judge, longer, write_canaries
from tests.worlds import FAKE_MODEL, commit_constitution, constitution_of, open_store, principle, rows_of, session_on

RUN = RunContext(chunk_rows=16)


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "store")


def constitution(*principles, **fields):
    return Constitution.model_validate({**constitution_of("x").model_dump(), "principles": principles, **fields})


SHOWN = DemonstrationsConfig()
HARM = constitution(*(principle(f"harm-{i}") for i in range(5)), principle("tone"))


def stage_of(store, tmp_path, content=HARM, num=24, evaluator="feedback", demonstrations=SHOWN, **config):
    canaries = write_canaries(tmp_path / f"canaries-{num}.jsonl", num)
    return ProbeStage(
        run=RUN,
        constitution=commit_constitution(store, content),
        feedback=FAKE_MODEL,
        evaluator=evaluator,
        demonstrations=demonstrations,
        config=GatesConfig.model_validate({"canaries": str(canaries), **config}),
    )


def made(store, stage, generator=None):
    """The rows, and how many a model was asked for."""
    generator = generator or judge(good)
    ref = stage.result(store) or stage.make(session_on(store, generator))
    return rows_of(store, ref, Probe), len(generator.choices)


def gates_of(rows, **config):
    return {gate.gate: gate for gate in probe_gates(rows, "feedback", GatesConfig(**config))}


# the stage


def test_probes_ask_every_canary_and_its_identical_pair_in_both_orders(store, tmp_path):
    stage = stage_of(store, tmp_path)
    generator = judge(good)
    rows, num_asked = made(store, stage, generator)
    assert len(rows) == num_asked == stage.num_rows(store) == 24 * (3 + 1) * 2
    by_kind = {kind: [row for row in rows if row.probe == kind] for kind in ("canary", "identical")}
    assert {row.principle_id for row in by_kind["canary"]} <= {f"harm-{i}" for i in range(5)}
    assert len({(row.row_id.split("/")[1], row.principle_id) for row in by_kind["canary"]}) == 24 * 3
    assert all(row.prob_a > 0.5 for row in by_kind["canary"])
    assert [row.prob_a for row in by_kind["identical"]] == pytest.approx([0.5] * 48)


def test_probes_identity_is_the_content_of_the_canaries_and_not_a_limit(store, tmp_path):
    first = stage_of(store, tmp_path)
    (tmp_path / "moved").mkdir()
    (tmp_path / "canaries-24.jsonl").rename(tmp_path / "moved" / "c.jsonl")
    moved = first.config.model_copy(update={"canaries": str(tmp_path / "moved" / "c.jsonl"), "max_longer": 0.5})
    version = first.model_copy(update={"config": moved}).derivation(store).version
    assert version == stage_of(store, tmp_path).derivation(store).version
    assert version != stage_of(store, tmp_path, num=23).derivation(store).version


def test_probes_under_an_amended_principle_ask_only_what_it_was_drawn_for(store, tmp_path):
    rows, _ = made(store, stage_of(store, tmp_path))
    reworded = constitution(
        principle("harm-0", comparison_question="Which is kinder?"),
        *(principle(f"harm-{i}") for i in range(1, 5)),
        principle("tone"),
    )
    stage = stage_of(store, tmp_path, reworded)
    expected = sum(row.principle_id == "harm-0" for row in rows)
    assert 0 < expected < len(rows)
    assert forecast_rows(stage, store).to_make == expected
    after, num_asked = made(store, stage)
    assert num_asked == expected
    assert [row.row_id for row in after] == [row.row_id for row in rows]


def test_probes_of_a_removed_principle_ask_only_its_own_pairs_again(store, tmp_path):
    rows, _ = made(store, stage_of(store, tmp_path))
    fewer = constitution(*(principle(f"harm-{i}") for i in range(1, 5)), principle("tone"))
    stage = stage_of(store, tmp_path, fewer)
    expected = sum(row.principle_id == "harm-0" for row in rows)
    assert forecast_rows(stage, store).to_make == expected
    assert made(store, stage)[1] == expected


def test_probes_of_another_evaluator_with_the_same_model_take_its_rows_under_their_own_name(store, tmp_path):
    made(store, stage_of(store, tmp_path))
    rows, num_asked = made(store, stage_of(store, tmp_path, evaluator="second"))
    assert num_asked == 0
    assert {row.evaluator for row in rows} == {"second"} and all("/second/" in row.row_id for row in rows)


def test_probes_principle_that_no_longer_is_about_harm_is_asked_no_canary(store, tmp_path):
    made(store, stage_of(store, tmp_path))
    moved = constitution(
        *(principle(f"harm-{i}") for i in range(5)), principle("tone", cluster="harm")
    )  # the same texts
    rows, _ = made(store, stage_of(store, tmp_path, moved))
    assert "tone" in {row.principle_id for row in rows if row.probe == "canary"}


def test_probes_show_the_demonstrations_that_labels_show(store, tmp_path):
    shown = {
        "id": "d", "conversation": [{"role": "user", "content": "hi"}], "completion_a": "one", "completion_b": "two",
        "answer": "A",
    }  # fmt: skip
    generator = judge(good)
    stage = stage_of(store, tmp_path, constitution(principle("harm"), comparison_demonstrations=[shown]))
    made(store, stage, generator)
    assert all(
        [m.role for m in request.messages] == ["user", "assistant", "user"] and "one" in request.messages[0].content
        for request in generator.choices
    )
    none = stage.model_copy(update={"demonstrations": DemonstrationsConfig(num_shown=0)})
    assert none.derivation(store).version != stage.derivation(store).version
    alone = judge(good)
    made(store, none, alone)
    assert {len(request.messages) for request in alone.choices} == {1}


def test_probe_that_gets_no_answer_is_a_failed_row(store, tmp_path):
    stage = stage_of(store, tmp_path)
    stage = stage.model_copy(update={"run": RUN.model_copy(update={"max_failed_fraction": 1.0})})
    answers = iter([Choice(None, error="too long"), Choice((-30.0, -31.0))] + [Choice((-1.0, -2.0))] * 190)
    rows, _ = made(store, stage, FakeGenerator(weigh=lambda request: next(answers)))
    assert [(row.status, row.prob_a) for row in rows[:2]] == [("failed", None)] * 2
    assert rows[0].reason == "too long" and "hold" in (rows[1].reason or "")


# who is asked


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("micro", {"harm-1", "harm-2", "harm-3", "harm-4"}),
        ("harmlessness", {"harm-physical", "harm-self", "harm-cruelty", "law-crime"}),
        ("general", {"harm-violence", "harm-crisis", "harm-crime"}),
        ("micro-tone", set()),
    ],
)
def test_canary_principles_speak_about_harm_by_cluster_or_id(name, expected):
    principles = load_constitution(f"constitutions/{name}.yaml").comparison_principles()
    assert {p.id for p in canary_principles(principles, GatesConfig())} == expected


def test_canary_principles_without_such_a_cluster_are_those_whose_question_speaks_of_harm():
    asks = [principle("a", comparison_question="Which is less harmful?"), principle("b")]
    principles = constitution(*asks).comparison_principles()
    assert [p.id for p in canary_principles(principles, GatesConfig())] == ["a"]


def test_canary_principles_that_are_named_are_the_ones_and_an_unknown_one_raises():
    principles = HARM.comparison_principles()
    assert [p.id for p in canary_principles(principles, GatesConfig(canary_principles=("tone", "harm-1")))] == [
        "harm-1", "tone",
    ]  # fmt: skip
    with pytest.raises(ReadError, match=r"'nome' is no enabled principle.*there are harm-0, .*tone"):
        canary_principles(principles, GatesConfig(canary_principles=("tone", "nome")))


# the file


def test_shipped_canaries_are_enough_balanced_in_length_and_about_many_things():
    canaries = read_canaries(GatesConfig().canaries)
    assert len(canaries) == 24 >= GatesConfig().min_samples
    assert sum(len(c.safe) > len(c.harmful) for c in canaries) == 12
    assert len({c.prompt for c in canaries}) == 24


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("no json", "c.jsonl:2: not JSON"),
        (json.dumps({"prompt": "p", "safe": "s"}), "c.jsonl:2: harmful: Field required"),
        (json.dumps({"prompt": "p", "safe": "s", "harmful": "h", "x": 1}), "c.jsonl:2: x: Extra inputs"),
        (json.dumps({"prompt": "p", "safe": " ", "harmful": "h"}), "c.jsonl:2: safe is empty"),
        (json.dumps({"prompt": "p", "safe": "s", "harmful": "s"}), "c.jsonl:2: safe and harmful are the same"),
    ],
)
def test_canaries_bad_line_is_an_error_by_its_number(tmp_path, line, says):
    path = tmp_path / "c.jsonl"
    path.write_text(json.dumps({"prompt": "p", "safe": "s", "harmful": "h"}) + "\n" + line + "\n")
    with pytest.raises(ReadError, match=says):
        read_canaries(str(path))


def test_canary_that_comes_twice_is_one(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_text((json.dumps({"prompt": "p", "safe": "s", "harmful": "h"}) + "\n") * 2)
    assert len(read_canaries(str(path))) == 1


# the gates


@pytest.mark.parametrize(("fault", "failed"), [(good, set()), (longer, {"canaries"})])
def test_probe_gates_of_a_judge(store, tmp_path, fault, failed):
    gates = gates_of(made(store, stage_of(store, tmp_path), judge(fault))[0])
    assert {name for name, gate in gates.items() if not gate.passed} == failed


def test_probe_gates_of_one_that_follows_the_position_prefers_no_canary(store, tmp_path):
    gates = gates_of(made(store, stage_of(store, tmp_path), judge(always_a))[0])
    assert gates["canaries"].value == 0.0
    assert gates["identical_pair"].passed and gates["identical_pair"].value < 1e-9
    assert not gates["identical_order"].passed and "(A)" in gates["identical_order"].says


def test_micro_model_passes_the_probes_of_its_world(tmp_path):
    """The committed weights, in process: what a strong feedback model measures."""
    store = Store.open(str(tmp_path / "store"))
    run = RunContext(serving=ServingConfig(engine="transformers", dtype="float32"))
    stage = ProbeStage(
        run=run,
        constitution=commit_constitution(store, load_constitution("constitutions/micro.yaml")),
        feedback=resolve_external_model("tasks/micro/model"),
        evaluator="feedback",
        demonstrations=SHOWN,
        config=GatesConfig(canaries="tasks/micro/data/canaries.jsonl"),
    )
    gates = gates_of(rows_of(store, stage.make(Session(store)), Probe))
    assert [gate.gate for gate in gates.values() if not gate.passed] == []


def rows_by_hand(num, right, status="ok"):
    names = [(f"c{i}", order) for i in range(num) for order in ORDERS]
    probs = [0.9 if int(name[1:]) < right else 0.1 for name, _ in names]
    return [
        Probe(
            row_id=f"canary/{name}/feedback/h/{order}", reuse_key="k", probe="canary", evaluator="feedback",
            principle_id="h", order=order, logprob_a=None, logprob_b=None, prob_a=p if status == "ok" else None,
            status=status, reason=None if status == "ok" else "x",
        )
        for (name, order), p in zip(names, probs, strict=True)
    ]  # fmt: skip


@pytest.mark.parametrize(("right", "passed"), [(24, True), (20, True), (19, False), (12, False), (0, False)])
def test_canaries_need_the_lower_end_of_their_interval_over_the_limit(right, passed):
    gate = gates_of(rows_by_hand(24, right))["canaries"]
    assert (gate.value, gate.passed) == (pytest.approx(right / 24), passed)


def test_canary_without_an_answer_is_not_right():
    rows = [*rows_by_hand(24, 24)[:-10], *rows_by_hand(24, 24, "failed")[-10:]]
    assert gates_of(rows)["canaries"].value == pytest.approx(19 / 24)


def test_canaries_that_were_not_asked_are_said_not_to_be(store, tmp_path):
    rows, _ = made(store, stage_of(store, tmp_path, constitution(principle("tone"))))
    gate = gates_of(rows)["canaries"]
    assert (gate.passed, gate.status) == (True, "skipped") and "speaks about harm" in gate.says


def test_identical_pair_that_is_not_half_after_both_orders_fails():
    rows = [
        row.model_copy(update={"probe": "identical", "prob_a": 0.8 if row.row_id.startswith("canary/c3/") else 0.5})
        for row in rows_by_hand(24, 24)
    ]
    gate = gates_of(rows)["identical_pair"]
    assert (gate.passed, gate.value) == (False, pytest.approx(0.3))
