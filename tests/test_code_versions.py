"""Whoever changes a stage's code decides whether its results change; till then no earlier row may be reused."""

import json

import pytest

from tests import code_versions
from tests.code_versions import RECORD, STAGES, modules_of, now, undecided
from tests.test_structure import STAGES as FOUND_STAGES


def test_code_versions_no_stage_changed_without_a_decision():
    changed = undecided(json.loads(RECORD.read_text()), now())
    assert not changed, (
        f"the code behind {changed} changed. Decide for each: if the same inputs give other results, raise its "
        "code_version; then record the decision with `python -m tests.code_versions accept`"
    )


def test_code_versions_every_stage_is_watched():
    assert {name.rpartition(".")[2] for name in STAGES.values()} >= FOUND_STAGES


@pytest.mark.parametrize(
    ("stage", "module"),
    [
        ("revise", "constitutions.rendezvous"),
        ("label", "tasks.judging"),
        ("label", "tasks.prompts"),
        ("label", "tasks.serving.rendering"),
        ("sft", "tasks.training.sft"),
        ("rl", "tasks.training.ppo.losses"),
        ("prompts", "tasks.readers.transcripts"),
    ],
)
def test_code_versions_what_a_stage_stands_on_belongs_to_it(stage, module):
    assert module in modules_of(stage)


@pytest.mark.parametrize(
    ("edit", "changes"),
    [
        (lambda text: text.replace("500.0", "700.0"), True),
        (lambda text: text.replace("The answer", "An answer") + "\n# a comment\n", False),
    ],
)
def test_code_versions_a_change_of_code_counts_and_one_of_words_does_not(edit, changes, tmp_path, monkeypatch):
    source = tmp_path / "judging.py"
    text = '"""The answer."""\nLIMIT = 500.0\n'
    source.write_text(text)
    monkeypatch.setattr(code_versions, "modules_of", lambda stage: ["tasks.judging"])
    monkeypatch.setattr(code_versions, "source_of", lambda name: source)
    before = code_versions.digest_of("label")
    source.write_text(edit(text))
    assert (code_versions.digest_of("label") != before) is changes


def test_code_versions_raising_the_version_alone_still_asks_for_the_record():
    recorded = {"label": {"code_version": 1, "code": "a"}}
    assert undecided(recorded, {"label": {"code_version": 2, "code": "a"}}) == ["label"]
