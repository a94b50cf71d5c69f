"""What a run starts from: its evaluators are different models, by name."""

import shutil
from pathlib import Path

import pytest

from flows.config import ConfigError
from flows.given import FEEDBACK, gather, jury
from tasks.planning import Planner
from tasks.store import Store
from tests.aligned import small_config

MICRO = "tasks/micro/model"


@pytest.fixture
def planner(tmp_path: Path) -> Planner:
    return Planner(Store.open(str(tmp_path / "store")), tmp_path / "scratch")


def test_jury_without_further_models_is_the_feedback_model(planner, tmp_path):
    assert list(jury(planner, small_config(tmp_path))) == [FEEDBACK]


def test_jury_same_weights_under_another_path_are_refused_by_name(planner, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(MICRO, copy)
    config = small_config(tmp_path, f"models.jury=[{{name: second, model: {copy}}}]")
    with pytest.raises(ConfigError, match=rf"models\.jury\.second: .*same model as '{FEEDBACK}'"):
        jury(planner, config)


def test_jury_different_weights_are_evaluators_in_order(planner, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(MICRO, other)
    (other / "generation_config.json").write_text("{}")
    found = jury(planner, small_config(tmp_path, f"models.jury=[{{name: second, model: {other}}}]"))
    assert list(found) == [FEEDBACK, "second"]
    assert len({model.content_hash for model in found.values()}) == 2


@pytest.mark.parametrize("group", ["small_talk", "look_alikes"])
def test_gather_prompts_that_the_oracle_cannot_judge_are_refused_before_anything_is_spent(planner, tmp_path, group):
    given = f"prompts.{group}=tasks/evaluation/{group}.txt"
    with pytest.raises(ConfigError, match=r"judge\.evaluator is micro_oracle, .* \d+ of \d+ held-out prompts are none"):
        gather(planner, small_config(tmp_path, given))
    assert gather(planner, small_config(tmp_path, given, "judge.evaluator=feedback")).prompts.rows
    assert gather(planner, small_config(tmp_path)).prompts.rows
