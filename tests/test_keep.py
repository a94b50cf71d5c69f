"""Keeping an SL policy: only near enough, measured from what it was trained on, and its lineage says so."""

import pytest

from tasks.keep import KeepConfig, keep_policy
from tasks.schema import Completion, ModelRef, Prompt, Revision
from tasks.sft import SFTStage, SFTStageConfig
from tasks.stage import RunContext, Session
from tasks.store.external import EXTERNAL
from tests.worlds import FAKE_MODEL, Store, commit, prompt


@pytest.fixture
def store(tmp_path):
    return Store.open(str(tmp_path / "store"), tmp_path / "cache")


def revisions(store, changed=0, number=20):
    texts = [f"text {i}{' anew' if i < changed else ''}" for i in range(number)]
    requests = {"critique_request": "c", "critique": "x", "revision_request": "r"}
    rows = [
        Revision(row_id=f"{i}/0", reuse_key=f"{i}", prompt_id=f"{i}", round=0, revision=text, principle_id="p",
                 principle_hash="h", **requests)
        for i, text in enumerate(texts)
    ]  # fmt: skip
    return commit(store, "revisions", rows, Revision)


def sft(store, changed=0, **run):
    return SFTStage(
        run=RunContext(**run),
        prompts=commit(store, "prompts", [prompt("ask")], Prompt),
        completions=commit(store, "completions", [], Completion),
        revisions=revisions(store, changed),
        pretrained=FAKE_MODEL,
        config=SFTStageConfig(),
    )


def trained(store, tmp_path, stage, weights=b"trained"):
    folder = tmp_path / weights.decode()
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(weights)
    return store.commit_model(stage.derivation(store), folder, metrics={"final": {"loss": 1.0}}, cost={"seconds": 9.0})


def test_keep_few_changes_keeps_the_policy_with_its_content_and_says_why(store, tmp_path):
    old = trained(store, tmp_path, sft(store))
    stage = keep_policy(store, sft(store, changed=1), KeepConfig(max_touched_fraction=0.05))
    assert stage.keep == old
    kept = stage.make(Session(store))
    assert kept.content_hash == old.content_hash and kept.version != old.version
    manifest = store.manifest(kept.model, kept.version)
    assert manifest.metrics["kept"]["version"] == f"models/sl/{old.version}"
    assert "1 of 20 revisions changed" in manifest.metrics["kept"]["reason"]
    assert manifest.derivation.models["keep"] == old.content_hash
    assert manifest.derivation.cites["keep"] == f"models/sl/{old.version}"
    assert manifest.metrics["final"] == {"loss": 1.0}


@pytest.mark.parametrize(("changed", "limit"), [(2, 0.05), (1, 0.0), (20, 0.99)])
def test_keep_more_changes_than_the_limit_trains(store, tmp_path, changed, limit):
    trained(store, tmp_path, sft(store))
    assert keep_policy(store, sft(store, changed), KeepConfig(max_touched_fraction=limit)).keep is None


def test_keep_many_small_amendments_add_up(store, tmp_path):
    trained(store, tmp_path, sft(store))
    config = KeepConfig(max_touched_fraction=0.1)
    for changed in (1, 2):
        keep_policy(store, sft(store, changed), config).make(Session(store))
    assert keep_policy(store, sft(store, 3), config).keep is None  # one more than the last, three more than the trained


def test_keep_run_again_comes_to_the_same_version(store, tmp_path):
    trained(store, tmp_path, sft(store))
    stages = [keep_policy(store, sft(store, 1), KeepConfig(max_touched_fraction=0.1)) for _ in range(2)]
    first = stages[0].make(Session(store))
    assert stages[1].result(store) == first
    assert keep_policy(store, sft(store, 1), KeepConfig(max_touched_fraction=0.1)).result(store) == first


def test_keep_policy_of_another_seed_or_model_is_not_taken(store, tmp_path):
    trained(store, tmp_path, sft(store, seed=1))
    assert keep_policy(store, sft(store, 1), KeepConfig(max_touched_fraction=0.5)).keep is None
    other = sft(store).model_copy(update={"pretrained": ModelRef(model=EXTERNAL, version="0", content_hash="0" * 64)})
    trained(store, tmp_path, other, b"other")
    assert keep_policy(store, sft(store, 1), KeepConfig(max_touched_fraction=0.5)).keep is None


def test_keep_a_trained_policy_of_these_revisions_is_just_found(store, tmp_path):
    trained(store, tmp_path, sft(store))
    exact = trained(store, tmp_path, sft(store, 1), b"exact")
    stage = keep_policy(store, sft(store, 1), KeepConfig(max_touched_fraction=0.5))
    assert stage.keep is None and stage.result(store) == exact
