from itertools import islice

import pytest

from tasks.chunks import forecast_rows
from tasks.label import LabelConfig, LabelStage
from tasks.prompt_rows import read_rows
from tasks.schema import Comparison, DatasetRef, Prompt
from tasks.serving import FakeGenerator
from tasks.stage import RunContext
from tests.labelling import comparison, constitution, hard, questions_of
from tests.worlds import FAKE_MODEL, commit, commit_constitution, open_store, principle, prompt, session_on

FORMS = [
    {},
    {"num_principles": 2},
    {"principles": "all"},
    {"form": "reasoned", "num_samples": 3, "num_principles": 2},
    {"form": "score", "visible_reasoning": "judged"},
    {"form": "reasoned", "num_samples": 2, "principles": "all", "visible_reasoning": "judged"},
]
OF = constitution(principle("one"), principle("two", weight=2.0), hard("never"), hard("nor", enabled=False))


def stage_on(store, num_prompts, of=OF, **config):
    given = [prompt(f"ask {i}") for i in range(num_prompts)]
    pairs = [comparison(f"a {p.prompt_id}", "b", row_id=f"{p.prompt_id}/0", prompt_id=p.prompt_id) for p in given]
    return LabelStage(
        run=RunContext(chunk_rows=16),
        prompts=commit(store, "prompts", given, Prompt),
        comparisons=commit(store, "comparisons", pairs, Comparison),
        constitution=commit_constitution(store, of),
        feedback=FAKE_MODEL,
        evaluator="feedback",
        config=LabelConfig(**config),
    )


@pytest.mark.parametrize("config", FORMS)
def test_label_stage_rows_are_those_that_were_counted(tmp_path, config):
    store = open_store(tmp_path)
    stage = stage_on(store, 30, **config)
    weigh = FakeGenerator("So (A) is better.", lambda r: [-2.5] * (10 if "(J)" in r.messages[-1].content else 2))
    ref = stage.make(session_on(store, weigh))
    assert ref.rows == stage.num_rows(store) == sum(1 for _ in stage.items(store))
    names = store.read(ref).column("row_id").to_pylist()
    assert len(set(names)) == len(names)
    assert forecast_rows(stage, store).to_make == 0


def test_label_stage_plan_without_comparisons_counts_at_most_so_many(tmp_path):
    store = open_store(tmp_path)
    stage = stage_on(store, 30)
    pending = DatasetRef(dataset="comparisons", version="v", content_hash="pending:v", rows=30)
    at_most = stage.model_copy(update={"comparisons": pending}).num_rows(store)
    assert at_most == 30 * 4 and 30 * 2 < stage.num_rows(store) < at_most


def test_label_stage_items_are_made_one_at_a_time(tmp_path, monkeypatch):
    store = open_store(tmp_path)
    stage, read = stage_on(store, 40, num_principles=2), []

    def one_by_one(*given):
        for row in read_rows(*given):
            read.append(row)
            yield row

    monkeypatch.setattr("tasks.label.read_rows", one_by_one)
    assert len(list(islice(stage.items(store), 8))) == 8
    assert len(read) <= 2  # comparisons, each with at least four questions


def test_questions_do_not_depend_on_the_order_of_the_principles():
    turned = constitution(hard("never"), principle("two", weight=2.0), principle("one"))
    pairs = [comparison("x", "y", row_id=f"p/{i}") for i in range(20)]
    for config in FORMS:
        assert questions_of(*pairs, of=OF, **config) == questions_of(*pairs, of=turned, **config)


def test_label_stage_evaluator_and_templates_are_its_identity(tmp_path):
    store = open_store(tmp_path)
    first = stage_on(store, 2)
    other = first.model_copy(update={"evaluator": "second"})
    assert first.derivation(store).version != other.derivation(store).version
    assert first.recipe().digest == other.recipe().digest  # the same model may share its rows
    reasoned = first.model_copy(update={"config": LabelConfig(form="reasoned")})
    assert reasoned.recipe().digest == first.recipe().digest
    assert set(reasoned.extra_identity(store)["templates"]) == {"label", "label_reasoned"}
