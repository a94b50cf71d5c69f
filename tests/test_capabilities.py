"""`./solon capabilities` as typed, on a small store; scripts stand in for lm-eval and for its server."""

import json
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from flows.commands.capabilities import capabilities
from tasks.serving import ServingConfig, TransientServingError
from tasks.serving.rendering import Renderer
from tasks.serving.vllm_engine import VLLMGenerator
from tasks.store import Derivation, Store
from tests.test_harness import Served

MODEL = Path(__file__).parents[1] / "tasks" / "micro" / "model"
# Knows two tasks, of which one may fail; writes down what it is run for.
STAND_IN = """#!{python}
import json, pathlib, sys
here, words = pathlib.Path(__file__).parent, sys.argv
if "-c" in words:
    print(json.dumps(["arc_easy", "mmlu"]) if "TaskManager" in words[words.index("-c") + 1] else "0.4.13")
    sys.exit()
after = lambda name: words[words.index(name) + 1]
task = after("--tasks")
with open(here / "ran", "a") as ran:
    ran.write(task + "\\n")
if (here / "fails").exists() and task == "mmlu":
    sys.exit("the data set cannot be fetched")
n = int(after("--limit")) if "--limit" in words else 8
out = pathlib.Path(after("--output_path")) / "solon"
out.mkdir(parents=True)
found = {{
    "results": {{task: {{"acc,none": 0.75, "acc_stderr,none": 0.125}}}},
    "n-samples": {{task: {{"original": 8, "effective": n}}}}, "versions": {{task: 1}}, "n-shot": {{task: 0}},
    "config": {{"model_args": {{"base_url": "http://secret"}}}}, "task_hashes": {{task: "f00"}},
}}
(out / "results_2026.json").write_text(json.dumps(found))
(out / f"samples_{{task}}_2026-11-29T00-52-59.1.jsonl").write_text("")
"""

app = typer.Typer()
app.command()(capabilities)


class World:
    """A store with two versions of a model, the older one tagged."""

    def __init__(self, folder: Path, server: Served) -> None:
        self.folder = folder
        self.server = server
        self.store = Store.open(str(folder / "store"), cache=folder / "cache")
        self.old, self.new = (self.commit(seed) for seed in (0, 1))
        self.store.tag("models/rl", "prod", self.old.version, by="test")

    def commit(self, seed: int) -> Any:
        made_by = Derivation(
            stage="rl", dataset="models/rl", code_version=1, config={}, constitution=None, inputs={},
            models={}, seed=seed, force=None,
        )  # fmt: skip
        return self.store.commit_model(made_by, MODEL, metrics={}, cost={})

    def result(self, *words: str) -> Result:
        return CliRunner().invoke(app, [*words, "--store", self.store.uri])

    def rows(self, *words: str) -> list[dict[str, Any]]:
        result = self.result(*words, "--json")
        assert result.exit_code == 0, (result.output, result.exception)
        return json.loads(result.stdout)

    def ran(self) -> list[str]:
        """The tasks that lm-eval was run for."""
        path = self.folder / "ran"
        return path.read_text().split() if path.exists() else []


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    server = Served()
    python = tmp_path / "lm-eval-python"
    python.write_text(STAND_IN.format(python=sys.executable))
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("SOLON_LM_EVAL_PYTHON", str(python))
    monkeypatch.chdir(tmp_path)  # where logs go

    def start(folder: Path, config: ServingConfig) -> VLLMGenerator:
        return VLLMGenerator(server, Renderer.load(folder, config), config)

    monkeypatch.setattr("tasks.serving.vllm_engine.start", start)
    return World(tmp_path, server)


def test_capabilities_are_kept_with_the_model_that_they_are_of(world: World) -> None:
    (row,) = world.rows("models/rl", "prod", "--tasks", "arc_easy")
    assert (row["task"], row["metric"], row["value"], row["stderr"], row["num_samples"]) == (
        "arc_easy", "acc", 0.75, 0.125, 8,
    )  # fmt: skip
    (manifest,) = world.store.versions("capabilities")
    assert manifest.derivation.cites == {"model": f"models/rl/{world.old.version}"}
    assert manifest.metrics["task_hashes"] == {"arc_easy": "f00"}
    kept = world.store.get_blob("capabilities", manifest.version, "results.json")
    assert json.loads(kept)["n-samples"]["arc_easy"]["effective"] == 8
    assert b"secret" not in kept


def test_capabilities_newest_model_is_taken_where_no_version_is_named(world: World) -> None:
    world.rows("models/rl", "--tasks", "arc_easy")
    (manifest,) = world.store.versions("capabilities")
    assert manifest.derivation.cites["model"] == f"models/rl/{world.new.version}"


def test_capabilities_that_are_there_are_not_measured_again(world: World) -> None:
    first = world.rows("models/rl", "--tasks", "arc_easy")
    assert world.rows("models/rl", "--tasks", "arc_easy,mmlu")[:1] == first
    assert world.ran() == ["arc_easy", "mmlu"]
    assert world.rows("models/rl", "--tasks", "arc_easy", "--limit", "3")[0]["num_samples"] == 3
    assert world.ran() == ["arc_easy", "mmlu", "arc_easy"]


def test_capabilities_a_run_that_fails_loses_that_task_alone(world: World) -> None:
    (world.folder / "fails").touch()
    failed = world.result("models/rl", "--tasks", "arc_easy,mmlu")
    assert isinstance(failed.exception, ValueError)
    assert "the data set cannot be fetched" in str(failed.exception)
    (world.folder / "fails").unlink()
    assert [row["task"] for row in world.rows("models/rl", "--tasks", "arc_easy,mmlu")] == ["arc_easy", "mmlu"]
    assert world.ran() == ["arc_easy", "mmlu", "mmlu"]


def test_capabilities_server_that_died_leaves_nothing_behind(world: World) -> None:
    world.server.dead = "out of memory"
    failed = world.result("models/rl", "--tasks", "arc_easy")
    assert isinstance(failed.exception, TransientServingError)
    assert world.store.versions("capabilities") == []


def test_capabilities_changed_tasks_of_a_folder_are_measured_again(world: World) -> None:
    include = world.folder / "mine"
    include.mkdir()
    assert "--include" in str(world.result("models/rl", "--tasks", "mmlu", "--include", str(include)).exception)
    for text in ("task: a", "task: a", "task: b"):
        (include / "mine.yaml").write_text(text)
        world.rows("models/rl", "--tasks", "mmlu", "--include", str(include))
    assert world.ran() == ["mmlu", "mmlu"]


def test_capabilities_unknown_task_is_refused_before_anything_is_served(world: World) -> None:
    failed = world.result("models/rl", "--tasks", "arc_eazy")
    assert "near: arc_easy" in str(failed.exception)
    assert world.ran() == []


def test_capabilities_unknown_models_are_errors_that_say_what_there_is(world: World) -> None:
    assert "models/rl" in str(world.result("models/sl", "--tasks", "mmlu").exception)
    assert "nowhere" in str(world.result("models/rl", "nowhere", "--tasks", "mmlu").exception)
    outside = world.result(str(MODEL), "prod", "--tasks", "mmlu")
    assert outside.exit_code == 2


def test_capabilities_table_shows_value_error_and_documents(world: World) -> None:
    shown = world.result(str(MODEL), "--tasks", "mmlu", "--limit", "3").stdout
    assert all(text in shown for text in ("mmlu", "acc", "0.7500", "0.1250", "3 of 8"))
