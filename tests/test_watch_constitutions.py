"""Watching: a change is published once, a broken file is refused and the old one holds, what is lost is waited for."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from constitutions import Constitution, ConstitutionError
from flows.commands import watch_constitutions
from flows.commands.watch_constitutions import Mirror, Watcher, look_on, open_source, read_all
from tasks.publish import newest
from tasks.store import Store
from tasks.store.errors import StoreUnavailable
from tests.lineage_world import small_constitution
from tests.prefect_stack import eventually

OLD = small_constitution()
NEW = small_constitution(tone_1={"comparison_question": "Which response is kinder under tone-1?"})
ROOT = Path(__file__).parents[1]


@pytest.fixture
def watcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watcher:
    monkeypatch.setattr("flows.changes.configured_api", lambda: None)
    return Watcher(Store.open(str(tmp_path / "store"), cache=tmp_path / "cache"), "anna")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "watched").mkdir()
    return tmp_path / "watched"


def text_of(constitution: Constitution) -> str:
    return yaml.safe_dump(constitution.model_dump(mode="json", exclude_none=True))


def moves(watcher: Watcher, name: str = "small") -> list[str]:
    return [move.version for move in watcher.store.tag_history("constitutions", name)]


def test_follow_publishes_a_change_once(watcher, folder):
    for constitution in (OLD, OLD, NEW, NEW, OLD):
        (folder / "a.yaml").write_text(text_of(constitution))
        watcher.follow(read_all(folder))
    first, second, third = moves(watcher)
    assert first == third != second
    assert watcher.store.tag_history("constitutions", "small")[0].by == "anna: a.yaml, watched"


def test_follow_leaves_alone_what_somebody_else_published_meanwhile(watcher, folder):
    from tasks.publish import publish

    (folder / "a.yaml").write_text(text_of(OLD))
    watcher.follow(read_all(folder))
    publish(watcher.store, NEW, "ben")
    watcher.follow(read_all(folder))
    assert newest(watcher.store, "small").constitution.hash == NEW.hash


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ("id: [", "not YAML"),
        (text_of(OLD).replace("title:", "titel:"), "titel"),
        (text_of(small_constitution(tone_1={"comparison_question": "Always (A)."})), "a.yaml: one-sided: tone-1"),
    ],
)
def test_follow_refuses_a_broken_file_and_goes_on_with_the_old_one(watcher, folder, capsys, broken, words):
    (folder / "a.yaml").write_text(text_of(OLD))
    watcher.follow(read_all(folder))
    (folder / "a.yaml").write_text(broken)
    for _ in range(3):
        watcher.follow(read_all(folder))
    printed = capsys.readouterr().out
    assert words in printed and printed.count("not published") == 1
    assert len(moves(watcher)) == 1
    (folder / "a.yaml").write_text(text_of(NEW))
    watcher.follow(read_all(folder))
    assert newest(watcher.store, "small").constitution.hash == NEW.hash


def test_follow_two_files_of_one_id_are_refused_until_one_has_another(watcher, folder):
    (folder / "a.yaml").write_text(text_of(OLD))
    (folder / "b.yaml").write_text(text_of(NEW))
    watcher.follow(read_all(folder))
    assert moves(watcher) == []
    (folder / "b.yaml").write_text(text_of(NEW.model_copy(update={"id": "other"})))
    watcher.follow(read_all(folder))
    assert len(moves(watcher)) == len(moves(watcher, "other")) == 1


def test_follow_a_file_that_is_gone_leaves_what_it_published(watcher, folder, capsys):
    (folder / "a.yaml").write_text(text_of(OLD))
    watcher.follow(read_all(folder))
    (folder / "a.yaml").unlink()
    watcher.follow(read_all(folder))
    assert "a.yaml: is gone" in capsys.readouterr().out and len(moves(watcher)) == 1


def test_follow_sends_an_event_that_was_lost_once_the_server_is_back(watcher, folder, monkeypatch):
    from flows.changes import NotAnnounced

    sent, away = [], [True]

    def announce(event):
        if away:
            raise NotAnnounced("away")
        sent.append(event["payload"]["sequence"])

    monkeypatch.setattr("flows.changes.configured_api", lambda: "http://somewhere/api")
    monkeypatch.setattr("flows.changes.announce", announce)
    for constitution in (OLD, NEW):
        (folder / "a.yaml").write_text(text_of(constitution))
        watcher.follow(read_all(folder))
    away.clear()
    for _ in range(2):
        watcher.follow(read_all(folder))
    assert sent == [2]


def test_look_on_waits_for_a_store_that_is_away_and_for_a_file_that_is_being_written(watcher, monkeypatch, capsys):
    half, pauses = OLD.model_copy(update={"principles": OLD.principles[:2]}), iter(range(20))
    looks = iter([{"a": half}, {"a": OLD}, {"a": OLD}, {"a": OLD}])
    publish = watcher.store.tag_after
    lost = iter([True])

    def tag_after(*arguments):
        if next(lost, False):
            raise StoreUnavailable("the store is away")
        return publish(*arguments)

    def sleep(seconds):
        if next(pauses) > 12:
            raise KeyboardInterrupt

    monkeypatch.setattr(watcher.store, "tag_after", tag_after)
    monkeypatch.setattr(watch_constitutions.time, "sleep", sleep)
    with pytest.raises(KeyboardInterrupt):
        look_on(watcher, lambda: next(looks, {"a": OLD}), 5)
    assert newest(watcher.store, "small").constitution.hash == OLD.hash and len(moves(watcher)) == 1
    assert "trying again" in capsys.readouterr().out


def test_open_source_that_is_not_there_is_an_error_that_says_so(tmp_path):
    with pytest.raises(ConstitutionError, match=r"nothing: no such file or folder; expected one, or s3://"):
        open_source(str(tmp_path / "nothing"), tmp_path)


def test_mirror_of_a_prefix_sees_files_come_change_and_go(s3_uri, folder, tmp_path):
    from tasks.store.backend import open_backend

    backend = open_backend(s3_uri)
    backend.put("a.yaml", [text_of(OLD).encode()])
    backend.put("deeper/b.yaml", [b"no constitution"])
    (tmp_path / "copies").mkdir()
    look = Mirror(s3_uri, tmp_path / "copies")
    assert look() == {"a.yaml": OLD}
    backend.put("a.yaml", [text_of(NEW).encode()])
    backend.put("c.yaml", [b"extends: a.yaml\nid: third\n"])
    assert look()["a.yaml"] == NEW and look()["c.yaml"].id == "third"
    assert list(Mirror(f"{s3_uri}/c.yaml", folder)()) == ["c.yaml"]
    backend.delete("a.yaml")
    assert "no file a.yaml" in look()["c.yaml"]


def test_command_publishes_what_an_editor_writes_and_ends_with_ctrl_c(folder, tmp_path):
    file, store = folder / "a.yaml", tmp_path / "store"
    file.write_text(text_of(OLD))
    command = ["constitution", "watch", str(folder), "--store", str(store), "--every", "1"]
    environment = {k: v for k, v in os.environ.items() if k != "PREFECT_API_URL"} | {"PREFECT_HOME": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "-m", "flows", *command],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        opened = Store.open(str(store), cache=tmp_path / "cache")

        def holds(constitution: Constitution) -> bool:
            found = newest(opened, "small")
            return bool(found and found.constitution.hash == constitution.hash)

        eventually(lambda: holds(OLD), "the first was not published")
        file.write_text(text_of(NEW))
        eventually(lambda: holds(NEW), "the second was not published")
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0 and "stopped; what was published holds" in output
