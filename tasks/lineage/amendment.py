"""Which rows an amended constitution touches: the newest version made before it, drawn again."""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import pyarrow as pa

from constitutions import Constitution, Principle, draw
from constitutions.diff import Phase, principles_of, slice_of, text_hash
from tasks.schema import Frozen
from tasks.store import Manifest, Store

DATASETS: dict[Phase, str] = {"revision": "revisions", "comparison": "labels"}
COLUMNS: dict[Phase, list[str]] = {"revision": ["prompt_id", "round"], "comparison": ["comparison_id"]}


class RowsTouched(Frozen):
    """Rows of one version under an amendment; skipped ones, which were never asked, are left out."""

    key: str
    """`dataset/version`."""
    rows: int
    touched: int
    """Rows whose draw gets another text."""
    following: int
    """Rows that keep their text and come after a touched one in their chain, so that they are made anew too."""
    chains: int | None
    """Chains of revision rounds; None for labels."""
    chains_touched: int | None

    @property
    def made_anew(self) -> int:
        """At most so many: a text that comes out as before lets what follows it be kept."""
        return self.touched + self.following


def newest_under(store: Store, constitution: Constitution, phase: Phase) -> Manifest | None:
    """The newest version of the phase that was made under this constitution's slice; None where there is none."""
    slice_ = slice_of(constitution, phase)
    made = [m for m in store.versions(DATASETS[phase]) if slice_ and m.derivation.constitution == slice_]
    return made[-1] if made else None


def rows_touched(store: Store, manifest: Manifest, old: Constitution, new: Constitution, phase: Phase) -> RowsTouched:
    """Draw every row of a version that was made under `old` again under `new`, a row group in memory at a time.

    Rows of a chain stand together, in the order of their rounds.

    Raises: Corrupt.
    """
    rows = touched = following = chains = chains_touched = 0
    chain, broken = None, False
    for row, moved in redrawn(store, manifest, old, new, phase):
        if phase == "revision" and row["prompt_id"] != chain:
            chain, broken, chains = row["prompt_id"], False, chains + 1
        rows, touched, following = rows + 1, touched + moved, following + (broken and not moved)
        if phase == "revision" and moved and not broken:
            broken, chains_touched = True, chains_touched + 1
    key, of_revisions = f"{manifest.dataset}/{manifest.version}", phase == "revision"
    return RowsTouched(
        key=key,
        rows=rows,
        touched=touched,
        following=following,
        chains=chains if of_revisions else None,
        chains_touched=chains_touched if of_revisions else None,
    )


def redrawn(
    store: Store, manifest: Manifest, old: Constitution, new: Constitution, phase: Phase
) -> Iterator[tuple[dict[str, Any], bool]]:
    """Every row that was asked, and whether its draw has another text now."""
    rivals, seed = rivals_of(principles_of(old, phase), principles_of(new, phase)), manifest.derivation.seed

    @lru_cache(maxsize=64)  # both orders of a comparison share their draw
    def text_of(drawn: str, *key: str | int) -> str | None:
        chosen = rivals(drawn)
        winner = draw(chosen, seed, *key) if len(chosen) > 1 else next(iter(chosen), None)
        return text_hash(winner, phase) if winner else None

    columns = [*COLUMNS[phase], "principle_id", "principle_hash", "status"]
    for table in store.read_tables(manifest.dataset_ref(), columns=columns):
        for row in asked(table):
            yield row, text_of(row["principle_id"], *draw_key(row, phase)) != row["principle_hash"]


def rivals_of(before: Sequence[Principle], after: Sequence[Principle]) -> Callable[[str], Sequence[Principle]]:
    """By the principle that was drawn before: those among which it is decided now, mostly itself alone.

    Only what has more weight than before can win against one that has no less; and drawing is what takes time.
    """
    weights = {p.id: p.weight for p in before}
    risen = [p for p in after if p.weight > weights.get(p.id, 0.0)]
    own = {p.id: p for p in after if p.id in weights and p.weight >= weights[p.id]}

    def rivals(drawn: str) -> Sequence[Principle]:
        if drawn not in own:
            return after
        return [own[drawn], *(p for p in risen if p.id != drawn)]

    return rivals


def asked(table: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches(max_chunksize=4096):
        yield from (row for row in batch.to_pylist() if row["status"] != "skipped")


def draw_key(row: dict[str, Any], phase: Phase) -> tuple[str | int, ...]:
    """What the stages draw by (`revise`, `label`)."""
    if phase == "revision":
        return "revise", row["prompt_id"], row["round"]
    return "label", row["comparison_id"]
