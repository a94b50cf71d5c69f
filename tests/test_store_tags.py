"""Tags: a log that is only added to, whoever moves them and however many at once."""

import threading
from pathlib import Path

import pytest

from tasks.store import Corrupt, InvalidName, NotCommitted, Store, keys
from tasks.store.errors import TagMoved
from tests.memory_backend import MemoryBackend
from tests.small_versions import commit, completions

DATASET = "completions"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(MemoryBackend(), tmp_path)


def versions(store: Store, count: int) -> list[str]:
    return [commit(store, completions([str(seed)]), seed).version for seed in range(count)]


def test_tag_moves_are_kept_newest_first_with_who_moved_them(store: Store) -> None:
    a, b = versions(store, 2)
    for version, by in ((a, "anna"), (b, "ben"), (a, "anna")):
        store.tag(DATASET, "prod", version, by)
    history = store.tag_history(DATASET, "prod")
    assert [(move.sequence, move.version, move.by) for move in history] == [
        (3, a, "anna"), (2, b, "ben"), (1, a, "anna")
    ]  # fmt: skip
    assert store.tags(DATASET) == {"prod": history[0]}


def test_tag_to_where_it_stands_appends_nothing(store: Store) -> None:
    (version,) = versions(store, 1)
    first = store.tag(DATASET, "prod", version, "anna")
    assert store.tag(DATASET, "prod", version, "ben") == first
    assert store.tag_history(DATASET, "prod") == [first]


def test_tag_after_is_the_very_next_move_or_none(store: Store) -> None:
    a, b = versions(store, 2)
    first = store.tag_after(DATASET, "prod", a, "anna", 0)
    assert (first.sequence, store.tag_after(DATASET, "prod", b, "ben", 1).sequence) == (1, 2)
    with pytest.raises(TagMoved, match="somebody else moved it after move 1"):
        store.tag_after(DATASET, "prod", a, "carl", 1)
    assert [move.by for move in store.tag_history(DATASET, "prod")] == ["ben", "anna"]


def test_tag_more_than_nine_moves_list_in_order(store: Store) -> None:
    found = versions(store, 2)
    for number in range(12):
        store.tag(DATASET, "prod", found[number % 2])
    assert [move.sequence for move in store.tag_history(DATASET, "prod")] == list(range(12, 0, -1))


def test_tag_race_of_movers_leaves_every_move_in_the_log(store_uri: str, tmp_path: Path) -> None:
    store = Store.open(store_uri, cache=tmp_path)
    found = versions(store, 4)
    threads = [threading.Thread(target=store.tag, args=(DATASET, "prod", version)) for version in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    history = store.tag_history(DATASET, "prod")
    assert [move.sequence for move in history] == [4, 3, 2, 1]
    assert {move.version for move in history} == set(found)


def test_tag_version_that_does_not_exist_is_refused_and_leaves_no_entry(store: Store) -> None:
    with pytest.raises(NotCommitted):
        store.tag(DATASET, "prod", "0" * 32)
    assert store.tag_history(DATASET, "prod") == [] and store.tags(DATASET) == {}
    assert store.backend.keys(keys.PINS) == []


def test_tag_leaves_no_pin(store: Store) -> None:
    (version,) = versions(store, 1)
    store.tag(DATASET, "prod", version)
    assert store.backend.keys(keys.PINS) == []


class NoRequests(MemoryBackend):
    """A place where any request is a fault."""

    def __getattribute__(self, name: str) -> object:
        if name in ("get", "put", "put_if_absent", "keys", "entries", "folders", "delete"):
            return lambda *arguments: pytest.fail("a request was made")
        return super().__getattribute__(name)


@pytest.mark.parametrize("name", ["..", "a/b", "", "Prod", "a\0", "x" * 300, "%2e", "prod?versionId=1", "pr\u043ed"])
def test_tag_hostile_names_are_refused_before_any_request(name: str, tmp_path: Path) -> None:
    store = Store(NoRequests(), tmp_path)
    for refused in (
        lambda: store.tag(DATASET, name, "0" * 32),
        lambda: store.tag(name, "prod", "0" * 32),
        lambda: store.tag(DATASET, "prod", name),
        lambda: store.tag_history(DATASET, name),
        lambda: store.tag_history(name, "prod"),
        lambda: store.tags(name),
        lambda: store.resolve(DATASET, name),
        lambda: store.resolve(name, "prod"),
    ):
        with pytest.raises(InvalidName):
            refused()


def test_tag_that_looks_like_a_version_is_refused(store: Store) -> None:
    (version,) = versions(store, 1)
    with pytest.raises(InvalidName, match="looks like a version"):
        store.tag(DATASET, "0" * 32, version)


def test_history_with_a_missing_entry_is_an_error(store: Store) -> None:
    for version in versions(store, 3):
        store.tag(DATASET, "prod", version)
    log = store.backend.keys(f"{keys.folder(DATASET, 'tags')}prod/")
    store.backend.delete(log[1])
    with pytest.raises(Corrupt, match="entries are missing"):
        store.tag_history(DATASET, "prod")


def test_tags_entry_under_another_key_is_an_error(store: Store) -> None:
    (version,) = versions(store, 1)
    store.tag(DATASET, "prod", version)
    key = store.backend.keys(f"{keys.folder(DATASET, 'tags')}prod/")[0]
    store.backend.put(key.replace("/prod/", "/other/"), [store.backend.get(key)])
    with pytest.raises(Corrupt, match="entry 1 of tag 'prod'"):
        store.tags(DATASET)


def test_resolve_tag_version_and_unique_prefix_name_the_same(store: Store) -> None:
    found = versions(store, 3)
    store.tag(DATASET, "prod", found[1])
    for name in ("prod", found[1], found[1][:6], found[1][:12]):
        assert store.resolve(DATASET, name).version == found[1]


def test_resolve_what_names_nothing_lists_candidates(store: Store) -> None:
    found = versions(store, 2)
    for name in (found[0][:5], "nothing", "0" * 32):
        with pytest.raises(NotCommitted, match=f"candidates: .*{found[0]}"):
            store.resolve(DATASET, name)
    with pytest.raises(InvalidName):
        store.resolve(DATASET, "../x")


def test_resolve_prefix_of_several_lists_them(tmp_path: Path) -> None:
    from tasks.store.tags import complete

    alike = ["abcdef" + "0" * 26, "abcdef" + "1" * 26]
    with pytest.raises(NotCommitted, match=f"2 versions begin with it.*{alike[1]}"):
        complete("abcdef", [*alike, "f" * 32], DATASET)
