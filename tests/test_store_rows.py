"""Rows written piece by piece are the same version as rows written at once, and read back piece by piece."""

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.schema import Completion, DatasetRef
from tasks.store import Corrupt, Derivation, InvalidName, NotCommitted, Store, StoreError
from tasks.store.errors import PartDamaged, PartMissing, PartTruncated
from tasks.store.identity import canonical_json, digest, hash_rows, row_hash, row_hashes, rows_to_table


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store whose parts are of some kilobytes, so that a few hundred rows make several."""
    monkeypatch.setattr("tasks.store.parts.PART_BYTES", 8_000)
    monkeypatch.setattr("tasks.store.parts._GROUP_BYTES", 10_000)
    return Store.open(str(tmp_path / "store"), cache=tmp_path / "cache")


def derivation(seed: int = 0, dataset: str = "completions") -> Derivation:
    return Derivation(
        stage="respond", dataset=dataset, code_version=1, config={}, inputs={}, constitution=None, models={},
        seed=seed, force=None,
    )  # fmt: skip


def completions(first: int, end: int, **changes: Any) -> pa.Table:
    """Rows whose texts hardly compress."""

    def row(i: int) -> Completion:
        text = random.Random(i).randbytes(100).hex()
        values = {"row_id": f"p{i}/0", "reuse_key": f"k{i}", "prompt_id": f"p{i}", "sample": 0, "completion": text}
        return Completion(**(values | changes))

    return rows_to_table([row(i) for i in range(first, end)], Completion)


def write(store: Store, *tables: pa.Table, seed: int = 0, **kept: Any) -> DatasetRef:
    with store.writer(derivation(seed)) as writer:
        for table in tables:
            writer.append(table)
        return writer.commit(metrics={}, cost={}, **kept)


def test_writer_rows_in_pieces_are_the_version_that_they_are_at_once(store: Store) -> None:
    whole = completions(0, 500)
    pieces = write(store, whole.slice(0, 1), whole.slice(1, 399), whole.slice(400, 0), whole.slice(400))
    at_once = store.commit_rows(derivation(1), whole, metrics={}, cost={})
    assert (pieces.rows, pieces.content_hash) == (500, hash_rows(whole)[1]) == (at_once.rows, at_once.content_hash)
    assert store.read(pieces).equals(hash_rows(whole)[0])
    manifest = store.manifest("completions", pieces.version)
    assert len(manifest.parts) > 5
    assert manifest.statuses == {"ok": 500}
    assert manifest.columns == store.manifest("completions", at_once.version).columns


def test_writer_manifest_keeps_recipe_sources_and_statuses(store: Store) -> None:
    ref = write(store, completions(0, 2), completions(2, 5, status="failed"), reuse="r" * 64, sources={"v": 3})
    manifest = store.manifest("completions", ref.version)
    assert (manifest.reuse, manifest.sources) == ("r" * 64, {"v": 3})
    assert manifest.statuses == {"ok": 2, "failed": 3}
    assert (manifest.rows, sum(part.rows or 0 for part in manifest.parts)) == (5, 5)


def test_writer_row_id_repeated_in_another_piece_is_refused_with_its_count(store: Store) -> None:
    again = completions(7, 8)
    with pytest.raises(StoreError, match=r"'p7/0' comes 3 times"):
        write(store, completions(0, 200), again, completions(200, 400), again)
    assert store.find("completions", derivation().version) is None


def test_writer_names_with_equal_hashes_are_not_taken_for_repeated(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np

    def colliding(names: pa.ChunkedArray) -> np.ndarray:
        return np.array([len(name) for name in names.to_pylist()], np.int64)

    monkeypatch.setattr("tasks.store.rows.name_hashes", colliding)
    assert write(store, completions(0, 50), completions(50, 120)).rows == 120
    with pytest.raises(StoreError, match=r"'p3/0' comes 2 times"):
        write(store, completions(0, 50), completions(3, 4), seed=1)


def test_writer_version_that_exists_is_returned_and_nothing_is_written(store: Store) -> None:
    first = write(store, completions(0, 10))
    files = sorted(Path(store.uri).rglob("*.parquet"))
    assert write(store, completions(5, 300)) == first
    with store.writer(derivation()) as writer:
        assert writer.done
        assert writer.commit(metrics={}, cost={}) == first
    assert sorted(Path(store.uri).rglob("*.parquet")) == files


def test_writer_left_without_commit_publishes_nothing(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.writer(derivation()) as writer:
        writer.append(completions(0, 300))
        raise ZeroDivisionError
    assert store.find("completions", derivation().version) is None
    assert store.datasets() == []
    assert write(store, completions(0, 300)).rows == 300


def test_writer_two_at_once_the_first_to_commit_wins(store: Store) -> None:
    with store.writer(derivation()) as one, store.writer(derivation()) as other:
        one.append(completions(0, 10))
        other.append(completions(0, 20))
        won = other.commit(metrics={}, cost={})
        assert one.commit(metrics={}, cost={}) == won
    assert store.read(won).num_rows == 20


def test_writer_nothing_appended_is_refused_and_an_empty_table_is_not(store: Store) -> None:
    with pytest.raises(StoreError, match="nothing was appended"):
        write(store)
    ref = write(store, completions(0, 0))
    assert ref.rows == 0
    assert store.read(ref).schema == completions(0, 0).schema
    assert [table.num_rows for table in store.read_tables(ref, ["row_id"])] == [0]


def test_writer_other_columns_are_refused_by_name(store: Store) -> None:
    odd = completions(3, 4).drop_columns(["num_tokens"]).append_column("score", pa.array([0.5]))
    with pytest.raises(StoreError, match=r"rows 3 and on.*missing \['num_tokens: int64'\], new \['score: double'\]"):
        write(store, completions(0, 3), odd)
    with pytest.raises(StoreError, match="another order"):
        write(store, completions(0, 3), completions(3, 4).select(list(reversed(completions(0, 0).column_names))))


def test_writer_under_a_models_name_is_refused(store: Store) -> None:
    with pytest.raises(InvalidName, match="models/"):
        store.writer(derivation(dataset="models/sl"))


def test_read_tables_come_in_order_and_no_row_is_lost(store: Store) -> None:
    ref = write(store, completions(0, 500))
    tables = list(store.read_tables(ref))
    assert len(tables) > 5
    assert pa.concat_tables(tables).column("row_id").to_pylist() == [f"p{i}/0" for i in range(500)]
    few = pa.concat_tables(store.read_tables(ref, ["reuse_key", "row_id"]))
    assert few.column_names == ["reuse_key", "row_id"]
    assert few.to_pylist()[499] == {"reuse_key": "k499", "row_id": "p499/0"}


def test_read_tables_few_columns_cost_few_bytes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.store.parts.PART_BYTES", 10**6)
    monkeypatch.setattr("tasks.store.parts._GROUP_BYTES", 10**5)
    ref = write(store, completions(0, 8000))
    read: list[int] = []
    get_range = store.backend.get_range

    def counted(key: str, start: int, length: int) -> bytes:
        read.append(length)
        return get_range(key, start, length)

    monkeypatch.setattr(store.backend, "get_range", counted)
    monkeypatch.setattr(store.backend, "get", lambda key: pytest.fail("whole") if "part-" in key else _get(key))
    _get = store.backend.__class__(Path(store.uri)).get
    assert sum(table.num_rows for table in store.read_tables(ref, ["row_id"])) == 8000
    assert sum(read) < sum(part.bytes for part in store.manifest("completions", ref.version).parts) / 4


def test_read_tables_unknown_column_is_named(store: Store) -> None:
    ref = write(store, completions(0, 3))
    with pytest.raises(StoreError, match=r"no columns \['colour'\]; there are .*completion"):
        list(store.read_tables(ref, ["row_id", "colour"]))


def test_read_tables_of_another_store_is_an_error_before_any_row(store: Store) -> None:
    ref = write(store, completions(0, 3))
    with pytest.raises(Corrupt, match="another store"):
        store.read_tables(ref.model_copy(update={"content_hash": "0" * 64}))
    with pytest.raises(NotCommitted):
        store.read_tables(ref.model_copy(update={"version": "0" * 32}))


@pytest.mark.parametrize("columns", [None, list(Completion.model_fields)])
def test_read_tables_part_missing_truncated_or_flipped_is_a_named_error(
    store: Store, columns: list[str] | None
) -> None:
    ref = write(store, completions(0, 300))
    path = Path(store.part_locations(ref)[1])
    data = path.read_bytes()
    for damaged, error in ((data[:-50], PartTruncated), (data[:500] + b"#" + data[501:], PartDamaged)):
        path.write_bytes(damaged)
        with pytest.raises(error, match="part-00001"):
            list(store.read_tables(ref, columns))
    path.unlink()
    with pytest.raises(PartMissing, match="part-00001"):
        list(store.read_tables(ref, columns))


def test_read_tables_flipped_byte_of_the_footer_is_noticed_or_harmless(store: Store) -> None:
    ref = write(store, completions(0, 40))
    path = Path(store.part_locations(ref)[0])
    data = path.read_bytes()
    footer = int.from_bytes(data[-8:-4], "little")
    tried, noticed = range(len(data) - footer - 8, len(data), 5), 0
    for index in tried:
        path.write_bytes(data[:index] + bytes([data[index] ^ 0x15]) + data[index + 1 :])
        try:
            names = pa.concat_tables(store.read_tables(ref, ["row_id"])).column("row_id").to_pylist()
            assert names == [f"p{i}/0" for i in range(40)]  # in the name of the checksum, whose loss changes no row
        except PartDamaged as error:
            assert "part-00000" in str(error)
            noticed += 1
    assert noticed > 0.95 * len(tried)


def test_read_tables_version_written_before_parts_had_sealed_footers_is_read(store: Store) -> None:
    """As the first release wrote it: no digest in the footer, no recipe, sources, generation or citations."""
    ref = write(store, completions(0, 40))
    table = store.read(ref)
    path = Path(store.part_locations(ref)[0])
    pq.write_table(table, path, compression="zstd", write_page_checksum=True)
    manifest = next(Path(store.uri).rglob(f"versions/{ref.version}.json"))
    body = json.loads(manifest.read_bytes())
    part = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "bytes": path.stat().st_size, "rows": 40}
    body["parts"] = [body["parts"][0] | part]
    for name in ("sha256", "reuse", "sources", "generation"):
        del body[name]
    del body["derivation"]["cites"]
    manifest.write_bytes(canonical_json(body | {"sha256": digest(body)}))
    assert store.read(ref).equals(table)
    assert pa.concat_tables(store.read_tables(ref, ["row_id"])).equals(table.select(["row_id"]))


def test_parts_other_programs_read_them(store: Store) -> None:
    import duckdb

    ref = write(store, completions(0, 500))
    paths = store.part_locations(ref)
    assert pa.concat_tables([pq.read_table(path) for path in paths]).equals(store.read(ref))
    query = "select count(distinct row_hash) from read_parquet(?) where row_id like 'p%'"
    assert duckdb.execute(query, [paths]).fetchall() == [(500,)]


VALUES = {
    "text": st.none() | st.text(st.characters(codec="utf-8")),
    "number": st.none() | st.integers(-(2**63), 2**63 - 1),
    "share": st.none() | st.floats(allow_nan=False, allow_infinity=False),
    "flag": st.none() | st.booleans(),
    '100 % "quoted"': st.none() | st.lists(st.fixed_dictionaries({"role": st.text(max_size=3), "b": st.none()})),
}


@given(st.lists(st.fixed_dictionaries(VALUES), min_size=1, max_size=5))
def test_row_hashes_of_a_table_are_those_of_its_rows(rows: list[dict[str, Any]]) -> None:
    schema = pa.schema(
        {
            "text": pa.string(), "number": pa.int64(), "share": pa.float64(), "flag": pa.bool_(),
            "100 % \"quoted\"": pa.list_(pa.struct({"role": pa.string(), "b": pa.string()})),
        }
    )  # fmt: skip
    table = pa.Table.from_pylist(rows, schema=schema)
    assert row_hashes(table) == [row_hash(row) for row in table.to_pylist()]


def test_row_hash_is_what_it_was_in_the_first_release() -> None:
    row = Completion(row_id="p1/0", reuse_key="k1", prompt_id="p1", sample=0, completion='Grüße, "你好"\n\t\\ 😀')
    table, content = hash_rows(rows_to_table([row], Completion))
    assert table.column("row_hash").to_pylist() == ["e463933f46e6d805ed2d8e0b1af642bde2f633c5492c5989d5ee556e55c02e37"]
    assert content == "b6d677dbccb57e081c5559315e97c6ad1810221eb5d372dd03937397e0ea106a"


def test_benchmark_operations_find_what_they_should(tmp_path: Path) -> None:
    from benchmarks import store_operations

    for name in ("make_input", "commit", "reuse", "commit_changed", "diff", "verify", "disk_commit", "disk_verify"):
        getattr(store_operations, name)(tmp_path, 9000, 0)  # they assert what they count
