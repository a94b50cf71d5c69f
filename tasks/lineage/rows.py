"""Where one row came from: its principle, the rows it was made from, and the versions that hold it too."""

from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tasks.lineage.graph import Records
from tasks.schema import Frozen
from tasks.store import Manifest, Store, StoreError

Wanted = dict[str, Any]
"""Column -> value; a list is a choice of values."""


class ParentRow(Frozen):
    """A row that another was made from."""

    role: str
    key: str
    """`dataset/version` that holds it."""
    row: dict[str, Any]


class Holder(Frozen):
    """A version that holds a row under the same `reuse_key`."""

    key: str
    row_id: str
    row_hash: str


class RowLineage(Frozen):
    """One row and where it came from."""

    key: str
    """`dataset/version`."""
    row: dict[str, Any]
    parents: tuple[ParentRow, ...]
    holders: tuple[Holder, ...]
    """Every version of the dataset with its `reuse_key`, oldest first: a rerun takes the first."""


def row_lineage(store: Store, records: Records, manifest: Manifest, row_id: str) -> RowLineage:
    """The row of a version, with what it was made from.

    Raises: StoreError: the version has no such row. Corrupt.
    """
    row = next(matching(store, manifest, {"row_id": row_id}), None)
    if row is None:
        raise StoreError(f"{manifest.dataset} {manifest.version}: no row {row_id!r} among its {manifest.rows}")
    return RowLineage(
        key=f"{manifest.dataset}/{manifest.version}",
        row=row,
        parents=tuple(parents(store, records, manifest, row)),
        holders=tuple(holders(store, records, manifest.dataset, row["reuse_key"])),
    )


def parents(store: Store, records: Records, manifest: Manifest, row: dict[str, Any]) -> Iterator[ParentRow]:
    """The rows it was made from, as far as their versions are kept; then earlier rounds of its own chain."""
    inputs = manifest.derivation.inputs
    for name, wanted in PARENTS.get(manifest.dataset, only_prompt)(row).items():
        for role in sorted(r for r in inputs if r == name or r.startswith(f"{name}.")):  # such as labels.<evaluator>
            source = records.live.get(records.by_version.get(inputs[role].version, ""))
            if source is not None:
                key = f"{source.dataset}/{source.version}"
                yield from (ParentRow(role=role, key=key, row=found) for found in matching(store, source, wanted))
    if manifest.dataset == "revisions" and row["round"]:
        wanted = {"prompt_id": row["prompt_id"], "round": list(range(row["round"]))}
        key = f"{manifest.dataset}/{manifest.version}"
        found = sorted(matching(store, manifest, wanted), key=lambda earlier: earlier["round"])
        yield from (ParentRow(role=f"round {r['round']}", key=key, row=r) for r in found)


def only_prompt(row: dict[str, Any]) -> dict[str, Wanted]:
    return {"prompts": prompt(row)} if "prompt_id" in row else {}


def prompt(row: dict[str, Any], split: str = "train") -> Wanted:
    return {"prompt_id": row["prompt_id"], "split": split}


def of_completion(row: dict[str, Any]) -> dict[str, Wanted]:
    return {"prompts": prompt(row), "completions": {"prompt_id": row["prompt_id"], "sample": 0}}


def of_improvement(row: dict[str, Any]) -> dict[str, Wanted]:
    """The revision that is judged, and what it is compared with: an earlier one, or the completion."""
    rounds = {"prompt_id": row["prompt_id"], "round": list(range(row["round"] + 1))}
    return {**of_completion(row), "revisions": rounds}


def of_comparison(row: dict[str, Any]) -> dict[str, Wanted]:
    return {"prompts": prompt(row), "comparisons": {"row_id": row["comparison_id"]}}


def of_preference(row: dict[str, Any]) -> dict[str, Wanted]:
    origin, _, comparison = row["row_id"].partition("/")
    if origin != "ai":
        return {}  # a human comparison comes from a file
    labels = {"comparison_id": comparison}
    return {"prompts": prompt(row), "comparisons": {"row_id": comparison}, "labels": labels}


def of_prompt_held_out(row: dict[str, Any]) -> dict[str, Wanted]:
    return {"prompts": prompt(row, "held_out")}


def of_sample(row: dict[str, Any]) -> dict[str, Wanted]:
    policy, _, sample = row["row_id"].partition("/")
    return {"prompts": prompt(row, "held_out"), f"samples.{policy}": {"row_id": sample}}


def of_match(row: dict[str, Any]) -> dict[str, Wanted]:
    sample = {"row_id": f"{row['prompt_id']}/{row['sample']}"}
    both = {f"samples.{row[policy]}": sample for policy in ("policy_a", "policy_b")}
    return {"prompts": prompt(row, "held_out"), **both}


def of_assessment(row: dict[str, Any]) -> dict[str, Wanted]:
    sample = {"row_id": f"{row['prompt_id']}/{row['sample']}"}
    return {"prompts": prompt(row, "held_out"), f"samples.{row['policy']}": sample}


def of_answer(row: dict[str, Any]) -> dict[str, Wanted]:
    return {"questions": {"question_id": row["question_id"]}}


PARENTS: dict[str, Callable[[dict[str, Any]], dict[str, Wanted]]] = {
    "revisions": of_completion,
    "improvements": of_improvement,
    "labels": of_comparison,
    "preferences": of_preference,
    "samples": of_prompt_held_out,
    "judgements": of_sample,
    "matches": of_match,
    "assessments": of_assessment,
    "answers": of_answer,
}
"""By dataset: role of the input, or what it begins with, -> which of its rows. Others come of a training prompt, if of
any row."""


def holders(store: Store, records: Records, dataset: str, reuse_key: str) -> Iterator[Holder]:
    found = [manifest for manifest in records.live.values() if manifest.dataset == dataset]
    for manifest in sorted(found, key=lambda m: (m.created_at, m.version)):
        columns = ["row_id", "reuse_key", "row_hash"]
        for row in matching(store, manifest, {"reuse_key": reuse_key}, columns):
            key = f"{manifest.dataset}/{manifest.version}"
            yield Holder(key=key, row_id=row["row_id"], row_hash=row["row_hash"])


def matching(
    store: Store, manifest: Manifest, wanted: Wanted, columns: list[str] | None = None
) -> Iterator[dict[str, Any]]:
    """The rows with these values, a row group in memory at a time."""
    for table in store.read_tables(manifest.dataset_ref(), columns=columns):
        yield from table.filter(mask(table, wanted)).to_pylist()


def mask(table: pa.Table, wanted: Wanted) -> pa.ChunkedArray:
    found = None
    for name, value in wanted.items():
        column = table.column(name)
        values = pa.array(value if isinstance(value, list) else [value], column.type)
        here = pc.is_in(column, value_set=values)
        found = here if found is None else pc.and_(found, here)
    return found
