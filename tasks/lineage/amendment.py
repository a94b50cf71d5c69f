"""Which rows an amended constitution touches: the newest versions made before it, asked again what the new one asks."""

from collections.abc import Iterable, Iterator
from typing import Any

from constitutions import Constitution
from constitutions.phases import Phase, slice_of
from tasks.lineage.redraw_labels import Touch, relabelled
from tasks.lineage.redraw_revisions import rerevised
from tasks.schema import Frozen
from tasks.store import Manifest, Store

DATASETS: dict[Phase, str] = {"revision": "revisions", "comparison": "labels"}
COLUMNS: dict[Phase, list[str]] = {
    "revision": ["prompt_id", "round", "principle_id", "status", "reason"],
    "comparison": ["comparison_id", "slot", "principle_id", "status"],
}


class RowsTouched(Frozen):
    """Rows of one version under an amendment; those that were never asked, for want of a text, are left out."""

    key: str
    """`dataset/version`."""
    rows: int
    touched: int
    """Rows that are asked something else now, or nothing any more."""
    following: int
    """Rows that are asked the same and come after a touched one in their chain, so that they are made anew too."""
    made_anew: int
    """Rows that a rerun makes, at most: a text that comes out as before lets what follows it be kept."""
    chains: int | None
    """Chains of revision rounds; None for labels."""
    chains_touched: int | None


def newest_under(store: Store, constitution: Constitution, phase: Phase) -> list[Manifest]:
    """The newest version that was made under this constitution's slice: of labels, one of each feedback model."""
    slice_ = slice_of(constitution, phase)
    made = [m for m in store.versions(DATASETS[phase]) if slice_ and m.derivation.constitution == slice_]
    made = [m for m in made if set(COLUMNS[phase]) <= {column.name for column in m.columns}]  # of this code
    newest = {m.derivation.models.get("feedback"): m for m in made}  # which no revision was made with
    return list(newest.values())


def rows_touched(store: Store, manifest: Manifest, old: Constitution, new: Constitution, phase: Phase) -> RowsTouched:
    """Ask every row of a version that was made under `old` again under `new`, a row group in memory at a time.

    Rows of a chain stand together, in the order of their rounds; so do those of a comparison.

    Raises: Corrupt.
    """
    key, rows = f"{manifest.dataset}/{manifest.version}", read_rows(store, manifest, COLUMNS[phase])
    if phase == "revision":
        return revisions_touched(key, rerevised(rows, old, new, manifest.derivation))
    return labels_touched(key, relabelled(rows, old, new, manifest.derivation))


def revisions_touched(key: str, rows: Iterable[tuple[dict[str, Any], bool]]) -> RowsTouched:
    total = touched = following = chains = chains_touched = 0
    chain, broken = None, False
    for row, moved in rows:
        if row["prompt_id"] != chain:
            chain, broken, chains = row["prompt_id"], False, chains + 1
        total, touched, following = total + 1, touched + moved, following + (broken and not moved)
        if moved and not broken:
            broken, chains_touched = True, chains_touched + 1
    return RowsTouched(
        key=key,
        rows=total,
        touched=touched,
        following=following,
        made_anew=touched + following,
        chains=chains,
        chains_touched=chains_touched,
    )


def labels_touched(key: str, comparisons: Iterable[Touch]) -> RowsTouched:
    total = touched = made = 0
    for comparison in comparisons:
        total, touched, made = total + comparison.rows, touched + comparison.touched, made + comparison.made
    return RowsTouched(
        key=key, rows=total, touched=touched, following=0, made_anew=made, chains=None, chains_touched=None
    )


def read_rows(store: Store, manifest: Manifest, columns: list[str]) -> Iterator[dict[str, Any]]:
    for table in store.read_tables(manifest.dataset_ref(), columns=columns):
        for batch in table.to_batches(max_chunksize=4096):
            yield from batch.to_pylist()
