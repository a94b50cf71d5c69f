"""`./solon lineage` and `./solon constitution diff` as a user meets them: what is printed, and how they end."""

import json
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner

from constitutions import Constitution
from flows.commands.constitution_diff import DIFFERENT, words
from flows.commands.lineage import lineage, plain
from flows.commands.principles import constitution_app
from tasks.store import Store, StoreError
from tests.lineage_world import World, small_constitution

OLD = small_constitution()
NEW = small_constitution(tone_1={"comparison_question": "Which is better and kinder under tone-1?"})
app = typer.Typer()
app.add_typer(constitution_app, name="constitution")
app.command("lineage")(lineage)


def solon(*arguments: str, code: int = 0) -> str:
    """What a command prints; it must end with `code`."""
    result = CliRunner().invoke(app, list(arguments))
    if isinstance(result.exception, ValueError):  # which `./solon` prints as a message
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


def one_line(output: str) -> str:
    """Without the borders of tables and the line ends that a narrow console puts in."""
    return " ".join("".join(" " if c in "│┃━┏┓└┘├─┼┤╇┡┩" else c for c in output).split())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("commands")
    world = World(Store.open(str(folder / "store"), cache=folder / "cache"), folder)
    world.refs = world.run(OLD)
    world.amended = world.run(NEW)
    return world


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("files")
    return write(folder / "old.yaml", OLD), write(folder / "new.yaml", NEW)


def write(path: Path, constitution: Constitution) -> str:
    path.write_text(yaml.safe_dump(constitution.model_dump(mode="json", exclude_none=True)))
    return str(path)


def at(world: World) -> tuple[str, str]:
    return "--store", world.store.uri


# --- constitution diff ----------------------------------------------------------------------------------------


def test_diff_reworded_question_is_readable(files):
    text = one_line(solon("constitution", "diff", *files))
    assert f"{OLD.hash[:12]} -> {NEW.hash[:12]}" in text
    assert "tone-1 reworded (comparison)" in text
    assert "tone-1 comparison question Which is better {+and kinder+} under tone-1?" in text
    assert "revision 4 as it was 0.00% 0.00% 0.00%" in text
    assert "comparison 4 moved 25.00% 25.00%" in text


def test_diff_exit_code_tells_only_where_asked(files):
    solon("constitution", "diff", *files)
    solon("constitution", "diff", *files, "--exit-code", code=DIFFERENT)
    assert "no difference" in solon("constitution", "diff", files[0], files[0], "--exit-code")


def test_diff_json_with_store_counts_the_rows_there_are(world, files):
    document = json.loads(solon("constitution", "diff", *files, *at(world), "--rounds", "2", "--json"))
    revision, comparison = document["phases"]["revision"], document["phases"]["comparison"]
    assert revision["store"] == [] and not revision["moved"]
    assert comparison["touched"] == pytest.approx(0.25) and comparison["reworded_principles"] == ["tone-1"]
    assert [found["key"] for found in comparison["store"]] == [f"labels/{world.refs['labels'].version}"]
    assert comparison["store"][0]["made_anew"] == comparison["store"][0]["touched"] > 0
    assert revision["rounds"] == 2 and comparison["rounds"] is None


def test_diff_without_store_says_nothing_of_rows(files):
    assert json.loads(solon("constitution", "diff", *files, "--json"))["phases"]["comparison"]["store"] is None


def test_diff_sides_may_be_versions_of_the_store(world, files):
    version = world.refs["constitution"].version
    document = json.loads(solon("constitution", "diff", version[:8], files[1], *at(world), "--json"))
    assert (document["old_hash"], document["new_hash"]) == (OLD.hash, NEW.hash)


def test_diff_old_that_no_row_was_made_under_is_said(world, files, tmp_path):
    other = write(tmp_path / "other.yaml", small_constitution(calm_1={"comparison_question": "Which is calmer?"}))
    assert "no version under OLD" in one_line(solon("constitution", "diff", other, files[1], *at(world)))


def test_diff_added_removed_and_settings_are_named(tmp_path, files):
    document = OLD.model_dump(mode="json", exclude_none=True)
    first, second, third, _ = document["principles"]
    first |= {"weight": 2.0, "cluster": "elsewhere", "enabled": False}
    second["id"], third["id"] = "harm-two", "brand-new"
    third["comparison_question"] = "Which is new?"
    changed = tmp_path / "changed.yaml"
    changed.write_text(yaml.safe_dump(document | {"title": "Smaller", "principles": [first, second, third]}))
    text = one_line(solon("constitution", "diff", files[0], str(changed)))
    assert "title: [-Small-]{+Smaller+}" in text
    assert "re-clustered general -> elsewhere; reweighted 1 -> 2; disabled" in text.replace("1.0", "1").replace(
        "2.0", "2"
    )
    assert "harm-2 -> harm-two renamed" in text
    assert "brand-new added" in text and "calm-1 removed" in text and "tone-1 removed" in text
    assert "{+Which is new?+}" in text


def test_check_prints_every_principle(files):
    text = solon("constitution", "check", files[0])
    assert all(p.id in text and p.hash[:12] in text for p in OLD.principles)


@pytest.mark.parametrize(
    ("old", "new", "shown"),
    [
        ("a b c", "a c", "a [-b-] c"),
        (None, "a b", "{+a b+}"),
        ("a", None, "[-a-]"),
        ("one\ntwo", "one\ntwo three", "one\ntwo {+three+}"),
        ("[bold]x[/bold]", "[bold]x[/bold]", "[bold]x[/bold]"),
    ],
)
def test_words_mark_what_was_and_what_is(old, new, shown):
    assert words(old, new).plain == shown


# --- lineage --------------------------------------------------------------------------------------------------


def test_lineage_without_names_is_of_the_newest_policy(world):
    text = solon("lineage", *at(world))
    newest = max(world.store.versions("models/rl"), key=lambda m: (m.created_at, m.version))
    assert text.startswith(f"models/rl {newest.version[:10]}")
    shown = ["reward: models/reward", "preferences", "labels", "policy: models/sl", "external", "as above"]
    assert all(part in text for part in shown)
    assert all(p.revision_hash[:10] in text for p in OLD.principles)


def test_lineage_name_may_be_a_tag_or_a_prefix(world):
    version = world.refs["revisions"].version
    world.store.tag("revisions", "good", version, by="test")
    by_tag, by_prefix = (solon("lineage", "revisions", name, *at(world)) for name in ("good", version[:8]))
    assert by_tag == by_prefix and by_tag.startswith(f"revisions {version[:10]}")


def test_lineage_json_and_mermaid_hold_the_same_graph(world):
    version = world.refs["rl"].version
    found = json.loads(solon("lineage", "models/rl", version, "--json", *at(world)))
    assert found["root"] == f"models/rl/{version}"
    text = solon("lineage", "models/rl", version, "--mermaid", *at(world))
    assert text.startswith("flowchart TD\n") and text.count('["') == len(found["nodes"])


def test_lineage_principle_lists_versions_and_rows(world):
    text = solon("lineage", "--principle", "tone-1", "--rows", "2", *at(world))
    assert all(world.refs[name].version[:10] in text for name in ("revisions", "labels", "sl", "rl"))
    assert world.refs["prompts"].version[:10] not in text and "/feedback/" in text
    found = json.loads(solon("lineage", "--principle", "tone-1", "--json", *at(world)))
    assert found["num_rows"] == sum(v["rows"] or 0 for v in found["versions"]) > 0


def test_lineage_principle_versions_follow_what_they_were_made_from(world):
    found = json.loads(solon("lineage", "--principle", "tone-1", "--json", *at(world)))
    seen: set[str] = set()
    for version in found["versions"]:
        assert set(version["through"]) <= seen
        seen.add(version["key"])


def test_lineage_row_shows_what_it_came_from(world):
    refs = world.refs
    arguments = ("revisions", refs["revisions"].version, "--row", "p3/1", *at(world))
    text = one_line(solon("lineage", *arguments))
    for part in ("prompts: prompts", "train/p3", "round 0: revisions", "Completion 3", "reuse_key"):
        assert part in text
    found = json.loads(solon("lineage", *arguments, "--json"))
    assert [parent["role"] for parent in found["parents"]] == ["prompts", "completions", "round 0"]
    assert [holder["key"] for holder in found["holders"]] == [found["key"]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("models/nothing",), "no version of models/nothing; its datasets and models are"),
        (("revisions", "abcdef12"), "abcdef12"),
        (("revisions", "--row", "p99/9"), "no row 'p99/9'"),
        (("--principle", "nobody"), "the ids are calm-1"),
    ],
)
def test_lineage_unknown_names_are_errors_that_help(world, arguments, message):
    with pytest.raises(StoreError, match=message):
        solon("lineage", *arguments, *at(world))


@pytest.mark.parametrize(
    "arguments", [("models/rl", "--principle", "tone-1"), ("revisions", "--row", "p3/1", "--mermaid")]
)
def test_lineage_questions_that_exclude_each_other_are_refused(world, arguments):
    solon("lineage", *arguments, *at(world), code=2)


def test_lineage_empty_store_says_so(tmp_path):
    with pytest.raises(StoreError, match="its datasets and models are none"):
        solon("lineage", "--store", str(tmp_path / "empty"))


def test_plain_terminal_codes_of_a_model_are_not_obeyed():
    assert "\x1b" not in plain("\x1b[2J\x1b]0;title\x07 text") and plain("a\nb") == "a b"
    assert len(plain("x" * 5000)) < 400


def test_lineage_removed_version_still_answers(tmp_path: Path):
    from tasks.store import fates

    world = World(Store.open(str(tmp_path / "store"), cache=tmp_path / "cache"), tmp_path)
    refs: dict[str, Any] = world.run(OLD)
    remove(world.store, "labels", refs["labels"].version)
    assert [stone.manifest.version for stone in fates.tombstones(world.store.backend, "labels")]
    assert "removed by gc" in solon("lineage", "labels", refs["labels"].version[:8], *at(world))
    tree = json.loads(solon("lineage", "--json", *at(world)))
    assert tree["nodes"][f"labels/{refs['labels'].version}"]["state"] == "removed"
    found = json.loads(solon("lineage", "--principle", "tone-1", "--json", *at(world)))
    labels = next(v for v in found["versions"] if v["key"].startswith("labels/"))
    assert (labels["rows"], labels["state"]) == (None, "removed")


def remove(store: Store, dataset: str, version: str) -> None:
    """Remove a version as gc does: condemned, decided, then its manifest."""
    from tasks.store import fates

    manifest = store.manifest(dataset, version)
    standing = fates.standing(store.backend, dataset, version)
    fates.condemn(store.backend, dataset, version, standing)
    assert fates.decide_dead(store.backend, manifest, standing)
    for key in store.backend.keys(f"v1/datasets/{dataset}/versions/"):
        if version in key:
            store.backend.delete(key)
