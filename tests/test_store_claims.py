"""Advisory claims: who waits for whom, judged by the waiter's own clock."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.schema import Completion
from tasks.store import Derivation, InvalidName, Store
from tasks.store.claims import Claim, claim
from tasks.store.identity import rows_to_table

DATASET = "completions"


def derivation(seed: int = 0) -> Derivation:
    return Derivation(
        stage="respond", dataset=DATASET, code_version=1, config={}, inputs={}, constitution=None, models={},
        seed=seed, force=None,
    )  # fmt: skip


VERSION = derivation().version


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"), cache=tmp_path / "cache")


def commit(store: Store) -> None:
    row = Completion(row_id="r", reuse_key="k", prompt_id="p", sample=0, completion="text")
    store.commit_rows(derivation(), rows_to_table([row], Completion), metrics={}, cost={})


class World:
    """A clock that only sleeping moves, and what happens while one sleeps."""

    def __init__(self, store: Store, meanwhile: Callable[[], object] = lambda: None) -> None:
        self.store, self.meanwhile = store, meanwhile
        self.seconds, self.waited_for = 1000.0, list[str]()

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        self.meanwhile()
        assert self.seconds < 2000, "waited for ever"

    def claim(self, holder: str) -> Claim | None:
        return claim(
            self.store, DATASET, VERSION, holder, patience_seconds=60, poll_seconds=10,
            sleep=self.sleep, monotonic=lambda: self.seconds, waiting=self.waited_for.append,
        )  # fmt: skip


def won(found: Claim | None) -> Claim:
    assert found is not None
    return found


def claim_files(store: Store) -> list[str]:
    return [key.rpartition("/")[2] for key in store.backend.keys(f"v1/claims/{DATASET}/{VERSION}/")]


def test_claim_free_version_is_won_at_once_and_ended_without_a_trace(store: Store) -> None:
    world = World(store)
    with won(world.claim("first")) as held:
        held.beat()
        assert claim_files(store) == ["1.beat", "1.json"]
    assert claim_files(store) == []
    assert (world.seconds, world.waited_for) == (1000.0, [])


def test_claim_committed_version_is_none_and_leaves_no_claim(store: Store) -> None:
    commit(store)
    assert World(store).claim("late") is None
    assert claim_files(store) == []


def test_claim_waits_while_the_other_beats_and_returns_none_once_it_commits(store: Store) -> None:
    first = won(World(store).claim("first"))
    world = World(store)

    def meanwhile() -> None:
        if world.seconds < 1500:
            first.beat()
        elif world.seconds == 1500:
            commit(store)

    world.meanwhile = meanwhile
    assert world.claim("second") is None
    assert world.seconds == 1500
    assert world.waited_for == ["first"] * 50
    assert claim_files(store) == ["1.beat", "1.json"]  # the first has not ended its own yet


def test_claim_that_ended_without_a_version_is_free_at_the_next_look(store: Store) -> None:
    first = won(World(store).claim("first"))
    world = World(store, meanwhile=first.end)
    assert won(world.claim("second")).number == 1
    assert world.seconds == 1010


def test_claim_whose_counter_stands_still_is_taken_over_after_the_patience(store: Store) -> None:
    first = won(World(store).claim("first"))
    first.beat()
    world = World(store)
    second = won(world.claim("second"))
    assert second.number == 2
    assert world.seconds == 1060
    assert claim_files(store) == ["2.json"]
    first.beat()  # it was only slow
    first.end()
    assert "2.json" in claim_files(store)


def test_claim_patience_counts_from_the_last_beat_that_was_seen(store: Store) -> None:
    first = won(World(store).claim("first"))
    world = World(store)
    world.meanwhile = lambda: first.beat() if world.seconds == 1050 else None
    assert won(world.claim("second")).number == 2
    assert world.seconds == 1110


def test_claim_that_changes_hands_starts_the_patience_anew(store: Store) -> None:
    World(store).claim("first")
    world = World(store)
    taken: list[Claim] = []

    def meanwhile() -> None:
        if world.seconds == 1050:  # another waiter, which waited longer, is first
            taken.append(won(claim(store, DATASET, VERSION, "other", patience_seconds=0)))

    world.meanwhile = meanwhile
    assert won(world.claim("second")).number == 3
    assert [held.number for held in taken] == [2]
    assert world.seconds == 1110
    assert set(world.waited_for) == {"first", "other"}


def test_claim_lost_to_somebody_who_was_quicker_is_waited_for(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    found, stale = store.backend.keys, [[]]
    first = won(World(store).claim("first"))
    monkeypatch.setattr(
        store.backend, "keys", lambda prefix: stale.pop() if stale and "claims" in prefix else found(prefix)
    )
    world = World(store, meanwhile=first.end)
    assert won(world.claim("second")).number == 1
    assert world.waited_for == ["first"]


def test_claim_end_leaves_a_claim_of_the_same_number_by_another(store: Store) -> None:
    first = won(World(store).claim("first"))
    store.backend.delete(f"v1/claims/{DATASET}/{VERSION}/1.json")
    second = won(World(store).claim("second"))
    assert second.number == 1
    first.end()
    assert claim_files(store) == ["1.json"]


def test_claim_won_after_the_holder_committed_and_ended_is_given_up(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The holder commits and ends between a look for the version and a look for claims."""
    found = store.backend.keys

    def keys(prefix: str) -> list[str]:
        if prefix.startswith("v1/claims") and not store.backend.folders("v1/datasets/"):
            commit(store)
        return found(prefix)

    monkeypatch.setattr(store.backend, "keys", keys)
    assert World(store).claim("second") is None
    assert claim_files(store) == []


def test_claim_whose_old_record_gc_removed_still_lives_while_it_beats(store: Store) -> None:
    first = won(World(store).claim("first"))
    first.beat()
    store.backend.delete(f"v1/claims/{DATASET}/{VERSION}/1.json")
    world = World(store)
    world.meanwhile = lambda: first.beat() if world.seconds < 1500 else first.end()
    assert won(world.claim("second")).number == 1
    assert world.seconds == 1500
    assert claim_files(store) == ["1.json"]


def test_claim_unreadable_record_is_waited_for_like_any_other(store: Store) -> None:
    store.backend.put_if_absent(f"v1/claims/{DATASET}/{VERSION}/7.json", b"[not json")
    world = World(store)
    assert won(world.claim("second")).number == 8
    assert world.waited_for == ["somebody"] * 6


def test_claim_two_threads_one_works_while_the_other_waits_longer_than_its_patience(store: Store) -> None:
    first = claim(store, DATASET, VERSION, "first", beat_seconds=0.02)
    waiting, results = threading.Semaphore(0), list[Claim | None]()

    def second() -> None:
        results.append(
            claim(
                store, DATASET, VERSION, "second", patience_seconds=1.0, poll_seconds=0.1,
                waiting=lambda holder: waiting.release(),
            )
        )  # fmt: skip

    with won(first):
        waiter = threading.Thread(target=second)
        waiter.start()
        for _ in range(20):  # two patiences
            assert waiting.acquire(timeout=60)
        commit(store)
        waiter.join(timeout=60)
    assert results == [None]
    assert claim_files(store) == []


@pytest.mark.parametrize(("dataset", "version"), [("..", VERSION), ("a/b", VERSION), (DATASET, "../x"), (DATASET, "")])
def test_claim_hostile_name_is_refused(store: Store, dataset: str, version: str) -> None:
    with pytest.raises(InvalidName):
        claim(store, dataset, version, "me")
    assert store.backend.keys("v1/claims/") == []
