"""Fates: what a version becomes is decided once, and whoever looks a condemned one up decides that it stays."""

from pathlib import Path

import pytest

from tasks.store import Corrupt, Store, StoreError, fates, keys
from tasks.store.fates import Standing
from tasks.store.pins import read_pins
from tests.memory_backend import MemoryBackend
from tests.small_versions import commit, completions, derivation

DATASET = "completions"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(MemoryBackend(), tmp_path)


def condemned(store: Store) -> tuple[str, Standing]:
    """A committed version whose condemnation is open."""
    version = commit(store, completions(["a"])).version
    at = fates.standing(store.backend, DATASET, version)
    fates.condemn(store.backend, DATASET, version, at)
    return version, at


def remove(store: Store, version: str) -> None:
    """As gc does it, without looking whether it may."""
    manifest, at = store.manifest(DATASET, version), fates.standing(store.backend, DATASET, version)
    fates.condemn(store.backend, DATASET, version, at)
    assert fates.decide_dead(store.backend, manifest, at)
    store.backend.delete(keys.manifest_key(DATASET, version, at.generation))


def test_find_condemned_version_is_kept_and_cannot_be_removed_in_that_round(store: Store) -> None:
    version, at = condemned(store)
    manifest = store.find(DATASET, version)
    assert manifest is not None
    assert not fates.decide_dead(store.backend, manifest, at)
    assert fates.standing(store.backend, DATASET, version) == Standing(0, 2, False)
    assert store.find(DATASET, version) == manifest


def test_find_version_decided_dead_is_none_before_its_manifest_is_deleted(store: Store) -> None:
    version, at = condemned(store)
    manifest = fates.read_manifest(store.backend, DATASET, version, 0)
    assert manifest and fates.decide_dead(store.backend, manifest, at)
    assert not fates.decide_kept(store.backend, DATASET, version, at)
    assert store.backend.keys(keys.folder(DATASET, "versions"))
    assert store.find(DATASET, version) is None
    assert store.versions(DATASET) == [] and store.datasets() == []


def test_versions_listing_decides_nothing(store: Store) -> None:
    version, at = condemned(store)
    assert [manifest.version for manifest in store.versions(DATASET)] == [version]
    assert fates.standing(store.backend, DATASET, version) == at._replace(condemned=True)


def test_commit_removed_version_is_made_again_as_the_next_generation(store: Store) -> None:
    first = commit(store, completions(["a"]))
    for generation in (1, 2):
        remove(store, first.version)
        assert store.find(DATASET, first.version) is None
        assert commit(store, completions(["a"])) == first
        assert store.manifest(DATASET, first.version).generation == generation
    assert store.read(first).num_rows == 1
    assert [stone.manifest.generation for stone in store.tombstones(DATASET)] == [0, 1]
    assert store.tombstones(DATASET)[0].when == "1970-01-01T00:16:40+00:00"


def test_find_manifest_that_arrives_late_under_a_removed_generation_is_not_found(store: Store) -> None:
    version = commit(store, completions(["a"])).version
    late = store.manifest(DATASET, version)
    remove(store, version)
    assert store.backend.put_if_absent(keys.manifest_key(DATASET, version, 0), late.to_bytes())
    assert store.find(DATASET, version) is None
    assert store.versions(DATASET) == []


def test_publish_expelled_attempt_is_an_error_and_publishes_nothing(store: Store) -> None:
    with store.writer(derivation()) as writer:
        writer.append(completions(["a"]))
        (attempt,) = read_pins(store.backend, 0, 0).attempts
        assert fates.expel(store.backend, attempt) is None
        with pytest.raises(StoreError, match="gc removed the files of this attempt"):
            writer.commit(metrics={}, cost={})
    assert store.find(DATASET, derivation().version) is None


def test_expel_attempt_that_is_publishing_says_which_generation(store: Store) -> None:
    fates.may_publish(store.backend, "attempt", 3)
    assert fates.generation_in_work(store.backend, "attempt") == 3
    assert fates.expel(store.backend, "attempt") == 3
    fates.may_publish(store.backend, "attempt", 3)  # the same again, as after a lost answer
    fates.forget(store.backend, "attempt")
    assert fates.expel(store.backend, "attempt") is None
    assert fates.generation_in_work(store.backend, "attempt") is None


def test_find_damaged_decision_is_an_error(store: Store) -> None:
    version, at = condemned(store)
    assert fates.decide_kept(store.backend, DATASET, version, at)
    key = next(key for key in store.backend.keys(keys.folder(DATASET, "fates")) if "decided" in key)
    store.backend.put(key, [b""])
    with pytest.raises(Corrupt, match="neither kept nor dead"):
        store.find(DATASET, version)


def test_commit_leaves_no_pin_and_no_register(store: Store) -> None:
    commit(store, completions(["a"]))
    assert store.backend.keys(keys.PINS) == [] and store.backend.keys(keys.ATTEMPTS) == []
