"""What the store promises, alike in a folder, on moto and on radosgw."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tasks.schema import DatasetRef, Message, Prompt
from tasks.store import Corrupt, InvalidName, NotCommitted, Store
from tasks.store.identity import rows_to_table, table_to_rows
from tests.small_versions import commit, completions, derivation, model_folder

VERSION = "0" * 32


@pytest.fixture
def store(store_uri: str, tmp_path: Path) -> Store:
    return Store.open(store_uri, cache=tmp_path / "cache")


def key_of(store: Store, ending: str) -> str:
    return next(key for key in store.backend.keys("v1/") if key.endswith(ending))


def overwrite(store: Store, ending: str, change: Callable[[bytes], bytes]) -> None:
    key = key_of(store, ending)
    store.backend.put(key, [change(store.backend.get(key))])


def flip_last_third(data: bytes) -> bytes:
    index = len(data) * 2 // 3
    return data[:index] + bytes([data[index] ^ 1]) + data[index + 1 :]


class Intercepted:
    """A backend that does something else first whenever a version is about to be published."""

    def __init__(self, inner: Any, before_publish: Callable[[], None]) -> None:
        self.inner = inner
        self.before_publish = before_publish

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        if "/versions/" in key:
            self.before_publish()
        return self.inner.put_if_absent(key, data)


def test_commit_rows_read_gives_back_every_text_in_order(store: Store) -> None:
    texts = ["plain", "two\nlines\r\n\n", "", None, "ünï 中文 \u202e rtl", "emoji 👩‍👩‍👧", "nul \0 tab \t", " \ufeff "]
    ref = commit(store, completions(texts))
    read = store.read(ref)
    assert read.column("completion").to_pylist() == texts
    assert all(len(value) == 64 for value in read.column("row_hash").to_pylist())
    assert (ref.rows, ref.dataset, ref.version) == (8, "completions", derivation().version)


def test_commit_rows_nested_messages_come_back_as_rows(store: Store) -> None:
    turns = [Message(role="user", content="a\n\nHuman: b"), Message(role="assistant", content="")]
    row = Prompt(row_id="p", reuse_key="k", prompt_id="p", kind="helpful", messages=turns, source="s", split="train")
    ref = store.commit_rows(derivation("prompts"), rows_to_table([row], Prompt), metrics={}, cost={})
    assert [r.messages for r in table_to_rows(store.read(ref), Prompt)] == [turns]


def test_commit_rows_empty_table_and_null_columns_keep_their_types(store: Store) -> None:
    for seed, texts in enumerate([[], [None, None]]):
        table = completions(list(texts))
        assert store.read(commit(store, table, seed)).schema == table.schema


def test_commit_rows_many_parts_are_read_as_one_table(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.store.parts.PART_BYTES", 2000)
    monkeypatch.setattr("tasks.store.parts._GROUP_BYTES", 4000)
    texts: list[str | None] = [f"{i} {os.urandom(20).hex()}" for i in range(300)]
    ref = commit(store, completions(texts))
    assert len(store.manifest(ref.dataset, ref.version).parts) > 3
    assert store.read(ref).column("completion").to_pylist() == texts


def test_commit_rows_again_returns_the_first_result(store: Store) -> None:
    first = commit(store, completions(["first"]))
    assert commit(store, completions(["second"])) == first
    assert store.read(first).column("completion").to_pylist() == ["first"]


def test_commit_rows_manifest_is_the_record_of_where_it_came_from(store: Store) -> None:
    table = completions(["a", "b", None])
    table = table.set_column(table.column_names.index("status"), "status", pa.array(["ok", "ok", "failed"]))
    ref = store.commit_rows(derivation(), table, metrics={"loss": float("nan")}, cost={"seconds": 1.5})
    manifest = store.manifest(ref.dataset, ref.version)
    assert manifest.derivation == derivation()
    assert manifest.statuses == {"ok": 2, "failed": 1}
    assert (manifest.metrics, manifest.cost) == ({"loss": None}, {"seconds": 1.5})
    assert [column.name for column in manifest.columns] == table.column_names
    assert manifest.libraries["pyarrow"] == pa.__version__
    assert manifest.ref() == ref


def test_find_version_never_committed_is_none(store: Store) -> None:
    assert store.find("completions", VERSION) is None
    with pytest.raises(NotCommitted, match=VERSION):
        store.manifest("completions", VERSION)


def test_datasets_and_versions_list_what_is_committed(store: Store, tmp_path: Path) -> None:
    assert store.datasets() == []
    for seed in (0, 1):
        commit(store, completions(["a"]), seed)
    store.commit_model(derivation("models/sl"), model_folder(tmp_path / "m"), metrics={}, cost={})
    store.chunk_put("revisions", VERSION, "chunk", completions(["a"]))
    assert store.datasets() == ["completions", "models/sl"]
    assert {m.version for m in store.versions("completions")} == {derivation(seed=s).version for s in (0, 1)}
    assert store.versions("labels") == []


def test_commit_rows_race_of_four_writers_has_one_winner(store: Store, store_uri: str, tmp_path: Path) -> None:
    everyone_wrote = threading.Barrier(4)
    refs: list[DatasetRef] = []

    def write(number: int) -> None:
        mine = Store.open(store_uri, cache=tmp_path / "cache")
        racing = Store(Intercepted(mine.backend, everyone_wrote.wait), mine.cache)
        refs.append(commit(racing, completions([f"by {number}"])))

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(refs) == 4 and len(set(refs)) == 1
    assert len(store.versions("completions")) == 1
    assert store.read(refs[0]).num_rows == 1


def test_commit_rows_crash_before_the_manifest_leaves_nothing_visible_and_a_retry_commits(store: Store) -> None:
    def crash() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        commit(Store(Intercepted(store.backend, crash), store.cache), completions(["lost"]))
    assert key_of(store, ".parquet")
    assert store.find("completions", derivation().version) is None
    assert store.datasets() == []
    assert store.read(commit(store, completions(["kept"]))).column("completion").to_pylist() == ["kept"]


@pytest.mark.parametrize(
    ("ending", "change"),
    [
        (".parquet", flip_last_third),
        (".parquet", lambda data: data[:-20]),
        (".parquet", lambda data: b""),
        (".json", flip_last_third),
        (".json", lambda data: data.replace(b'"rows":2', b'"rows":3')),
        (".json", lambda data: data[:-20]),
        (".json", lambda data: b"{}"),
        (".json", lambda data: b"[]"),
        (".json", lambda data: b"\xff\xfe"),
        (".json", lambda data: data.replace(b'"parts":[', b'"parts":[{"path":"../../x","sha256":"","bytes":1},')),
    ],
)
def test_read_damage_is_a_named_error(store: Store, ending: str, change: Callable[[bytes], bytes]) -> None:
    ref = commit(store, completions(["one", "two"]))
    overwrite(store, ending, change)
    with pytest.raises(Corrupt, match=ref.version):
        store.read(ref)


def test_read_part_exchanged_for_a_sound_one_is_a_named_error(store: Store) -> None:
    refs = [commit(store, completions([text]), seed) for seed, text in enumerate("ab")]
    theirs = store.backend.get(key_of_part(store, refs[1]))
    store.backend.put(key_of_part(store, refs[0]), [theirs])
    with pytest.raises(Corrupt, match="sha256"):
        store.read(refs[0])


def key_of_part(store: Store, ref: DatasetRef) -> str:
    return next(key for key in store.backend.keys(f"v1/datasets/{ref.dataset}/data/{ref.version}/"))


@pytest.mark.parametrize(
    ("forged", "complaint"),
    [({"rows": 3}, "2 rows, the manifest says 3"), ({"path": "../../../../../outside.parquet"}, "outside.parquet")],
)
def test_read_forged_manifest_is_a_named_error(store: Store, forged: dict[str, Any], complaint: str) -> None:
    ref = commit(store, completions(["one", "two"]))
    manifest = store.manifest(ref.dataset, ref.version)
    store.backend.put("outside.parquet", [store.backend.get(key_of_part(store, ref))])
    parts = (manifest.parts[0].model_copy(update=forged),)
    store.backend.put(key_of(store, ".json"), [manifest.model_copy(update={"parts": parts}).to_bytes()])
    with pytest.raises(Corrupt, match=complaint):
        store.read(ref)


def test_put_if_absent_tells_its_own_bytes_from_others(store: Store) -> None:
    outcomes = [store.backend.put_if_absent("v1/key", data) for data in (b"mine", b"mine", b"other")]
    assert outcomes == [True, True, False]
    assert store.backend.get("v1/key") == b"mine"


def test_read_manifest_of_another_version_is_a_named_error(store: Store) -> None:
    first, second = (commit(store, completions([str(seed)]), seed) for seed in (0, 1))
    stolen = store.backend.get(key_of(store, f"{second.version}.json"))
    store.backend.put(key_of(store, f"{first.version}.json"), [stolen])
    with pytest.raises(Corrupt, match="is of completions"):
        store.read(first)


def test_read_missing_part_is_a_named_error(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    ref = commit(store, completions(["one"]))
    whole = store.backend.get

    def without_parts(key: str) -> bytes:
        if key.endswith(".parquet"):
            raise FileNotFoundError(key)
        return whole(key)

    monkeypatch.setattr(store.backend, "get", without_parts)
    with pytest.raises(Corrupt, match="missing"):
        store.read(ref)


def test_read_reference_from_another_store_is_a_named_error(store: Store) -> None:
    ref = commit(store, completions(["here"]))
    with pytest.raises(Corrupt, match="another store"):
        store.read(ref.model_copy(update={"content_hash": "f" * 64}))


def test_names_hostile_ones_are_refused_before_any_request(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for method in ("get", "put", "put_if_absent", "keys"):
        monkeypatch.setattr(store.backend, method, lambda *a: pytest.fail("a request was made"))
    table = completions(["a"])
    for name in ("..", "a/b", "%2e%2e", "a\0", "a?versionId=1", "x" * 300, "\u0430"):
        for refused in (
            lambda n=name: store.find(n, VERSION),
            lambda n=name: store.find("prompts", n),
            lambda n=name: store.versions(n),
            lambda n=name: store.commit_rows(derivation(n), table, metrics={}, cost={}),
            lambda n=name: store.chunk_put("labels", VERSION, n, table),
            lambda n=name: store.chunk_get("labels", n, "chunk"),
            lambda n=name: store.put_blob("labels", VERSION, n, b""),
            lambda n=name: store.get_blob(n, VERSION, "log"),
        ):
            with pytest.raises(InvalidName):
                refused()


def test_commit_model_fetch_gives_back_the_same_files(store: Store, tmp_path: Path) -> None:
    source = model_folder(tmp_path / "trained", os.urandom(100_000))
    (source / "sub").mkdir()
    (source / "sub" / "extra.json").write_text("[1]")
    ref = store.commit_model(derivation("models/sl"), source, metrics={"loss": 0.5}, cost={})
    fetched = store.fetch_model(ref)
    files = {path.relative_to(source) for path in source.rglob("*") if path.is_file()}
    assert {path.relative_to(fetched) for path in fetched.rglob("*") if path.is_file()} == files
    assert all((fetched / name).read_bytes() == (source / name).read_bytes() for name in files)
    assert store.fetch_model(ref) == fetched


def test_fetch_model_damaged_copy_is_fetched_again_and_strangers_are_removed(store: Store, tmp_path: Path) -> None:
    ref = store.commit_model(derivation("models/sl"), model_folder(tmp_path / "m"), metrics={}, cost={})
    folder = store.fetch_model(ref)
    (folder / "model.safetensors").write_bytes(b"wEights")
    (folder / "config.json").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"stranger")
    store.fetch_model(ref)
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "merges.txt", "model.safetensors"]


def test_fetch_model_damaged_store_is_a_named_error_and_leaves_no_file(store: Store, tmp_path: Path) -> None:
    ref = store.commit_model(derivation("models/sl"), model_folder(tmp_path / "m"), metrics={}, cost={})
    overwrite(store, "model.safetensors", lambda data: b"malware")
    with pytest.raises(Corrupt, match=r"model\.safetensors"):
        store.fetch_model(ref)
    assert not list(store.cache.rglob("*.safetensors")) and not list(store.cache.rglob("*.tmp"))


def test_chunks_come_back_until_then_none_and_the_first_writer_wins(store: Store) -> None:
    assert store.chunk_get("labels", VERSION, "00001-abc") is None
    table = completions(["a", None])
    store.chunk_put("labels", VERSION, "00001-abc", table)
    store.chunk_put("labels", VERSION, "00001-abc", completions(["other"]))
    assert store.chunk_get("labels", VERSION, "00001-abc") == table


def test_blobs_stand_beside_a_version(store: Store) -> None:
    with pytest.raises(NotCommitted, match=r"report\.html"):
        store.get_blob("report", VERSION, "report.html")
    store.put_blob("report", VERSION, "report.html", b"<p>")
    store.put_blob("report", VERSION, "report.html", b"<p>2")
    assert store.get_blob("report", VERSION, "report.html") == b"<p>2"
    assert store.blob_location("report", VERSION, "report.html").endswith("report.html")


def test_content_and_version_are_the_same_in_every_store(tmp_path: Path, s3_uri: str) -> None:
    found = []
    for uri in (s3_uri, str(tmp_path / "one"), str(tmp_path / "two")):
        store = Store.open(uri, cache=tmp_path / "cache")
        rows = commit(store, completions(["a", "b"]))
        source = model_folder(tmp_path / f"m{len(found)}")
        found.append((rows, store.commit_model(derivation("models/sl"), source, metrics={}, cost={})))
    assert found[0] == found[1] == found[2]
