"""What enters a stage's version, and what does not."""

import pytest

from tasks.compare import CompareConfig, CompareStage
from tasks.label import LabelConfig, LabelStage
from tasks.revise import ReviseConfig, ReviseStage
from tasks.schema import Comparison, Completion, Prompt, Row
from tasks.serving import Sampling, ServingConfig
from tasks.stage import Ledger, RunContext, StageFailed
from tasks.training.launch_config import LaunchConfig
from tests.worlds import FAKE_MODEL, commit, commit_constitution, constitution_of, open_store, prompt


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path)


def label_stage(store, constitution=None, run=None, text="a"):
    comparison = Comparison(row_id="p/0", reuse_key="k", prompt_id="p", completion_a=text, completion_b="b")
    return LabelStage(
        run=run or RunContext(),
        prompts=commit(store, "prompts", [prompt("ask")], Prompt),
        comparisons=commit(store, "comparisons", [comparison], Comparison),
        constitution=commit_constitution(store, constitution or constitution_of("one", "two")),
        feedback=FAKE_MODEL,
        evaluator="feedback",
        config=LabelConfig(),
    )


def version(stage, store):
    return stage.derivation(store).version


@pytest.mark.parametrize(
    "run",
    [
        RunContext(store="s3://elsewhere/x"),
        RunContext(chunk_rows=3),
        RunContext(training=LaunchConfig(threads=2)),
        RunContext(max_failed_fraction=0.5),
        RunContext(serving=ServingConfig(url="http://127.0.0.1:1", max_concurrency=7)),
        RunContext(force=("revise",)),
    ],
)
def test_version_where_and_how_it_ran_does_not_enter(store, run):
    assert version(label_stage(store, run=run), store) == version(label_stage(store), store)


@pytest.mark.parametrize(
    "run",
    [
        RunContext(seed=1),
        RunContext(force=("label",)),
        RunContext(serving=ServingConfig(dtype="bfloat16")),
        RunContext(serving=ServingConfig(engine="transformers")),
    ],
)
def test_version_what_changes_results_enters(store, run):
    assert version(label_stage(store, run=run), store) != version(label_stage(store), store)


def test_version_other_input_content_enters(store):
    assert version(label_stage(store, text="other"), store) != version(label_stage(store), store)


def test_version_config_enters(store):
    def compare(tokens):
        return CompareStage(
            run=RunContext(),
            prompts=commit(store, "prompts", [prompt("ask")], Prompt),
            policy=FAKE_MODEL,
            config=CompareConfig(sampling=Sampling(max_tokens=tokens)),
        )

    assert version(compare(8), store) != version(compare(9), store)


def test_version_reworded_comparison_question_moves_labels_but_not_revisions(store):
    before = constitution_of("one", "two")
    first = before.principles[0].model_copy(update={"comparison_question": "Which is kinder?"})
    after = before.model_copy(update={"principles": (first, *before.principles[1:])})

    def revise(constitution):
        completion = Completion(row_id="p/0", reuse_key="k", prompt_id="p", sample=0, completion="x")
        return ReviseStage(
            run=RunContext(),
            prompts=commit(store, "prompts", [prompt("ask")], Prompt),
            completions=commit(store, "completions", [completion], Completion),
            constitution=commit_constitution(store, constitution),
            helpful_only=FAKE_MODEL,
            config=ReviseConfig(),
        )

    assert version(revise(before), store) == version(revise(after), store)
    assert version(label_stage(store, before), store) != version(label_stage(store, after), store)


def test_version_order_title_and_cluster_of_a_constitution_move_nothing(store):
    before = constitution_of("one", "two")
    moved = [p.model_copy(update={"cluster": "renamed"}) for p in reversed(before.principles)]
    after = before.model_copy(update={"principles": tuple(moved), "title": "Another title"})
    assert version(label_stage(store, before), store) == version(label_stage(store, after), store)


def ledger(*statuses):
    kept = Ledger()
    kept.add([Row(row_id=str(i), reuse_key="k", status=s, reason=f"why {s}") for i, s in enumerate(statuses)])
    return kept


def test_failed_fraction_above_the_limit_names_share_limit_and_reason():
    with pytest.raises(StageFailed, match=r"2 of 4 rows are not ok, the limit is 25%; most often: why failed"):
        ledger("ok", "failed", "failed", "ok").check("revise", 0.25)


def test_failed_fraction_skipped_rows_do_not_count():
    ledger("skipped", "skipped", "skipped", "ok").check("revise", 0.0)
