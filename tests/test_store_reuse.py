"""A row that is there is found by its key, from the first that made it, and never taken damaged."""

import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.schema import Completion, DatasetRef
from tasks.store import Corrupt, Derivation, Store
from tasks.store.errors import RowsDiffer
from tasks.store.identity import arrow_schema, digest, rows_to_table
from tasks.store.reuse import ReuseIndex

RECIPE, OTHER = digest("recipe"), digest("another recipe")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr("tasks.store.parts.PART_BYTES", 8_000)
    monkeypatch.setattr("tasks.store.parts._GROUP_BYTES", 10_000)
    return Store.open(str(tmp_path / "store"), cache=tmp_path / "cache")


def derivation(seed: int) -> Derivation:
    return Derivation(
        stage="respond", dataset="completions", code_version=1, config={}, inputs={}, constitution=None, models={},
        seed=seed, force=None,
    )  # fmt: skip


def rows(*numbers: int, text: str = "text", **changes: Any) -> pa.Table:
    def row(i: int) -> Completion:
        values = {"row_id": f"p{i}/0", "reuse_key": digest(i), "prompt_id": f"p{i}", "sample": 0}
        return Completion(**(values | {"completion": f"{text} {i} {random.Random(i).randbytes(100).hex()}"} | changes))

    return rows_to_table([row(i) for i in numbers], Completion)


def write(store: Store, seed: int, *tables: pa.Table, reuse: str | None = RECIPE) -> DatasetRef:
    with store.writer(derivation(seed)) as writer:
        for table in tables:
            writer.append(table)
        return writer.commit(metrics={}, cost={}, reuse=reuse)


def chunk(store: Store, seed: int, index: int, table: pa.Table, recipe: str = RECIPE) -> None:
    name = f"{recipe[:12]}-{index:05d}-{digest(table.column('reuse_key').to_pylist())[:16]}"
    store.chunk_put("completions", derivation(seed).version, name, table)


def build(store: Store, recipe: str = RECIPE) -> ReuseIndex:
    return ReuseIndex.build(store, "completions", recipe, arrow_schema(Completion))


def found(index: ReuseIndex, *numbers: int) -> dict[int, tuple[str, str]]:
    """Number -> where its row came from and the beginning of its text."""
    rows = index.find([digest(i) for i in numbers])
    by_key = {digest(i): i for i in numbers}
    return {by_key[k]: (source, values["completion"].split()[0]) for k, (source, values) in rows.items()}


def test_find_rows_of_an_earlier_version_come_back_as_they_were_written(store: Store) -> None:
    ref = write(store, 1, rows(*range(400)))
    index = build(store)
    assert index.num_keys == 400
    expected = {row["reuse_key"]: (ref.version, row) for row in store.read(ref).to_pylist()}
    assert index.find([*expected, digest("unknown")]) == expected
    assert index.find([digest(399), digest(0)]) == {k: expected[k] for k in (digest(399), digest(0))}
    assert index.find([]) == {}


def test_find_in_an_empty_store_finds_nothing(store: Store) -> None:
    assert (build(store).num_keys, build(store).find([digest(1)])) == (0, {})


def test_find_of_several_versions_the_oldest_wins(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {}
    for seed, (when, numbers) in enumerate([("2026-02", (1, 2)), ("2026-01", (2, 3)), ("2026-03", (1, 2, 3, 4))]):
        ref = write(store, seed, rows(*numbers, text=when))
        versions[when] = ref.version
    order = {"2026-01": 0, "2026-02": 1, "2026-03": 2}
    manifests = store.versions("completions")
    by_age = sorted(manifests, key=lambda m: order[{v: k for k, v in versions.items()}[m.version]])
    monkeypatch.setattr(store, "versions", lambda dataset: by_age)
    index = build(store)
    taken = {number: text for number, (_, text) in found(index, 1, 2, 3, 4).items()}
    assert taken == {1: "2026-02", 2: "2026-01", 3: "2026-01", 4: "2026-03"}
    assert index.num_keys == 4


def test_find_of_equal_keys_in_one_version_the_first_wins(store: Store) -> None:
    twice = rows(1, text="second", row_id="again", prompt_id="again")
    write(store, 1, rows(1, text="first"), twice)
    assert found(build(store), 1)[1][1] == "first"


@pytest.mark.parametrize("status", ["ok", "refused", "skipped", "failed", "unparsable"])
def test_find_only_rows_worth_taking_are_found(store: Store, status: str) -> None:
    write(store, 1, rows(1, status=status))
    chunk(store, 2, 0, rows(2, status=status))
    assert set(found(build(store), 1, 2)) == ({1, 2} if status in ("ok", "refused", "skipped") else set())


def test_find_versions_and_chunks_of_another_recipe_are_never_read(store: Store) -> None:
    other, without = write(store, 1, rows(1), reuse=OTHER), write(store, 2, rows(2), reuse=None)
    chunk(store, 3, 0, rows(3), recipe=OTHER)
    for ref in (other, without):
        for path in store.part_locations(ref):
            Path(path).write_bytes(b"damaged")
    for path in Path(store.uri).rglob("chunks/**/*.parquet"):
        path.write_bytes(b"damaged")
    assert found(build(store), 1, 2, 3) == {}


def test_find_chunks_of_a_version_in_work_come_after_committed_versions(store: Store) -> None:
    ref = write(store, 1, rows(1, 2, text="committed"))
    chunk(store, 2, 0, rows(2, 3, text="chunk"))
    chunk(store, 2, 1, rows(4, text="chunk"))
    source = f"chunks/{derivation(2).version}"
    assert found(build(store), 1, 2, 3, 4) == {
        1: (ref.version, "committed"), 2: (ref.version, "committed"), 3: (source, "chunk"), 4: (source, "chunk"),
    }  # fmt: skip


def test_find_chunks_of_a_committed_version_are_not_looked_at(store: Store) -> None:
    chunk(store, 1, 0, rows(1))
    for path in Path(store.uri).rglob("chunks/**/*.parquet"):
        path.write_bytes(b"damaged")
    ref = write(store, 1, rows(1))
    assert found(build(store), 1) == {1: (ref.version, "text")}


def test_build_damaged_chunk_is_an_error_that_names_it(store: Store) -> None:
    chunk(store, 1, 0, rows(1))
    path = next(Path(store.uri).rglob("chunks/**/*.parquet"))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(Corrupt, match=f"{path.name}.*delete this file"):
        build(store)


def test_find_row_with_another_content_than_its_hash_is_an_error_that_names_it(store: Store) -> None:
    ref = write(store, 1, rows(*range(3)))
    path = store.part_locations(ref)[0]
    table = pq.read_table(path)
    texts = table.column("completion").to_pylist()
    texts[1] = texts[1].replace("text", "tEXT")
    edited = table.set_column(table.column_names.index("completion"), "completion", pa.array(texts))
    pq.write_table(edited, path, compression="zstd", write_page_checksum=True)
    size = Path(path).stat().st_size
    index = ReuseIndex.build(_store_that_says(store, ref, size), "completions", RECIPE, arrow_schema(Completion))
    assert set(found(index, 0, 2)) == {0, 2}
    with pytest.raises(RowsDiffer, match=r"part-00000.*'p1/0'"):
        found(index, 1)


def _store_that_says(store: Store, ref: DatasetRef, size: int) -> Store:
    """The manifest of a forger, who knows the file's new size."""
    manifest = store.manifest(ref.dataset, ref.version)
    part = manifest.parts[0].model_copy(update={"bytes": size})
    path = next(Path(store.uri).rglob(f"versions/{ref.version}.json"))
    path.write_bytes(manifest.model_copy(update={"parts": (part,)}).to_bytes())
    return store


def test_find_damaged_part_is_an_error(store: Store) -> None:
    ref = write(store, 1, rows(*range(300)))
    index = build(store)
    path = Path(store.part_locations(ref)[0])
    path.write_bytes(path.read_bytes()[:1000] + b"####" + path.read_bytes()[1004:])
    with pytest.raises(Corrupt, match="part-00000"):
        found(index, *range(30))


def test_find_key_whose_hash_is_anothers_is_not_found_as_that_one(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(store, 1, rows(1, 2))
    index = build(store)
    key = next(k for k in (f"{n:x}" for n in range(10**6)) if k != digest(1))

    class SameHash(str):
        def __hash__(self) -> int:
            return hash(digest(1))

    assert index.find([SameHash(key)]) == {}


def test_find_versions_with_other_columns_are_passed_over(store: Store) -> None:
    write(store, 1, rows(1).append_column("score", pa.array([0.5])))
    chunk(store, 2, 0, rows(2).drop_columns(["num_tokens"]))
    write(store, 3, rows(3))
    assert set(found(build(store), 1, 2, 3)) == {3}


def test_build_holds_what_it_cites_before_it_looks(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    ref = write(store, 1, rows(1))
    chunk(store, 2, 0, rows(2))
    other = write(store, 3, rows(3), reuse=OTHER)
    seen: list[str] = []
    hold, get_range, get = store.hold, store.backend.get_range, store.backend.get

    def held(dataset: str, *versions: str) -> None:
        hold(dataset, *versions)
        seen.extend(versions)

    def looked(key: str, *where: int) -> bytes:
        if "/data/" in key or "/chunks/" in key:
            assert key.split("/")[4] in seen
        return get_range(key, *where) if where else get(key)

    monkeypatch.setattr(store, "hold", held)
    monkeypatch.setattr(store.backend, "get_range", looked)
    monkeypatch.setattr(store.backend, "get", looked)
    assert set(found(build(store), 1, 2, 3)) == {1, 2}
    assert sorted(seen) == sorted([ref.version, derivation(2).version])
    assert other.version not in seen


def test_build_version_that_gc_removed_before_it_was_held_is_passed_over(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = write(store, 1, rows(1))
    hold = store.hold

    def too_late(dataset: str, *versions: str) -> None:
        for path in Path(store.uri).rglob(f"versions/{ref.version}.json"):
            path.unlink()
        hold(dataset, *versions)

    monkeypatch.setattr(store, "hold", too_late)
    assert found(build(store), 1) == {}


def test_find_keeps_no_more_decoded_rows_than_it_says(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.store.reuse.CACHE_BYTES", 30_000)
    write(store, 1, rows(*range(1000)))
    index = build(store)
    for start in range(0, 1000, 50):
        assert len(found(index, *range(start, start + 50))) == 50
    before = pa.total_allocated_bytes()
    assert len(found(index, *range(1000))) == 1000
    assert pa.total_allocated_bytes() - before < 100_000
