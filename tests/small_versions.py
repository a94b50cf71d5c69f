"""Versions of a small dataset, for tests that are about the store and not about what is in it."""

from pathlib import Path

import pyarrow as pa

from tasks.schema import Completion, DatasetRef
from tasks.store import Derivation, InputRef, Store
from tasks.store.identity import rows_to_table


def derivation(dataset: str = "completions", seed: int = 0) -> Derivation:
    inputs = {"prompts": InputRef(version="a" * 32, content_hash="b" * 64)}
    return Derivation(
        stage="respond", dataset=dataset, code_version=1, config={"max_tokens": 8}, inputs=inputs, constitution=None,
        models={}, seed=seed, force=None,
    )  # fmt: skip


def completions(texts: list[str | None]) -> pa.Table:
    rows = [
        Completion(row_id=f"p{i}/0", reuse_key=f"k{i}", prompt_id=f"p{i}", sample=0, completion=text)
        for i, text in enumerate(texts)
    ]
    return rows_to_table(rows, Completion)


def commit(store: Store, table: pa.Table, seed: int = 0) -> DatasetRef:
    return store.commit_rows(derivation(seed=seed), table, metrics={}, cost={})


def model_folder(path: Path, weights: bytes = b"weights") -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "model.safetensors").write_bytes(weights)
    (path / "config.json").write_text("{}")
    (path / "merges.txt").write_bytes(b"")
    return path
