"""A plan says what a run would make and why, and then that is what the run makes."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from flows.align import align
from flows.plan import make_plan, summary
from tasks.store import Store
from tests.aligned import small_config

pytestmark = pytest.mark.usefixtures("prefect_home")


@pytest.fixture
def config(first_run, tmp_path):
    """The config of the first run on a copy of its store."""
    first, _ = first_run
    shutil.copytree(first.run.store, tmp_path / "store")
    return first.model_copy(update={"run": first.run.model_copy(update={"store": str(tmp_path / "store")})})


def amended(config, tmp_path, edit):
    """The config under its constitution as `edit` leaves it."""
    document = yaml.safe_load(Path(config.constitution).read_text())
    edit(document["principles"])
    (tmp_path / "amended.yaml").write_text(yaml.safe_dump(document))
    return config.model_copy(update={"constitution": str(tmp_path / "amended.yaml")})


def states(plan):
    return {stage.stage: stage.state for stage in plan.stages}


def files(folder):
    return {str(path): path.stat().st_mtime_ns for path in Path(folder).rglob("*") if path.is_file()}


def test_plan_on_an_empty_store_makes_everything_and_writes_nothing(tmp_path):
    plan = make_plan(small_config(tmp_path))
    assert set(states(plan).values()) == {"stale"}
    assert all(stage.reasons == ["never made before"] for stage in plan.stages)
    by_stage = {stage.stage: stage for stage in plan.stages}
    assert (by_stage["respond"].rows_to_make, by_stage["respond"].exact) == (18, True)
    assert (by_stage["revise"].rows_to_make, by_stage["revise"].exact) == (24, False)
    assert by_stage["label"].rows_to_make == 12 * 2 * 2
    assert not Store.open(str(tmp_path / "store")).datasets()


def test_plan_after_a_run_is_fresh_and_leaves_no_trace(config):
    before = files(config.run.store)
    plan = make_plan(config)
    assert plan.is_fresh and set(states(plan).values()) == {"fresh"}
    assert "nothing" in summary(plan)
    assert files(config.run.store) == before


def test_plan_reworded_question_relabels_and_says_which(config, tmp_path):
    def reword(principles):
        principles[0]["comparison_question"] += " Think twice."

    plan = make_plan(amended(config, tmp_path, reword))
    found = {stage.stage: stage for stage in plan.stages}
    untouched = {"prompts", "respond", "revise", "sft", "compare"}
    assert {stage for stage, state in states(plan).items() if state == "fresh"} >= untouched
    name = yaml.safe_load(Path(config.constitution).read_text())["principles"][0]["id"]
    assert found["label"].state == "stale" and found["label"].reasons == [f"principle {name} reworded"]
    assert found["label"].exact and 0 < found["label"].rows_to_make < found["label"].rows
    assert found["preferences"].state == "stale_unless_reproduced"
    assert found["rl"].state == "stale_unless_reproduced"
    assert found["label"].cost is not None and found["label"].cost.basis.startswith("labels/")
    assert found["rl"].cost is not None and found["rl"].cost.seconds > 0


def test_plan_of_an_amendment_is_what_the_run_then_makes(config, tmp_path):
    def reword(principles):
        principles[1]["comparison_question"] += " Think twice."

    new = amended(config, tmp_path, reword)
    planned = {stage.stage: stage for stage in make_plan(new).stages}
    result = align(new)
    made = {s.stage for s in result.stages if not s.reused}
    assert {stage for stage, plan in planned.items() if plan.state == "fresh"} <= {
        s.stage for s in result.stages
    } - made
    (labels,) = [s for s in result.stages if s.stage == "label"]
    cost = Store.open(new.run.store).manifest("labels", labels.version).cost
    assert cost["rows_made"] == planned["label"].rows_to_make
    assert cost["rows_kept"] == planned["label"].rows - planned["label"].rows_to_make


def test_plan_setting_that_changed_is_named(config):
    rl = config.rl.model_copy(update={"ppo": config.rl.ppo.model_copy(update={"kl_coef": 0.5})})
    other = config.model_copy(update={"rl": rl})
    found = {stage.stage: stage for stage in make_plan(other).stages}
    assert found["rl"].reasons == [f"setting ppo.kl_coef: {config.rl.ppo.kl_coef} -> 0.5"]
    assert found["reward"].state == "fresh"


def test_plan_forced_stage_says_so(config):
    run = config.run.model_copy(update={"force": ("label",), "force_salt": "again"})
    found = {stage.stage: stage for stage in make_plan(config.model_copy(update={"run": run})).stages}
    assert found["label"].reasons == ["forced by 'again'"]
    assert found["label"].rows_to_make == found["label"].rows


def test_plan_prompts_file_with_the_same_prompts_is_fresh(config, tmp_path):
    copied = tmp_path / "elsewhere.jsonl"
    shutil.copy(config.prompts.red_team, copied)
    moved = config.model_copy(update={"prompts": config.prompts.model_copy(update={"red_team": str(copied)})})
    assert make_plan(moved).is_fresh


def test_plan_reworded_critique_keeps_the_policy_where_so_told(config, tmp_path):
    def reword(principles):
        next(p for p in principles if p.get("critique_request"))["critique_request"] += " Think twice."

    new = amended(config, tmp_path, reword)
    trained = {stage.stage: stage for stage in make_plan(new).stages}
    assert trained["revise"].state == "stale" and trained["sft"].state == "stale_unless_reproduced"
    told = new.model_copy(update={"keep": new.keep.model_copy(update={"max_touched_fraction": 1.0})})
    kept = {stage.stage: stage for stage in make_plan(told).stages}
    assert kept["sft"].state == "kept" and "keeps models/sl/" in kept["sft"].reasons[0]
    assert kept["compare"].state == "fresh"
    result = align(told)
    assert {s.stage for s in result.stages if not s.reused} >= {"revise", "sft"}
    assert {s.stage for s in result.stages if s.reused} >= {"compare", "label", "reward", "rl"}
    policy = Store.open(told.run.store).manifest("models/sl", result.policies["sl"].version)
    assert "kept" in policy.metrics


def test_stage_that_reproduces_its_rows_does_not_ripple(config):
    forced = config.model_copy(update={"run": config.run.model_copy(update={"force": {"label": "again"}})})
    result = align(forced)  # the same model labels the same pairs the same way
    assert {s.stage for s in result.stages if not s.reused} <= {"label", "report"}


def command(config_path, *options):
    from flows.cli import app

    return CliRunner().invoke(app, ["plan", "--preset", "micro", "--config", str(config_path), *options])


def test_plan_command_exit_codes_and_json(config, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    assert command(path, "--exit-code").exit_code == 0
    changed = command(path, "--exit-code", "--json", "--set", "rl.ppo.kl_coef=0.5")
    assert changed.exit_code == 3
    plan = json.loads(changed.stdout)
    assert plan["fresh"] is False
    assert {stage["stage"]: stage["state"] for stage in plan["stages"]}["rl"] == "stale"
    reasons = {stage["stage"]: stage["reasons"] for stage in plan["stages"]}
    assert reasons["rl"] == [f"setting ppo.kl_coef: {config.rl.ppo.kl_coef} -> 0.5"]
    shown = command(path, "--set", "rl.ppo.kl_coef=0.5")
    assert shown.exit_code == 0 and "Plan on" in shown.stdout and "stages to make" in shown.stdout
