"""`./solon datasets gc` and `tag`, as typed, on a small store."""

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from flows.commands.stored import datasets_app
from tasks.schema import DatasetRef
from tasks.store import InvalidName, NotCommitted, Store
from tests.small_versions import commit, completions

NOTHING = ("--newest", "0", "--days", "0", "--reuse-days", "0")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"), cache=tmp_path / "cache")


@pytest.fixture
def refs(store: Store) -> list[DatasetRef]:
    found = [commit(store, completions([f"text {seed}"]), seed) for seed in range(2)]
    store.tag("completions", "prod", found[0].version, by="test")
    return found


def run(store: Store, *arguments: str, ok: bool = True) -> Result:
    result = CliRunner().invoke(datasets_app, [*arguments, "--store", store.uri])
    assert ok == (result.exit_code == 0), result.output
    return result


def test_gc_without_delete_shows_what_would_go_and_removes_nothing(store: Store, refs: list[DatasetRef]) -> None:
    printed = run(store, "gc", *NOTHING).output
    assert "1 versions would be removed, 1 kept" in printed and "tag prod" in printed
    assert len(store.versions("completions")) == 2


def test_gc_delete_removes_and_says_so_as_json(store: Store, refs: list[DatasetRef]) -> None:
    report = json.loads(run(store, "gc", *NOTHING, "--delete", "--json").output)
    assert report["deleted"] is True
    assert [found["version"] for found in report["removed"]] == [refs[1].version]
    assert [found["reason"] for found in report["kept"]] == ["tag prod"]
    assert [manifest.version for manifest in store.versions("completions")] == [refs[0].version]


def test_gc_defaults_keep_what_is_young(store: Store, refs: list[DatasetRef]) -> None:
    run(store, "gc", "--delete")
    assert len(store.versions("completions")) == 2


def test_gc_frees_the_files_of_what_was_removed_once_the_grace_is_over(store: Store, refs: list[DatasetRef]) -> None:
    run(store, "gc", *NOTHING, "--delete")
    for path in Path(store.uri).glob("v1/datasets/**/*"):
        if path.is_file():
            os.utime(path, (path.stat().st_atime, path.stat().st_mtime - 2 * 3600))
    kept = json.loads(run(store, "gc", *NOTHING, "--delete", "--json", "--grace-hours", "3").output)
    assert kept["bytes"] == 0
    freed = json.loads(run(store, "gc", *NOTHING, "--delete", "--json", "--grace-hours", "1").output)
    assert (freed["objects"], freed["bytes"] > 0) == (1, True)
    assert store.read(refs[0]).num_rows == 1


def test_tag_moves_by_prefix_and_prints_its_history(store: Store, refs: list[DatasetRef]) -> None:
    run(store, "tag", "completions", "prod", refs[1].version[:8], "--by", "[red]anna[/red]")
    printed = run(store, "tag", "completions", "prod").output
    assert "[red]anna[/red]" in printed and printed.index(refs[1].version) < printed.index(refs[0].version)
    moves = json.loads(run(store, "tag", "completions", "prod", "--json").output)
    assert [(move["sequence"], move["version"]) for move in moves] == [(2, refs[1].version), (1, refs[0].version)]


def test_tag_to_where_another_tag_stands(store: Store, refs: list[DatasetRef]) -> None:
    run(store, "tag", "completions", "best", "prod")
    assert store.tags("completions")["best"].version == refs[0].version


def test_tag_unknown_tag_is_said_and_unknown_version_is_an_error(store: Store, refs: list[DatasetRef]) -> None:
    assert "no tag 'none'" in run(store, "tag", "completions", "none").output
    assert isinstance(run(store, "tag", "completions", "prod", "nothing", ok=False).exception, NotCommitted)
    assert isinstance(run(store, "tag", "completions", "../x", "prod", ok=False).exception, InvalidName)
