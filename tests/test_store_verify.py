"""Damage of every kind is found by name: by `verify`, which goes on to the end, and by whoever reads the version."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.schema import Completion, DatasetRef, ModelRef
from tasks.store import Corrupt, Derivation, NotCommitted, Store
from tasks.store import errors as named
from tasks.store.identity import canonical_json, digest, rows_to_table
from tasks.store.models import file_sha256
from tasks.store.verify import VersionCheck, verify_store, verify_version

NUM_ROWS = 60


def derivation(dataset: str = "completions", seed: int = 0) -> Derivation:
    return Derivation(
        stage="respond", dataset=dataset, code_version=1, config={"x": 0.5}, inputs={}, constitution=None, models={},
        seed=seed, force=None,
    )  # fmt: skip


def completions(num_rows: int = NUM_ROWS) -> pa.Table:
    rows = [
        Completion(row_id=f"p{i}/0", reuse_key=f"k{i}", prompt_id=f"p{i}", sample=0, completion=digest([i]))
        for i in range(num_rows)
    ]
    return rows_to_table(rows, Completion)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store whose parts are small, so that a version has several."""
    monkeypatch.setattr("tasks.store.parts.PART_BYTES", 1000)
    monkeypatch.setattr("tasks.store.parts._GROUP_BYTES", 2000)
    return Store.open(str(tmp_path / "store"), cache=tmp_path / "cache")


def commit(store: Store, seed: int = 0) -> DatasetRef:
    return store.commit_rows(derivation(seed=seed), completions(), metrics={}, cost={})


def commit_model(store: Store, folder: Path) -> ModelRef:
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "config.json").write_text("{}")
    return store.commit_model(derivation("models/sl"), folder, metrics={}, cost={})


def parts(store: Store, ref: DatasetRef) -> list[Path]:
    found = [Path(location) for location in store.part_locations(ref)]
    assert len(found) > 2
    return found


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


DAMAGE: list[tuple[Callable[[Path], object], type[Corrupt]]] = [
    (flip, named.PartDamaged),
    (truncate, named.PartTruncated),
    (lengthen, named.PartDamaged),
    (Path.unlink, named.PartMissing),
]


def edit_manifest(store: Store, dataset: str, version: str, change: Callable[[dict[str, Any]], object]) -> None:
    """As a forger would: with a digest that fits again."""
    path = next(Path(store.uri).rglob(f"{dataset}/versions/{version}.json"))
    body = json.loads(path.read_bytes())
    del body["sha256"]
    change(body)
    path.write_bytes(canonical_json(body | {"sha256": digest(body)}))


def found(check: VersionCheck) -> list[str]:
    return [problem.error for problem in check.problems]


def test_verify_version_whole_version_has_no_problem_and_exact_counts(store: Store) -> None:
    ref = commit(store)
    check = verify_version(store, ref.dataset, ref.version)
    paths = parts(store, ref)
    assert check.intact
    assert check.committed
    assert (check.rows, check.parts, check.bytes) == (NUM_ROWS, len(paths), sum(p.stat().st_size for p in paths))
    assert (check.chunks, check.orphans, check.orphan_bytes) == (0, 0, 0)


def test_verify_version_empty_dataset_is_whole(store: Store) -> None:
    ref = store.commit_rows(derivation(), completions(0), metrics={}, cost={})
    check = verify_version(store, ref.dataset, ref.version)
    assert (check.intact, check.rows, check.parts) == (True, 0, 1)


@pytest.mark.parametrize(("damage", "error"), DAMAGE)
def test_verify_version_damaged_part_is_named(
    store: Store, damage: Callable[[Path], object], error: type[Corrupt]
) -> None:
    ref = commit(store)
    path = parts(store, ref)[1]
    damage(path)
    [problem] = verify_version(store, ref.dataset, ref.version).problems
    assert (problem.error, problem.where) == (error.__name__, str(path))
    assert str(path) in problem.message


@pytest.mark.parametrize(("damage", "error"), DAMAGE)
def test_read_damaged_part_raises_the_same_name(
    store: Store, damage: Callable[[Path], object], error: type[Corrupt]
) -> None:
    ref = commit(store)
    path = parts(store, ref)[1]
    damage(path)
    with pytest.raises(error, match=str(path)):
        store.read(ref)


@pytest.mark.parametrize(("damage", "error"), DAMAGE)
def test_model_damaged_file_is_named_by_verify_and_by_fetching(
    store: Store, tmp_path: Path, damage: Callable[[Path], object], error: type[Corrupt]
) -> None:
    ref = commit_model(store, tmp_path / "model")
    assert verify_version(store, ref.model, ref.version).intact
    path = next(Path(store.uri).rglob("model.safetensors"))
    damage(path)
    assert found(verify_version(store, ref.model, ref.version)) == [error.__name__]
    with pytest.raises(error, match=str(path)):
        store.fetch_model(ref)


def test_model_file_of_another_size_is_named_in_s3(s3_uri: str, tmp_path: Path) -> None:
    """The server refuses to read behind the end of an object; that is a short file, not a dead server."""
    store = Store.open(s3_uri, cache=tmp_path / "cache")
    ref = commit_model(store, tmp_path / "model")
    [key] = [key for key in store.backend.keys("v1/datasets/models/") if key.endswith("model.safetensors")]
    store.backend.put(key, [b""])
    assert found(verify_version(store, ref.model, ref.version)) == ["PartTruncated"]
    with pytest.raises(named.PartTruncated):
        store.fetch_model(ref)
    store.backend.put(key, [b"weights and more"])  # of which a reader asks for no more than the manifest says
    assert found(verify_version(store, ref.model, ref.version)) == ["PartDamaged"]


def test_verify_version_collects_every_problem(store: Store) -> None:
    ref = commit(store)
    first, second, third = parts(store, ref)[:3]
    flip(first)
    second.unlink()
    truncate(third)
    check = verify_version(store, ref.dataset, ref.version)
    assert found(check) == ["PartDamaged", "PartMissing", "PartTruncated"]
    assert 0 < check.rows < NUM_ROWS  # the whole ones were still read


def test_verify_version_edited_manifest_is_named(store: Store) -> None:
    ref = commit(store)
    path = next(Path(store.uri).rglob(f"{ref.version}.json"))
    path.write_bytes(path.read_bytes().replace(b'"respond"', b'"RESPOND"'))
    assert found(verify_version(store, ref.dataset, ref.version)) == ["ManifestEdited"]
    with pytest.raises(named.ManifestEdited):
        store.read(ref)


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b"null", b"\xff", b'{"sha256": "0"}', b"[" * 100_000])
def test_verify_version_manifest_that_is_none_is_named(store: Store, data: bytes) -> None:
    ref = commit(store)
    next(Path(store.uri).rglob(f"{ref.version}.json")).write_bytes(data)
    assert found(verify_version(store, ref.dataset, ref.version)) == ["ManifestEdited"]


@pytest.mark.parametrize(
    "path",
    ["../{other}", "/etc/passwd", "a/../../{other}", "..", "", "a//b", "a/%2e%2e/x\\..", "~/x", "a/b?versionId=1"],
)
def test_verify_version_part_outside_its_directory_is_named(store: Store, path: str) -> None:
    ref, other = commit(store), commit(store, seed=1)
    target = f"{other.version}/{store.manifest(other.dataset, other.version).parts[0].path}"
    edit_manifest(store, ref.dataset, ref.version, lambda body: body["parts"][0].update(path=path.format(other=target)))
    assert found(verify_version(store, ref.dataset, ref.version)) == ["PartOutside"]
    with pytest.raises(named.PartOutside):
        store.read(ref)


def test_verify_version_manifest_of_another_version_is_named(store: Store) -> None:
    ref, other = commit(store), commit(store, seed=1)
    path = next(Path(store.uri).rglob(f"{ref.version}.json"))
    path.write_bytes(path.with_name(f"{other.version}.json").read_bytes())
    assert found(verify_version(store, ref.dataset, ref.version)) == ["ManifestEdited"]


def test_verify_version_forged_derivation_is_named(store: Store) -> None:
    ref = commit(store)
    edit_manifest(store, ref.dataset, ref.version, lambda body: body["derivation"].update(seed=7))
    assert found(verify_version(store, ref.dataset, ref.version)) == ["ManifestEdited"]


def test_fetch_model_forged_content_hash_cannot_leave_the_cache(store: Store, tmp_path: Path) -> None:
    ref = commit_model(store, tmp_path / "model")
    edit_manifest(store, ref.model, ref.version, lambda body: body.update(content_hash="../../../escaped"))
    with pytest.raises(named.ManifestEdited):
        store.fetch_model(ref.model_copy(update={"content_hash": "../../../escaped"}))
    assert not list(tmp_path.rglob("escaped"))


def rewrite_rows(store: Store, ref: DatasetRef, change: Callable[[pa.Table], pa.Table]) -> None:
    """Other rows in the first part, with a manifest whose every other figure fits them."""
    path = parts(store, ref)[0]
    table = change(pq.read_table(path))
    pq.write_table(table, path)

    def fit(body: dict[str, Any]) -> None:
        more = table.num_rows - body["parts"][0]["rows"]
        size = path.stat().st_size
        body["parts"][0].update(sha256=file_sha256(path), bytes=size, rows=table.num_rows)
        body["rows"] += more
        body["statuses"]["ok"] += more

    edit_manifest(store, ref.dataset, ref.version, fit)


def with_other_text(table: pa.Table) -> pa.Table:
    texts = ["forged", *table.column("completion").to_pylist()[1:]]
    return table.set_column(table.column_names.index("completion"), "completion", pa.array(texts))


def with_other_id(table: pa.Table) -> pa.Table:
    ids = ["forged", *table.column("row_id").to_pylist()[1:]]
    return table.set_column(table.column_names.index("row_id"), "row_id", pa.array(ids))


@pytest.mark.parametrize(
    "change", [with_other_text, with_other_id, lambda t: t.slice(1), lambda t: pa.concat_tables([t, t.slice(0, 1)])]
)
def test_verify_version_rows_that_are_not_the_content_are_named(
    store: Store, change: Callable[[pa.Table], pa.Table]
) -> None:
    ref = commit(store)
    rewrite_rows(store, ref, change)
    assert set(found(verify_version(store, ref.dataset, ref.version))) == {"RowsDiffer"}


def test_verify_version_row_with_other_text_is_named_by_its_id(store: Store) -> None:
    ref = commit(store)
    rewrite_rows(store, ref, with_other_text)
    first = verify_version(store, ref.dataset, ref.version).problems[0]
    assert "'p0/0'" in first.message


@pytest.mark.parametrize("field", ["rows", "statuses", "columns"])
def test_verify_version_forged_ledger_is_named(store: Store, field: str) -> None:
    ref = commit(store)
    forged = {"rows": 7, "statuses": {"ok": 1}, "columns": []}[field]
    edit_manifest(store, ref.dataset, ref.version, lambda body: body.update({field: forged}))
    [problem] = verify_version(store, ref.dataset, ref.version).problems
    assert problem.error == "RowsDiffer"
    assert field in problem.message


def test_verify_version_part_that_is_no_parquet_is_damaged(store: Store) -> None:
    ref = commit(store)
    path = parts(store, ref)[0]
    path.write_bytes(b"text")
    size = {"sha256": file_sha256(path), "bytes": 4}
    edit_manifest(store, ref.dataset, ref.version, lambda body: body["parts"][0].update(size))
    assert found(verify_version(store, ref.dataset, ref.version)) == ["PartDamaged"]


def test_verify_version_counts_orphans_and_chunks_without_complaint(store: Store) -> None:
    ref = commit(store)
    store.backend.put(f"v1/datasets/{ref.dataset}/data/{ref.version}/lost/part-00000.parquet", [b"12345"])
    store.chunk_put(ref.dataset, ref.version, "00000-aa", completions(2))
    check = verify_version(store, ref.dataset, ref.version)
    assert check.intact
    assert (check.orphans, check.orphan_bytes, check.chunks) == (1, 5, 1)


def test_verify_version_damaged_chunk_of_a_version_in_work_is_a_problem(store: Store) -> None:
    version = derivation().version
    store.chunk_put("completions", version, "00000-aa", completions(2))
    whole = verify_version(store, "completions", version)
    assert (whole.intact, whole.committed, whole.chunks) == (True, False, 1)
    flip(next(Path(store.uri).rglob("00000-aa.parquet")))
    check = verify_version(store, "completions", version)
    assert found(check) == ["Corrupt"]
    assert "delete this file" in check.problems[0].message


def test_verify_version_that_does_not_exist_is_not_committed(store: Store) -> None:
    with pytest.raises(NotCommitted):
        verify_version(store, "completions", "0" * 32)


def test_verify_version_progress_ends_at_all_bytes(store: Store) -> None:
    ref = commit(store)
    seen: list[tuple[int, int]] = []
    check = verify_version(store, ref.dataset, ref.version, lambda what, done, total: seen.append((done, total)))
    assert seen[0] == (0, check.bytes)
    assert seen[-1] == (check.bytes, check.bytes)
    assert seen == sorted(seen)


def test_verify_store_checks_every_version_though_one_manifest_is_unreadable(store: Store, tmp_path: Path) -> None:
    refs = [commit(store, seed) for seed in range(3)]
    commit_model(store, tmp_path / "model")
    next(Path(store.uri).rglob(f"{refs[1].version}.json")).write_bytes(b"{")
    checks = {(check.dataset, check.version): check.intact for check in verify_store(store)}
    assert len(checks) == 4
    assert [key for key, intact in checks.items() if not intact] == [("completions", refs[1].version)]
    assert {check.dataset for check in verify_store(store, ["models/sl"])} == {"models/sl"}


def test_verify_store_covers_versions_in_work(store: Store) -> None:
    commit(store)
    store.chunk_put("completions", derivation(seed=9).version, "00000-aa", completions(2))
    assert [check.committed for check in verify_store(store)].count(False) == 1


def test_verify_version_s3_flipped_byte_is_named(s3_uri: str, tmp_path: Path) -> None:
    store = Store.open(s3_uri, cache=tmp_path / "cache")
    ref = commit(store)
    assert verify_version(store, ref.dataset, ref.version).intact
    [key] = store.backend.keys("v1/datasets/completions/data/")
    data = bytearray(store.backend.get(key))
    data[100] ^= 1
    store.backend.put(key, [bytes(data)])
    assert found(verify_version(store, ref.dataset, ref.version)) == ["PartDamaged"]
