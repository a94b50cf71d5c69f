"""The store in a folder: what a laptop and every other test use."""

import errno
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.schema import Completion, Message, ModelRef, Prompt
from tasks.store import (
    Corrupt,
    Derivation,
    InvalidName,
    NotCommitted,
    Store,
    StoreError,
    StoreUnavailable,
    resolve_external_model,
)
from tasks.store.identity import rows_to_table

TEXTS = st.lists(st.none() | st.text(st.characters(codec="utf-8")), max_size=5)
VERSION = "0" * 32


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"), cache=tmp_path / "cache")


def derivation(dataset: str = "completions", seed: int = 0, **config: Any) -> Derivation:
    return Derivation(
        stage="respond", dataset=dataset, code_version=1, config=config, inputs={}, constitution=None, models={},
        seed=seed, force=None,
    )  # fmt: skip


def completions(texts: list[str | None]) -> pa.Table:
    rows = [
        Completion(row_id=f"p{i}/0", reuse_key=f"k{i}", prompt_id=f"p{i}", sample=0, completion=text)
        for i, text in enumerate(texts)
    ]
    return rows_to_table(rows, Completion)


def prompts(num_rows: int) -> pa.Table:
    rows = [
        Prompt(
            row_id=f"p{i}", reuse_key=f"k{i}", prompt_id=f"p{i}", kind="helpful", source="test", split="train",
            messages=[Message(role="user", content=f"Human: 你好 {i}\n\nline"), Message(role="assistant", content="")],
        )
        for i in range(num_rows)
    ]  # fmt: skip
    return rows_to_table(rows, Prompt)


def model_folder(path: Path, weights: bytes = b"weights") -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "model.safetensors").write_bytes(weights)
    (path / "config.json").write_text("{}")
    return path


@pytest.fixture
def prompts_on_disk(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Plain paths of a dataset of 40 rows with nested messages, in several parts."""
    monkeypatch.setattr("tasks.store.parts.PART_BYTES", 1000)
    monkeypatch.setattr("tasks.store.parts._GROUP_BYTES", 2000)
    ref = store.commit_rows(derivation("prompts"), prompts(40), metrics={}, cost={})
    paths = store.part_locations(ref)
    assert len(paths) > 1
    return paths


def test_parts_pandas_reads_them_from_plain_paths(prompts_on_disk: list[str]) -> None:
    import pandas

    frame = pandas.concat([pandas.read_parquet(path) for path in prompts_on_disk], ignore_index=True)
    assert len(frame) == 40
    assert frame["messages"][39][0]["content"] == "Human: 你好 39\n\nline"


def test_parts_duckdb_reads_them_from_plain_paths(prompts_on_disk: list[str]) -> None:
    import duckdb

    query = "select count(*), count(distinct row_hash), max(messages[1].content) from read_parquet(?)"
    assert duckdb.execute(query, [prompts_on_disk]).fetchall() == [(40, 40, "Human: 你好 9\n\nline")]


def test_parts_datasets_reads_them_from_plain_paths(prompts_on_disk: list[str], tmp_path: Path) -> None:
    from datasets import Dataset

    dataset = Dataset.from_parquet(prompts_on_disk, cache_dir=str(tmp_path / "hf"))
    assert len(dataset) == 40
    assert dataset[39]["messages"][0] == {"role": "user", "content": "Human: 你好 39\n\nline"}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=TEXTS, seed=st.integers(0, 2**40))
def test_commit_rows_any_texts_come_back(store: Store, texts: list[str | None], seed: int) -> None:
    ref = store.commit_rows(derivation(seed=seed, texts=texts), completions(texts), metrics={}, cost={})
    table = store.read(ref)
    assert table.column("completion").to_pylist() == texts
    assert table.schema == completions([]).schema


def test_commit_rows_default_parts_are_of_the_promised_size(store: Store) -> None:
    texts: list[str | None] = [os.urandom(500).hex() for _ in range(80_000)]  # 80 MB that compress to half
    ref = store.commit_rows(derivation(), completions(texts), metrics={}, cost={})
    sizes = [part.bytes for part in store.manifest(ref.dataset, ref.version).parts]
    assert len(sizes) > 1
    assert all(16 * 2**20 <= size <= 64 * 2**20 for size in sizes[:-1])


def test_open_read_only_folder_is_an_error_with_a_remedy() -> None:
    with tempfile.TemporaryDirectory() as folder, unprivileged():
        for uri in (folder, f"{folder}/below"):
            with pytest.raises(StoreUnavailable, match=rf"{folder}.*Permission denied; choose"):
                Store.open(uri)


class unprivileged:
    """As another user, where the tests run as root, for whom no folder is read-only."""

    def __enter__(self) -> None:
        if os.geteuid() == 0:
            os.seteuid(65534)

    def __exit__(self, *exception: object) -> None:
        if os.getuid() == 0:
            os.seteuid(0)


def test_open_where_a_file_is_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for uri in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StoreUnavailable, match=r"a file has that name|a part of the path is a file"):
            Store.open(str(uri))


def test_open_folder_without_hard_links_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(StoreUnavailable, match="hard links"):
        Store.open(str(tmp_path / "store"))


def test_commit_rows_full_disk_is_an_error_and_leaves_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StoreUnavailable, match="the disk is full"):
            store.commit_rows(derivation(), completions(["a"]), metrics={}, cost={})
    assert store.datasets() == []
    assert not [path for path in Path(store.uri).rglob("*") if path.is_file()]
    assert store.commit_rows(derivation(), completions(["a"]), metrics={}, cost={}).rows == 1


def test_commit_rows_killed_writer_leaves_nothing_visible(store: Store) -> None:
    code = (
        "import os, sys, pyarrow as pa\n"
        "from tasks.store import Derivation, Store\n"
        "link = os.link\n"
        "os.link = lambda a, b: os.kill(os.getpid(), 9) if 'versions' in str(b) else link(a, b)\n"
        "rows = pa.table({'row_id': ['r'], 'reuse_key': ['k'], 'status': ['ok']})\n"
        "made_by = Derivation.model_validate_json(sys.argv[2])\n"
        "Store.open(sys.argv[1]).commit_rows(made_by, rows, metrics={}, cost={})\n"
    )
    command = [sys.executable, "-c", code, store.uri, derivation().model_dump_json()]
    assert subprocess.run(command, capture_output=True, check=False).returncode == -9
    assert list(Path(store.uri).rglob("*.parquet"))
    assert store.find("completions", derivation().version) is None
    ref = store.commit_rows(derivation(), completions(["kept"]), metrics={}, cost={})
    assert store.read(ref).column("completion").to_pylist() == ["kept"]


def test_commit_rows_under_a_models_name_and_the_reverse_are_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(InvalidName, match="models/"):
        store.commit_rows(derivation("models/sl"), completions(["a"]), metrics={}, cost={})
    with pytest.raises(InvalidName, match="models/"):
        store.commit_model(derivation("completions"), model_folder(tmp_path / "m"), metrics={}, cost={})


def test_manifest_with_a_newer_format_is_a_named_error(store: Store) -> None:
    from tasks.store.identity import canonical_json, digest

    ref = store.commit_rows(derivation(), completions(["a"]), metrics={}, cost={})
    path = next(Path(store.uri).rglob(f"{ref.version}.json"))
    body = json.loads(path.read_bytes())
    del body["sha256"]
    body["format"] = 2
    path.write_bytes(canonical_json(body | {"sha256": digest(body)}))
    with pytest.raises(Corrupt, match="format 1"):
        store.read(ref)


def test_chunk_any_flipped_byte_is_noticed_or_harmless(store: Store) -> None:
    table = completions(["one", None, "three"])
    store.chunk_put("completions", VERSION, "0", table)
    path = next(Path(store.uri).rglob("0.parquet"))
    data = path.read_bytes()
    noticed = 0
    for index in range(0, len(data), 3):
        path.write_bytes(data[:index] + bytes([data[index] ^ 0x41]) + data[index + 1 :])
        try:
            assert store.chunk_get("completions", VERSION, "0").to_pylist() == table.to_pylist()
        except Corrupt as error:
            assert "delete this file" in str(error)
            noticed += 1
    assert noticed > len(data) // 3 * 0.5


@pytest.mark.parametrize("name", ["pytorch_model.bin", "optimizer.pt", "state.pkl", "training_args.bin", "run.py"])
def test_commit_model_file_that_can_run_code_is_refused(store: Store, tmp_path: Path, name: str) -> None:
    folder = model_folder(tmp_path / "m")
    (folder / name).write_bytes(b"\x80\x04")
    with pytest.raises(StoreError, match=name):
        store.commit_model(derivation("models/sl"), folder, metrics={}, cost={})
    assert store.datasets() == []


def test_commit_model_missing_or_empty_folder_is_refused(store: Store, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder, complaint in ((tmp_path / "none", "no such folder"), (tmp_path / "empty", "empty")):
        with pytest.raises(StoreError, match=complaint):
            store.commit_model(derivation("models/sl"), folder, metrics={}, cost={})


def test_commit_model_content_hash_follows_names_and_bytes_only(store: Store, tmp_path: Path) -> None:
    def content(seed: int, folder: Path) -> str:
        return store.commit_model(derivation("models/sl", seed), folder, metrics={}, cost={}).content_hash

    first = content(0, model_folder(tmp_path / "a"))
    assert content(1, model_folder(tmp_path / "b")) == first
    assert content(2, model_folder(tmp_path / "c", b"other")) != first
    renamed = model_folder(tmp_path / "d")
    (renamed / "config.json").rename(renamed / "config2.json")
    assert content(3, renamed) != first


def test_store_keeps_no_pickle_anywhere(store: Store, tmp_path: Path) -> None:
    store.commit_rows(derivation(), completions(["a"]), metrics={"loss": 1.0}, cost={})
    store.chunk_put("completions", VERSION, "0", completions(["a"]))
    store.fetch_model(store.commit_model(derivation("models/sl"), model_folder(tmp_path / "m"), metrics={}, cost={}))
    files = [path for folder in (store.uri, store.cache) for path in Path(folder).rglob("*") if path.is_file()]
    assert len(files) >= 8
    assert {path.suffix for path in files} == {".parquet", ".json", ".safetensors"}
    assert not [path for path in files if path.read_bytes()[:1] == b"\x80"]


def test_resolve_external_model_folder_is_named_by_its_content(tmp_path: Path) -> None:
    first = resolve_external_model(str(model_folder(tmp_path / "a")))
    (tmp_path / "a" / "README.md").write_text("not content")
    moved = resolve_external_model(str(model_folder(tmp_path / "b")))
    assert (first.version, first.content_hash) == (moved.version, moved.content_hash)
    assert resolve_external_model(str(tmp_path / "a")) == first
    assert resolve_external_model(str(model_folder(tmp_path / "c", b"x"))).content_hash != first.content_hash


def test_resolve_external_model_and_commit_model_agree_on_content(store: Store, tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "a")
    kept = store.commit_model(derivation("models/sl"), folder, metrics={}, cost={})
    assert resolve_external_model(str(folder)).content_hash == kept.content_hash


def test_resolve_external_model_relative_path_still_works_from_elsewhere(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = model_folder(tmp_path / "here" / "model")
    monkeypatch.chdir(tmp_path / "here")
    ref = resolve_external_model("model")
    monkeypatch.chdir(tmp_path)
    assert store.fetch_model(ref) == folder


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/model", "~/none", "a/b/c", "C:\\model", "", "org/na me"])
def test_resolve_external_model_missing_path_is_an_error_that_names_it(name: str) -> None:
    with pytest.raises(StoreError) as error:
        resolve_external_model(name)
    assert repr(name) in str(error.value)


def test_resolve_external_model_unknown_hub_name_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(StoreUnavailable, match="'solon/no-such-model'"):
        resolve_external_model("solon/no-such-model")


def test_resolve_external_model_hub_name_is_pinned_by_its_commit(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    commit = "5" * 40
    cached = tmp_path / "models--org--name"
    model_folder(cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    ref = resolve_external_model("org/name")
    assert (ref.model, ref.version, ref.source) == ("external", commit, "org/name")
    assert resolve_external_model(f"org/name@{commit}") == ref
    assert (store.fetch_model(ref) / "model.safetensors").read_bytes() == b"weights"


def test_resolve_external_model_pickled_weights_only_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80")
    with pytest.raises(StoreError, match="safetensors"):
        resolve_external_model(str(tmp_path))


def test_fetch_model_outside_folder_that_changed_is_a_named_error(store: Store, tmp_path: Path) -> None:
    ref = resolve_external_model(str(model_folder(tmp_path / "m")))
    assert store.fetch_model(ref) == tmp_path / "m"
    (tmp_path / "m" / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(Corrupt, match="changed"):
        store.fetch_model(ref)
    with pytest.raises(NotCommitted, match="gone"):
        store.fetch_model(ModelRef(model="external", version="0", content_hash="0", source="/no/such/model"))


def test_open_default_cache_lies_below_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Store.open("store").cache == tmp_path / ".solon" / "cache"
    assert Store.open("store").uri == str(tmp_path / "store")


def test_import_store_needs_no_heavy_library() -> None:
    code = "import sys, tasks.store; print([m for m in ('torch', 's3fs', 'botocore', 'datasets') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.fixture(autouse=True)
def in_repository(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Child processes find `tasks` wherever the tests were started."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    yield
