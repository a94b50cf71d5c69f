"""gc: what is needed stays, and for which reason; the rest goes, in two steps; nothing that may yet be needed does."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.schema import DatasetRef
from tasks.store import Corrupt, InputRef, Manifest, Store, StoreError, fates, keys
from tasks.store.gc import GcReport, collect_garbage, plan_garbage
from tasks.store.pins import read_pins
from tasks.store.retention import DAY_SECONDS, Lineage, Retention
from tasks.store.survey import Record
from tests.memory_backend import MemoryBackend
from tests.small_versions import completions, derivation, model_folder

DATASET = "completions"
GRACE = 100.0
NOTHING = Retention(newest=0, days=0, reuse_days=0)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(MemoryBackend(), tmp_path / "cache")


def pass_time(store: Store, seconds: float) -> None:
    store.backend.clock += seconds  # type: ignore[attr-defined]


def commit(store: Store, seed: int = 0, dataset: str = DATASET, **changes: Any) -> DatasetRef:
    made_by = derivation(dataset, seed).model_copy(update=changes)
    return store.commit_rows(made_by, completions([f"text {seed}"]), metrics={}, cost={})


def gc(store: Store, retention: Retention = NOTHING) -> GcReport:
    return collect_garbage(store, retention, GRACE)


def kept(report: GcReport) -> dict[str, str]:
    return {found.version: found.reason for found in report.kept}


def removed(report: GcReport) -> set[str]:
    return {found.version for found in report.removed}


def files(store: Store, kind: keys.Kind = "data", dataset: str = DATASET) -> list[str]:
    return store.backend.keys(keys.folder(dataset, kind))


def test_gc_version_that_nobody_needs_goes_at_once_and_its_files_a_grace_later(store: Store) -> None:
    ref = commit(store)
    report = gc(store)
    assert removed(report) == {ref.version} and report.bytes == 0
    assert store.find(DATASET, ref.version) is None
    assert len(files(store)) == 1
    pass_time(store, GRACE - 1)
    assert gc(store).objects == 0
    pass_time(store, 2)
    size = sum(entry.size for entry in store.backend.entries(keys.folder(DATASET, "data")))
    assert (gc(store).bytes, files(store)) == (size, [])
    assert [stone.manifest.ref() for stone in store.tombstones(DATASET)] == [ref]


def test_gc_newest_of_each_dataset_stay(store: Store) -> None:
    refs = []
    for seed in range(4):
        refs.append(commit(store, seed))
        pass_time(store, 1)
    other = commit(store, 0, "labels")
    report = gc(store, Retention(newest=2, days=0, reuse_days=0))
    assert set(kept(report)) == {refs[2].version, refs[3].version, other.version}
    assert set(kept(report).values()) == {"one of the newest 2"}


def test_gc_young_versions_stay(store: Store) -> None:
    old = commit(store, 0)
    pass_time(store, 3 * DAY_SECONDS)
    young = commit(store, 1)
    report = gc(store, Retention(newest=0, days=2, reuse_days=0))
    assert kept(report) == {young.version: "younger than 2 days"} and removed(report) == {old.version}


def test_gc_rows_that_can_be_reused_stay_longer(store: Store) -> None:
    with store.writer(derivation(seed=0)) as writer:
        writer.append(completions(["dear"]))
        ref = writer.commit(metrics={}, cost={}, reuse="recipe")
    plain = commit(store, 1)
    pass_time(store, 10 * DAY_SECONDS)
    report = gc(store, Retention(newest=0, days=1, reuse_days=90))
    assert kept(report) == {ref.version: "rows to reuse, younger than 90 days"} and removed(report) == {plain.version}
    pass_time(store, 90 * DAY_SECONDS)
    assert removed(gc(store, Retention(newest=0, days=1, reuse_days=90))) == {ref.version}


def test_gc_tagged_version_stays_until_the_tag_moves(store: Store) -> None:
    first, second = commit(store, 0), commit(store, 1)
    store.tag(DATASET, "prod", first.version)
    store.tag(DATASET, "best", second.version)
    assert kept(gc(store)) == {first.version: "tag prod", second.version: "tag best"}
    store.tag(DATASET, "prod", second.version)
    assert removed(gc(store)) == {first.version}
    assert store.read(second).num_rows == 1


def test_gc_held_version_stays_until_it_is_released_or_its_process_is_silent(store: Store) -> None:
    first, second = commit(store, 0), commit(store, 1)
    live, silent = (Store(store.backend, store.cache) for _ in range(2))
    live.hold(DATASET, first.version)
    silent.hold(DATASET, second.version)
    assert set(kept(gc(store))) == {first.version, second.version}
    assert all(reason.startswith("pin of ") for reason in kept(gc(store)).values())
    pass_time(store, GRACE + 1)
    live.pins.renew()
    report = gc(store)
    assert removed(report) == {second.version} and set(kept(report)) == {first.version}
    live.release()
    assert removed(gc(store)) == {first.version}
    assert store.backend.keys(keys.PINS) == []


def test_gc_what_is_kept_keeps_all_that_it_came_from(store: Store, tmp_path: Path) -> None:
    prompts = commit(store, 0, "prompts")
    made_by = derivation("models/sl")
    model = store.commit_model(made_by, model_folder(tmp_path / "m"), metrics={}, cost={})
    constitution = commit(store, 0, "constitutions")
    unrelated = commit(store, 5)
    inputs = {"prompts": InputRef(version=prompts.version, content_hash=prompts.content_hash)}
    cites = {"constitution": f"constitutions/{constitution.version}"}
    middle = commit(store, 1, "comparisons", inputs=inputs, models={"sl": model.content_hash}, cites=cites)
    last = commit(store, 2, "labels", inputs={"c": InputRef(version=middle.version, content_hash=middle.content_hash)})
    store.tag("labels", "prod", last.version)
    report = gc(store)
    assert removed(report) == {unrelated.version}
    assert kept(report)[prompts.version] == f"ancestor of comparisons {middle.version[:12]}"
    assert set(kept(report)) == {r.version for r in (prompts, model, constitution, middle, last)}


def test_gc_version_looked_up_while_it_is_condemned_stays_with_what_it_came_from(store: Store) -> None:
    prompts = commit(store, 0, "prompts")
    inputs = {"prompts": InputRef(version=prompts.version, content_hash=prompts.content_hash)}
    labels = commit(store, 1, "labels", inputs=inputs)

    def look_up(key: str) -> None:
        if f"{labels.version}/0.1.condemned" in key:
            assert Store(store.backend, store.cache).find("labels", labels.version)

    report = collect_garbage(Store(After(store.backend, look_up), store.cache), NOTHING, GRACE)
    assert report.removed == ()
    assert kept(report)[labels.version] == "looked up meanwhile"
    assert store.find("prompts", prompts.version)


class After:
    """A place where something happens right after a key was created."""

    def __init__(self, place: Any, happens: Callable[[str], None]) -> None:
        self.place, self.happens = place, happens

    def __getattr__(self, name: str) -> Any:
        return getattr(self.place, name)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        created = bool(self.place.put_if_absent(key, data))
        self.happens(key)
        return created


def test_gc_descendant_committed_while_its_input_is_condemned_keeps_the_input(store: Store) -> None:
    prompts = commit(store, 0, "prompts")
    inputs = {"prompts": InputRef(version=prompts.version, content_hash=prompts.content_hash)}

    def make_labels(key: str) -> None:
        if "condemned" in key:
            commit(store, 1, "labels", inputs=inputs)

    report = collect_garbage(Store(After(store.backend, make_labels), store.cache), NOTHING, GRACE)
    assert report.removed == ()
    assert kept(report)[prompts.version].startswith("ancestor of labels")


def test_gc_killed_between_condemning_and_deciding_is_finished_by_the_next(store: Store) -> None:
    ref = commit(store)
    fates.condemn(store.backend, DATASET, ref.version, fates.standing(store.backend, DATASET, ref.version))
    assert removed(gc(store)) == {ref.version}


def test_gc_manifest_of_a_removed_generation_is_deleted_later_too(store: Store) -> None:
    ref = commit(store)
    late = store.manifest(DATASET, ref.version)
    gc(store)
    assert store.backend.put_if_absent(keys.manifest_key(DATASET, ref.version, 0), late.to_bytes())
    assert gc(store).removed == ()
    assert files(store, "versions") == []


def test_gc_version_made_again_keeps_its_new_files_while_the_old_go(store: Store) -> None:
    ref = commit(store)
    gc(store)
    commit(store)
    store.tag(DATASET, "prod", ref.version)
    assert len(files(store)) == 2
    pass_time(store, GRACE + 1)
    assert gc(store).objects == 1
    assert store.read(ref).num_rows == 1


def test_gc_files_of_a_dead_attempt_go_after_the_grace_and_it_can_never_publish(store: Store) -> None:
    with pytest.raises(StoreError, match="run the stage again"), store.writer(derivation()) as writer:
        writer.append(completions(["a"]))
        writer._put(writer._encoder.finish())  # type: ignore[union-attr]
        assert len(files(store)) == 1
        pass_time(store, GRACE + 1)
        report = gc(store)
        assert report.objects == 2 and files(store) == []  # its pin went too
        writer.commit(metrics={}, cost={})
    assert store.find(DATASET, derivation().version) is None
    assert commit(store).rows == 1


def test_gc_files_of_a_live_attempt_stay_however_old(store: Store) -> None:
    with store.writer(derivation()) as writer:
        writer.append(completions(["a"]))
        writer._put(writer._encoder.finish())  # type: ignore[union-attr]
        pass_time(store, 50 * GRACE)
        store.pins.renew()
        assert gc(store).objects == 0
        ref = writer.commit(metrics={}, cost={})
    store.tag(DATASET, "prod", ref.version)
    pass_time(store, 50 * GRACE)
    gc(store)
    assert store.read(ref).num_rows == 1


def test_gc_attempt_that_stopped_while_publishing_is_left_until_another_has_won(store: Store) -> None:
    with store.writer(derivation()) as writer:
        writer.append(completions(["a"]))
        writer._put(writer._encoder.finish())  # type: ignore[union-attr]
        (attempt,) = read_pins(store.backend, 0, 0).attempts
        fates.may_publish(store.backend, attempt, 0)
    pass_time(store, GRACE + 1)
    assert gc(store).publishing == (attempt,)
    assert len(files(store)) == 1
    ref = commit(store)
    store.tag(DATASET, "prod", ref.version)
    pass_time(store, GRACE + 1)
    report = gc(store)
    assert report.publishing == () and report.objects == 1
    assert store.read(ref).num_rows == 1


def test_gc_attempt_that_published_after_it_was_surveyed_is_left(store: Store) -> None:
    """It stood still past the grace, then published and cleared its register, all while gc was at work."""
    writer = store.writer(derivation())
    with writer:
        writer.append(completions(["a"]))
        writer._put(writer._encoder.finish())  # type: ignore[union-attr]
        pass_time(store, GRACE + 1)
        late = Before(store.backend, keys.ATTEMPTS, lambda: writer.commit(metrics={}, cost={}))
        collect_garbage(Store(late, store.cache), NOTHING, GRACE)
    assert writer.done
    assert store.read(writer.done.dataset_ref()).num_rows == 1


class Before:
    """A place where something happens once, before the first key below a prefix is created."""

    def __init__(self, place: Any, prefix: str, happens: Callable[[], Any]) -> None:
        self.place, self.prefix, self.waiting = place, prefix, [happens]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.place, name)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        if key.startswith(self.prefix) and self.waiting:
            self.waiting.pop()()
        return bool(self.place.put_if_absent(key, data))


def test_gc_chunks_go_a_grace_after_the_commit_or_after_the_reuse_days(store: Store) -> None:
    ref = commit(store)
    store.tag(DATASET, "prod", ref.version)
    in_work = "1" * 32
    for version in (ref.version, in_work):
        store.chunk_put(DATASET, version, "00000-a", completions(["kept"]))
    assert store.versions_in_work(DATASET) == [in_work]
    assert gc(store, Retention(newest=0, days=0, reuse_days=1)).objects == 0
    pass_time(store, GRACE + 1)
    assert gc(store, Retention(newest=0, days=0, reuse_days=1)).objects == 1
    assert (store.chunk_keys(DATASET, ref.version), store.chunk_keys(DATASET, in_work)) == ([], ["00000-a"])
    pass_time(store, DAY_SECONDS)
    store.hold(DATASET, in_work)
    assert gc(store, Retention(newest=0, days=0, reuse_days=1)).objects == 0
    store.release()
    assert gc(store, Retention(newest=0, days=0, reuse_days=1)).objects == 1
    assert store.versions_in_work(DATASET) == []


def test_gc_side_files_go_with_their_version(store: Store) -> None:
    ref = commit(store)
    store.put_blob(DATASET, ref.version, "train.log", b"log")
    store.tag(DATASET, "prod", ref.version)
    pass_time(store, GRACE + 1)
    assert gc(store).objects == 0
    store.put_blob(DATASET, "1" * 32, "train.log", b"log")
    pass_time(store, GRACE + 1)
    assert gc(store).objects == 1
    assert store.get_blob(DATASET, ref.version, "train.log") == b"log"


def test_gc_claims_that_nobody_beats_go(store: Store) -> None:
    for number, age in ((1, GRACE + 1), (2, 0.0)):
        store.backend.put(f"{keys.CLAIMS}labels/{number * str(number)}/1.json", [b"{}"])
        pass_time(store, age)
    assert gc(store).objects == 1
    assert store.backend.keys(keys.CLAIMS) == [f"{keys.CLAIMS}labels/22/1.json"]


def test_gc_damaged_manifest_is_kept_with_its_files(store: Store) -> None:
    ref = commit(store)
    key = keys.manifest_key(DATASET, ref.version, 0)
    whole = store.backend.get(key)
    store.backend.put(key, [whole[:-9]])
    pass_time(store, GRACE + 1)
    assert kept(gc(store)) == {ref.version: "its manifest is damaged"}
    store.backend.put(key, [whole])
    assert store.read(ref).num_rows == 1


def test_gc_damaged_tag_stops_it(store: Store) -> None:
    ref = commit(store)
    store.tag(DATASET, "prod", ref.version)
    store.backend.put(files(store, "tags")[0], [b"{}"])
    with pytest.raises(Corrupt):
        gc(store)
    assert store.read(ref).num_rows == 1


def test_plan_says_what_would_go_and_changes_nothing(store: Store) -> None:
    refs = [commit(store, seed) for seed in range(3)]
    store.tag(DATASET, "prod", refs[0].version)
    with pytest.raises(KeyError), store.writer(derivation(seed=9)) as writer:
        writer.append(completions(["abandoned"]))
        writer._put(writer._encoder.finish())  # type: ignore[union-attr]
        raise KeyError
    pass_time(store, GRACE + 1)
    before = dict(store.backend.objects)  # type: ignore[attr-defined]
    plan = plan_garbage(store, NOTHING, GRACE)
    assert store.backend.objects == before  # type: ignore[attr-defined]
    done = gc(store)
    assert removed(plan) == removed(done) == {refs[1].version, refs[2].version}
    assert (plan.objects, plan.bytes) == (done.objects, done.bytes)
    assert plan.objects == 1


def test_gc_two_at_once_agree(store: Store) -> None:
    refs = [commit(store, seed) for seed in range(4)]
    store.tag(DATASET, "prod", refs[3].version)
    nested: list[GcReport] = []

    def another(key: str) -> None:
        if "condemned" in key and not nested:
            nested.append(gc(store))

    report = collect_garbage(Store(After(store.backend, another), store.cache), NOTHING, GRACE)
    assert removed(nested[0]) == {ref.version for ref in refs[:3]} == removed(report)
    assert [manifest.version for manifest in store.versions(DATASET)] == [refs[3].version]


def test_descendants_first_orders_chains_and_survives_circles() -> None:
    chain = [model_record("a", "b"), model_record("b", "c"), model_record("c", "none")]
    assert [record.name[1] for record in Lineage(chain).descendants_first(chain)] == ["a", "b", "c"]
    assert [record.name[1] for record in Lineage(chain).descendants_first(chain[::-1])] == ["a", "b", "c"]
    circle = [model_record("a", "b"), model_record("b", "a")]
    assert len(Lineage(circle).descendants_first(circle)) == 2


def model_record(version: str, made_from: str) -> Record:
    made_by = derivation("models/x").model_copy(update={"cites": {"base": f"models/x/{made_from}"}})
    manifest = Manifest(
        dataset="models/x", version=version, kind="model", content_hash="c" * 64, rows=0, parts=(),
        derivation=made_by, code_commit=None, libraries={}, cost={}, metrics={}, created_at="",
    )  # fmt: skip
    return Record(("models/x", version), version, 0, 0.0, manifest, fates.Standing(0, 1, False))


def test_gc_temporary_files_of_killed_writers_go_from_a_folder(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"), cache=tmp_path / "cache")
    left = tmp_path / "store" / ".tmp" / "left"
    left.write_bytes(b"half a part")
    assert gc(store).objects == 0
    past = store.backend.now() - GRACE - 1
    os.utime(left, (past, past))
    assert gc(store).bytes == 11
    assert not left.exists()


def test_gc_in_every_place_removes_and_keeps_the_same(store_uri: str, tmp_path: Path) -> None:
    store = Store.open(store_uri, cache=tmp_path / "cache")
    refs = [commit(store, seed) for seed in range(3)]
    model = store.commit_model(derivation("models/sl"), model_folder(tmp_path / "m"), metrics={}, cost={})
    store.tag("models/sl", "prod", model.version)
    store.hold(DATASET, refs[0].version)
    report = collect_garbage(store, NOTHING, 3600)
    assert removed(report) == {refs[1].version, refs[2].version}
    store.release()
    assert store.read(refs[0]).num_rows == 1
    assert store.fetch_model(model).is_dir()
    assert store.datasets() == [DATASET, "models/sl"]
