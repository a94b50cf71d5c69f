"""Resume points in the store: whole or not there, verified when they are fetched, and never in gc's way."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.store import Corrupt, InvalidName, NotCommitted, Store, StoreError, keys
from tasks.store.gc import collect_garbage
from tasks.store.retention import DAY_SECONDS, Retention
from tests.memory_backend import Killed, MemoryBackend, Steps
from tests.small_versions import derivation, model_folder

DATASET = "models/rl"
VERSION = derivation(DATASET).version
GRACE = 100.0


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return Store.open(str(tmp_path / "store"), cache=tmp_path / "cache")
    return Store(MemoryBackend(), tmp_path / "cache")


@pytest.fixture
def in_memory(tmp_path: Path) -> Store:
    return Store(MemoryBackend(), tmp_path / "cache")


def point(folder: Path, step: int, size: int = 100) -> Path:
    made = folder / f"step-{step:08d}"
    made.mkdir(parents=True, exist_ok=True)
    (made / "model.safetensors").write_bytes(bytes([step]) * size)
    (made / "adapter.safetensors").write_bytes(b"")  # before `complete.json` in a listing
    (made / "progress.json").write_text(json.dumps({"step": step}))
    return made


def put(store: Store, folder: Path, *steps: int) -> None:
    for step in steps:
        made = point(folder, step)
        store.checkpoint_put(DATASET, VERSION, made.name, made)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def stored(store: Store) -> list[str]:
    return store.backend.keys(keys.folder(DATASET, "checkpoints"))


def spoil(store: Store, name: str, data: bytes) -> str:
    key = f"{keys.folder(DATASET, 'checkpoints')}{VERSION}/{name}"
    store.backend.put(key, [data])
    return store.backend.location(key)


def test_checkpoint_fetched_is_the_one_that_was_put(store: Store, tmp_path: Path) -> None:
    assert store.checkpoint_newest(DATASET, VERSION) is None
    put(store, tmp_path, 5)
    assert store.checkpoint_newest(DATASET, VERSION) == "step-00000005"
    fetched = store.checkpoint_fetch(DATASET, VERSION, "step-00000005", tmp_path / "new" / "step-00000005")
    assert contents(fetched) == contents(point(tmp_path, 5))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["step-00000005"]


def test_checkpoint_survives_the_way_through_an_object_server(s3_uri: str, tmp_path: Path) -> None:
    store = Store.open(s3_uri, cache=tmp_path / "cache")
    put(store, tmp_path, 1, 2, 3)
    assert store.checkpoint_names(DATASET, VERSION) == ["step-00000002", "step-00000003"]
    fetched = store.checkpoint_fetch(DATASET, VERSION, "step-00000003", tmp_path / "new" / "step-00000003")
    assert contents(fetched) == contents(point(tmp_path, 3))
    store.checkpoint_drop(DATASET, VERSION)
    assert stored(store) == []


def test_checkpoint_only_the_newest_two_stay(store: Store, tmp_path: Path) -> None:
    put(store, tmp_path, 9, 10, 11)
    assert store.checkpoint_names(DATASET, VERSION) == ["step-00000010", "step-00000011"]
    assert not [key for key in stored(store) if "step-00000009" in key]


def test_checkpoint_of_another_version_is_another(store: Store, tmp_path: Path) -> None:
    put(store, tmp_path, 1)
    assert store.checkpoint_newest(DATASET, "0" * 32) is None
    store.checkpoint_drop(DATASET, "0" * 32)
    assert store.checkpoint_newest(DATASET, VERSION) == "step-00000001"


def test_checkpoint_dropped_leaves_nothing_behind(store: Store, tmp_path: Path) -> None:
    put(store, tmp_path, 1, 2)
    store.checkpoint_drop(DATASET, VERSION)
    assert stored(store) == [] and store.checkpoint_newest(DATASET, VERSION) is None


def test_checkpoint_put_again_under_its_name_is_the_new_one(store: Store, tmp_path: Path) -> None:
    put(store, tmp_path / "old", 7)
    made = point(tmp_path / "new", 7, size=300)
    store.checkpoint_put(DATASET, VERSION, made.name, made)
    fetched = store.checkpoint_fetch(DATASET, VERSION, made.name, tmp_path / "fetched" / made.name)
    assert contents(fetched) == contents(made)


@pytest.mark.parametrize(("data", "word"), [(b"x" * 100, "sha256"), (b"x", "ends after 1"), (b"", "ends after 0")])
def test_checkpoint_damaged_file_is_named_and_nothing_is_left_in_its_place(
    store: Store, tmp_path: Path, data: bytes, word: str
) -> None:
    put(store, tmp_path, 3)
    where = spoil(store, "step-00000003/model.safetensors", data)
    with pytest.raises(Corrupt, match=word) as caught:
        store.checkpoint_fetch(DATASET, VERSION, "step-00000003", tmp_path / "new" / "step-00000003")
    assert where in str(caught.value)
    assert not (tmp_path / "new" / "step-00000003").exists()


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b'{"files": []}',
        b'{"files": [{"path": "step-00000003/../../../x.json", "sha256": "0", "bytes": 0}]}',
        b'{"files": [{"path": "step-00000002/progress.json", "sha256": "0", "bytes": 0}]}',
    ],
)
def test_checkpoint_list_that_is_not_to_be_believed_is_refused(store: Store, tmp_path: Path, data: bytes) -> None:
    put(store, tmp_path, 3)
    where = spoil(store, f"step-00000003/{keys.CHECKPOINT_COMPLETE}", data)
    with pytest.raises(Corrupt) as caught:
        store.checkpoint_fetch(DATASET, VERSION, "step-00000003", tmp_path / "new" / "step-00000003")
    assert where in str(caught.value)


def test_checkpoint_that_is_not_there_says_so(store: Store, tmp_path: Path) -> None:
    with pytest.raises(NotCommitted, match="step-00000001"):
        store.checkpoint_fetch(DATASET, VERSION, "step-00000001", tmp_path / "new")


@pytest.mark.parametrize("name", ["../step-1", "Step 1", "", "a/b"])
def test_checkpoint_name_that_could_mean_another_place_is_refused(store: Store, tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidName):
        store.checkpoint_put(DATASET, VERSION, name, point(tmp_path, 1))
    assert stored(store) == []


def test_checkpoint_with_a_pickle_is_refused(store: Store, tmp_path: Path) -> None:
    made = point(tmp_path, 1)
    (made / "optimizer.pt").write_bytes(b"\x80")
    with pytest.raises(StoreError, match=r"optimizer\.pt.*pickle"):
        store.checkpoint_put(DATASET, VERSION, made.name, made)
    assert stored(store) == []


def put_another(store: Store, folder: Path) -> None:
    made = point(folder / "another", 3)
    store.checkpoint_put(DATASET, VERSION, made.name, made)


def put_the_newest_again(store: Store, folder: Path) -> None:
    made = point(folder / "again", 2, size=300)
    store.checkpoint_put(DATASET, VERSION, made.name, made)


def drop(store: Store, folder: Path) -> None:
    store.checkpoint_drop(DATASET, VERSION)


@pytest.mark.parametrize("act", [put_another, put_the_newest_again, drop])
def test_checkpoint_that_is_called_complete_is_whole_wherever_a_writer_is_killed(
    act: Callable[[Store, Path], None], tmp_path: Path
) -> None:
    """The writer dies before each of its operations in turn."""
    place, operation, ended = MemoryBackend(), 0, False
    put(Store(place, tmp_path), tmp_path, 1, 2)
    before = dict(place.objects)
    while not ended:
        place.objects = dict(before)
        try:
            act(Store(_DiesAfter(place, operation), tmp_path), tmp_path)  # type: ignore[arg-type]
            ended = True
        except Killed:
            operation += 1
        reader = Store(place, tmp_path)
        names = reader.checkpoint_names(DATASET, VERSION)
        assert names or act is drop
        for name in names:
            reader.checkpoint_fetch(DATASET, VERSION, name, tmp_path / f"fetched-{operation}-{ended}" / name)
    assert operation > 5


class _DiesAfter:
    """A backend whose user is killed at the n-th operation."""

    def __init__(self, place: MemoryBackend, operations: int) -> None:
        self.place, self.left, self.uri = place, operations, place.uri

    def __getattr__(self, name: str):  # type: ignore[no-untyped-def]
        if name not in Steps.METHODS:
            return getattr(self.place, name)

        def operation(*arguments):  # type: ignore[no-untyped-def]
            if self.left == 0:
                raise Killed
            self.left -= 1
            return getattr(self.place, name)(*arguments)

        return operation


def collect(store: Store, reuse_days: float = 90) -> int:
    return collect_garbage(store, Retention(newest=5, days=7, reuse_days=reuse_days), GRACE).objects


def pass_time(store: Store, seconds: float) -> None:
    store.backend.clock += seconds  # type: ignore[attr-defined]


def test_gc_keeps_resume_points_of_a_version_in_work_as_long_as_chunks(in_memory: Store, tmp_path: Path) -> None:
    put(in_memory, tmp_path, 1)
    pass_time(in_memory, 89 * DAY_SECONDS)
    assert collect(in_memory) == 0
    pass_time(in_memory, 2 * DAY_SECONDS)
    assert collect(in_memory) == 4 and stored(in_memory) == []


def test_gc_takes_a_resume_point_as_a_whole_or_not_at_all(in_memory: Store, tmp_path: Path) -> None:
    put(in_memory, tmp_path, 1)
    pass_time(in_memory, 91 * DAY_SECONDS)
    spoil(in_memory, "step-00000001/progress.json", b"{}")  # written again just now: an upload that goes on
    assert collect(in_memory) == 0 and len(stored(in_memory)) == 4


def test_gc_removes_what_says_that_a_resume_point_is_whole_first(in_memory: Store, tmp_path: Path) -> None:
    put(in_memory, tmp_path, 1)
    removed: list[str] = []
    delete = in_memory.backend.delete
    in_memory.backend.delete = lambda key: (removed.append(key), delete(key))  # type: ignore[method-assign, func-returns-value]
    pass_time(in_memory, 91 * DAY_SECONDS)
    collect(in_memory)
    assert removed[0].endswith(keys.CHECKPOINT_COMPLETE) and len(removed) == 4


def test_gc_takes_resume_points_of_a_committed_version_a_grace_later(in_memory: Store, tmp_path: Path) -> None:
    put(in_memory, tmp_path, 1)
    made_by = derivation(DATASET)
    in_memory.commit_model(made_by, model_folder(tmp_path / "m"), metrics={}, cost={})
    assert collect(in_memory) == 0
    pass_time(in_memory, GRACE + 1)
    assert collect(in_memory) == 4 and stored(in_memory) == []
    assert in_memory.find(DATASET, VERSION) is not None


def test_gc_leaves_resume_points_of_a_version_that_is_held(in_memory: Store, tmp_path: Path) -> None:
    put(in_memory, tmp_path, 1)
    pass_time(in_memory, 91 * DAY_SECONDS)
    holder = Store(in_memory.backend, tmp_path)
    holder.hold(DATASET, VERSION)
    assert collect(in_memory) == 0
    holder.release()
    assert collect(in_memory) == 4
