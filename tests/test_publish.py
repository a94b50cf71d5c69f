"""Publishing: the tag moves when the content does, one of two wins, and Prefect hears of a move and of nothing else."""

import json
import time
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner

from constitutions import Constitution, ConstitutionError, load_constitution
from flows.changes import NotAnnounced, announce, event_of
from flows.commands.principles import constitution_app
from tasks import publish as publishing
from tasks.constitution import read_constitution
from tasks.publish import newest, publish
from tasks.store import Store
from tasks.store.errors import TagMoved
from tests.lineage_world import World, small_constitution

OLD = small_constitution()
NEW = small_constitution(tone_1={"comparison_question": "Which response is kinder under tone-1?"})
app = typer.Typer()
app.add_typer(constitution_app, name="constitution")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"), cache=tmp_path / "cache")


@pytest.fixture
def no_prefect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.changes.configured_api", lambda: None)


def write(folder: Path, constitution: Constitution) -> str:
    path = folder / f"{constitution.hash[:8]}.yaml"
    path.write_text(yaml.safe_dump(constitution.model_dump(mode="json", exclude_none=True)))
    return str(path)


def run(path: str, store: Store, *options: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["constitution", "publish", path, "--store", store.uri, *options])
    if isinstance(result.exception, ValueError):  # which `./solon` prints as a message
        raise result.exception
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


def test_publish_keeps_a_copy_and_moves_the_tag(store):
    published = publish(store, OLD, "anna")
    assert published.moved and published.before is None and published.before_version is None
    (move,) = store.tag_history("constitutions", "small")
    assert (move.sequence, move.by, move.version) == (1, "anna", published.move.version)
    kept = store.manifest("constitutions", move.version).dataset_ref()
    assert read_constitution(store, kept).hash == OLD.hash and store.read(kept).num_rows == 4


def test_publish_again_moves_nothing_whatever_the_order_of_principles(store):
    first = publish(store, OLD, "anna")
    again = publish(store, OLD.model_copy(update={"principles": OLD.principles[::-1]}), "ben")
    assert not again.moved and again.move == first.move
    assert len(store.tag_history("constitutions", "small")) == 1


def test_publish_there_and_back_is_three_moves_and_two_copies(store):
    moves = [publish(store, constitution, "anna").move for constitution in (OLD, NEW, OLD)]
    assert [move.sequence for move in moves] == [1, 2, 3]
    assert moves[0].version == moves[2].version != moves[1].version
    found = newest(store, "small")
    assert (found.before.hash, found.constitution.hash, found.moved) == (NEW.hash, OLD.hash, False)


def test_publish_other_ids_have_tags_of_their_own(store):
    publish(store, OLD, "anna")
    other = OLD.model_copy(update={"id": "other"})
    assert publish(store, other, "anna").move.sequence == 1
    assert newest(store, "small").constitution.hash == OLD.hash and newest(store, "nobody") is None


def test_publish_two_at_once_one_wins_and_the_other_says_so(store, monkeypatch):
    publish(store, OLD, "anna")
    made = publishing.ConstitutionStage.make

    def slow(stage, session):  # somebody else publishes between the look and the move
        monkeypatch.setattr(publishing.ConstitutionStage, "make", made)
        publish(store, NEW.model_copy(update={"title": "Another"}), "ben")
        return made(stage, session)

    monkeypatch.setattr(publishing.ConstitutionStage, "make", slow)
    with pytest.raises(TagMoved, match="somebody else moved it after move 1"):
        publish(store, NEW, "carl")
    assert [move.by for move in store.tag_history("constitutions", "small")] == ["ben", "anna"]
    assert newest(store, "small").constitution.title == "Another"


def test_command_prints_versions_and_the_rows_touched(tmp_path, no_prefect):
    world = World(Store.open(str(tmp_path / "store"), cache=tmp_path / "cache"), tmp_path)
    world.run(OLD)
    assert "small: nothing -> " in run(write(tmp_path, OLD), world.store, "--note", "a start")
    output = run(write(tmp_path, NEW), world.store)
    old, new = (move.version[:12] for move in world.store.tag_history("constitutions", "small")[::-1])
    assert f"small: {old} -> {new}, move 2" in output
    assert "reworded (comparison)" in output and "rows touched" in output
    assert "no event: no Prefect API is configured" in output
    assert "unchanged" in run(write(tmp_path, NEW), world.store)
    assert [move.by.partition(": ")[2] for move in world.store.tag_history("constitutions", "small")] == ["", "a start"]


def test_command_json_says_what_was_done(tmp_path, store, no_prefect):
    first = json.loads(run(write(tmp_path, OLD), store, "--json"))
    again = json.loads(run(write(tmp_path, OLD), store, "--json"))
    assert (first["moved"], first["sequence"], first["old_version"]) == (True, 1, None)
    assert again == first | {"moved": False, "event": "no event: nothing moved"}


def test_command_refuses_what_check_finds_wrong(tmp_path, store, no_prefect):
    wrong = small_constitution(tone_1={"comparison_question": "Always (A)."})
    with pytest.raises(ConstitutionError, match="not published, 1 errors"):
        run(write(tmp_path, wrong), store)
    assert store.tag_history("constitutions", "small") == []


# --- the event


def test_event_of_a_move_is_the_same_event_each_time_and_another_for_each_move(store):
    first = event_of(publish(store, OLD, "anna"), store.uri)
    again = event_of(publish(store, OLD, "anna"), store.uri)
    second = event_of(publish(store, NEW, "anna"), store.uri)
    assert first == again and first["id"] != second["id"]
    assert event_of(publish(store, NEW, "anna"), "elsewhere")["id"] != second["id"]
    assert second["resource"]["prefect.resource.id"] == "solon.constitution.small"
    payload = second["payload"]
    assert (payload["old_hash"], payload["new_hash"], payload["sequence"]) == (OLD.hash, NEW.hash, 2)
    assert (payload["old_version"], payload["new_version"]) == (first["payload"]["new_version"], payload["new_version"])


def received(resource: str) -> list[dict]:
    """Events of the resource that the server has recorded; it records them in the background."""
    from prefect.client.orchestration import get_client

    wanted = {"event": {"name": ["constitution.changed"]}, "resource": {"id": [resource]}}
    with get_client(sync_client=True) as client:
        answer = client.request("POST", "/events/filter", json={"filter": wanted})
    return answer.json()["events"]


def wait_for(resource: str, count: int) -> list[dict]:
    deadline = time.monotonic() + 60
    while len(found := received(resource)) < count and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def test_command_tells_a_real_server_of_each_move_once(tmp_path, store, prefect_home):
    named = {name: c.model_copy(update={"id": "told"}) for name, c in {"old": OLD, "new": NEW}.items()}
    resource = "solon.constitution.told"
    assert "constitution.changed sent to http" in run(write(tmp_path, named["old"]), store)
    run(write(tmp_path, named["new"]), store)
    assert "no event: nothing moved" in run(write(tmp_path, named["new"]), store)
    assert "move 2" in run(write(tmp_path, named["new"]), store, "--announce")  # the same event once more
    run(write(tmp_path, named["old"]), store)
    found = wait_for(resource, 3)
    assert sorted(event["payload"]["sequence"] for event in found) == [1, 2, 3]
    assert {event["payload"]["new_hash"] for event in found} == {c.hash for c in named.values()}


def test_announce_unreachable_server_is_an_error_that_says_so(store, prefect_home):
    from prefect.settings import PREFECT_API_URL, temporary_settings

    published = publish(store, OLD, "anna")
    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}),
        pytest.raises(NotAnnounced, match=r"did not reach http://127\.0\.0\.1:9/api"),
    ):
        announce(event_of(published, store.uri))


def test_command_ends_with_1_and_says_what_to_do_where_the_event_is_lost(tmp_path, store, monkeypatch):
    def lost(event):
        raise NotAnnounced("lost")

    monkeypatch.setattr("flows.changes.configured_api", lambda: "http://somewhere/api")
    monkeypatch.setattr("flows.changes.announce", lost)
    assert "send it with --announce" in run(write(tmp_path, OLD), store, code=1)
    assert len(store.tag_history("constitutions", "small")) == 1


@pytest.mark.parametrize("file", ["general.yaml", "micro.yaml"])
def test_publish_shipped_constitutions(store, file):
    constitution = load_constitution(Path(__file__).parent.parent / "constitutions" / file)
    assert publish(store, constitution, "anna").moved
