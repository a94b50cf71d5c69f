"""`./solon datasets` and `./solon doctor`, as typed, on a small store."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from flows.commands.stored import datasets_app, doctor
from tasks.schema import Completion, DatasetRef
from tasks.store import Derivation, InputRef, Store
from tasks.store.identity import rows_to_table

app = typer.Typer()
app.add_typer(datasets_app, name="datasets")
app.command()(doctor)


def completions(**texts: str | None) -> list[Completion]:
    return [
        Completion(row_id=name, reuse_key=name, prompt_id=name, sample=0, completion=text, status=status)
        for name, text in texts.items()
        for status in ["ok" if text else "failed"]
    ]


def commit(store: Store, seed: int, rows: list[Completion]) -> DatasetRef:
    made_by = Derivation(
        stage="respond", dataset="completions", code_version=3, config={"temperature": 0.7}, constitution=None,
        inputs={"prompts": InputRef(version="1" * 32, content_hash="2" * 64)}, models={"policy": "3" * 64},
        seed=seed, force=None, cites={"constitution": "constitutions/abc"},
    )  # fmt: skip
    with store.writer(made_by) as writer:
        writer.append(rows_to_table(rows, Completion))
        cost = {"seconds": 12.5, "num_tokens": 7}
        return writer.commit(metrics={}, cost=cost, sources={"4" * 32: 1} if seed else None)


class World:
    """A store with two versions of one dataset, the first tagged, and a model."""

    def __init__(self, folder: Path) -> None:
        self.uri = str(folder / "store")
        self.store = Store.open(self.uri, cache=folder / "cache")
        self.old = commit(self.store, 0, completions(a="one", b="[red]two[/red]\x1b[2J", c="three", gone="x", bad=None))
        self.new = commit(
            self.store, 1, completions(a="one", b="[red]two[/red]\x1b[2J", c="THREE", fresh="y", bad=None)
        )
        self.store.tag("completions", "prod", self.old.version, by="test")
        model = folder / "model"
        model.mkdir()
        (model / "model.safetensors").write_bytes(b"weights")
        made_by = self.store.manifest("completions", self.old.version).derivation
        self.model = self.store.commit_model(
            made_by.model_copy(update={"dataset": "models/sl"}), model, metrics={}, cost={}
        )

    def run(self, *words: str, code: int = 0) -> str:
        result = self.result(*words)
        assert result.exit_code == code, result.output
        return result.stdout

    def result(self, *words: str) -> Result:
        return CliRunner().invoke(app, [*words, "--store", self.uri])

    def json(self, *words: str, code: int = 0) -> Any:
        return json.loads(self.run(*words, "--json", code=code))

    def refused(self, *words: str) -> str:
        """The message of the error that the command line would print."""
        result = self.result(*words)
        assert isinstance(result.exception, ValueError), result.output
        return str(result.exception)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("made"))


@pytest.fixture
def world(made: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A copy of the store, on a wide terminal."""
    from flows.commands import console

    monkeypatch.setattr(console.console, "width", 250)
    copy = object.__new__(World)
    copy.__dict__.update(made.__dict__)
    copy.uri = str(shutil.copytree(made.uri, tmp_path / "store"))
    copy.store = Store.open(copy.uri, cache=tmp_path / "cache")
    return copy


def part_of(world: World, version: str) -> Path:
    return next(Path(world.uri).rglob(f"data/{version}/*/part-00000.parquet"))


def test_ls_shows_every_version_with_tags_statuses_and_bytes(world: World) -> None:
    shown = world.run("datasets", "ls")
    assert all(
        text in shown
        for text in (world.old.version[:12], world.new.version[:12], "prod", "ok 4", "failed 1", "models/sl")
    )
    listed = {entry["version"]: entry for entry in world.json("datasets", "ls", "completions")}
    assert set(listed) == {world.old.version, world.new.version}
    assert listed[world.old.version]["tags"] == ["prod"]
    assert listed[world.new.version]["tags"] == []
    assert listed[world.old.version]["bytes"] == part_of(world, world.old.version).stat().st_size
    assert listed[world.old.version]["statuses"] == {"ok": 4, "failed": 1}


def test_show_says_where_a_version_came_from_and_what_is_in_it(world: World) -> None:
    shown = world.run("datasets", "show", "completions", world.new.version[:8])
    expected = ("1" * 32, "3" * 64, "constitutions/abc", "12.5", f"1 from {'4' * 32}", "temperature", "ok 4", "one")
    assert [text for text in expected if text not in shown] == []
    assert "prod" in world.run("datasets", "show", "completions", "prod")


def test_show_texts_are_neither_markup_nor_terminal_commands(world: World) -> None:
    shown = world.run("datasets", "show", "completions", "prod", "--rows", "5")
    assert "[red]two[/red]" in shown
    assert "\x1b" not in shown


def test_show_clips_long_texts(world: World) -> None:
    ref = commit(world.store, 2, completions(a="x" * 5000))
    shown = world.run("datasets", "show", "completions", ref.version, "--width", "20")
    assert shown.count("x" * 19) == 1
    assert "x" * 20 not in shown


def test_show_json_is_the_manifest_with_its_tags(world: World) -> None:
    shown = world.json("datasets", "show", "completions", "prod")
    assert (shown["version"], shown["tags"], shown["rows"]) == (world.old.version, ["prod"], 5)


def test_show_model_lists_its_files(world: World) -> None:
    shown = world.run("datasets", "show", "models/sl", world.model.version)
    assert "model.safetensors" in shown


def test_show_unknown_name_is_an_error_that_names_it(world: World) -> None:
    assert "nowhere" in world.refused("datasets", "show", "completions", "nowhere")
    assert ".." in world.refused("datasets", "show", "..", "prod")


def test_diff_counts_rows_and_shows_what_changed(world: World) -> None:
    found = world.json("datasets", "diff", "completions", "prod", world.new.version)
    assert [found[kind] for kind in ("added", "removed", "changed", "same")] == [1, 1, 1, 3]
    assert found["changed_columns"] == {"completion": 1}
    shown = world.run("datasets", "diff", "completions", "prod", world.new.version)
    assert all(text in shown for text in ("completion", "three", "THREE", "added fresh", "removed gone"))


def test_diff_exit_code_tells_whether_they_differ_only_where_asked(world: World) -> None:
    world.run("datasets", "diff", "completions", "prod", world.new.version, code=0)
    world.run("datasets", "diff", "completions", "prod", world.new.version, "--exit-code", code=1)
    world.run("datasets", "diff", "completions", "prod", world.old.version, "--exit-code", code=0)


def test_diff_of_models_is_an_error(world: World) -> None:
    assert "model" in world.refused("datasets", "diff", "models/sl", world.model.version, world.model.version)


def test_verify_whole_store_ends_with_0(world: World) -> None:
    assert "intact" in world.run("datasets", "verify")
    checks = world.json("datasets", "verify")
    assert {check["version"] for check in checks} == {world.old.version, world.new.version, world.model.version}
    assert [check["problems"] for check in checks] == [[], [], []]


def test_verify_damaged_part_ends_with_1_and_names_file_and_error(world: World) -> None:
    path = part_of(world, world.new.version)
    path.write_bytes(path.read_bytes()[:-1])
    shown = world.run("datasets", "verify", code=1)
    assert "PartTruncated" in shown
    [broken] = [check for check in world.json("datasets", "verify", code=1) if check["problems"]]
    assert (broken["version"], broken["problems"][0]["where"]) == (world.new.version, str(path))
    world.run("datasets", "verify", "completions", "prod", code=0)
    world.run("datasets", "verify", "completions", world.new.version, code=1)
    world.run("datasets", "verify", "models/sl", code=0)


def test_verify_edited_manifest_is_checked_under_its_whole_version(world: World) -> None:
    next(Path(world.uri).rglob(f"{world.new.version}.json")).write_bytes(b"{}")
    assert "ManifestEdited" in world.run("datasets", "verify", "completions", world.new.version, code=1)


def test_doctor_good_folder_ends_with_0_and_a_bad_address_with_1(world: World) -> None:
    assert "create-if-absent" in world.run("doctor")
    assert {finding["outcome"] for finding in world.json("doctor")} <= {"ok", "warning"}
    world.uri = str(part_of(world, world.old.version))
    assert world.json("doctor", code=1)[0]["outcome"] == "broken"


def test_datasets_app_has_all_its_commands() -> None:
    named = {command.name or command.callback.__name__ for command in datasets_app.registered_commands}
    assert named == {"ls", "show", "diff", "verify", "gc", "tag"}
