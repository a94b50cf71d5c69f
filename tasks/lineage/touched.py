"""What a principle touched: the rows that were drawn under it, and every version made from those.

Rows are counted in their columns, a row group at a time; of a version whose rows gc removed only its record speaks.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from constitutions import Constitution, Principle
from constitutions.phases import Phase, constraints_of, principles_of, text_hash
from tasks.lineage.graph import CONSTITUTIONS, Edge, Records, State
from tasks.lineage.redraw_labels import ALL
from tasks.lineage.redraw_revisions import ASKED
from tasks.schema import Frozen
from tasks.store import Manifest, Store, StoreError

MIN_PREFIX = 8
COLUMNS = ("row_id", "status", "reason", "principle_id", "principle_hash", "slot", "decided_by")
"""What says whether a row is under a principle, of those that its dataset has."""
_HASH = re.compile(rf"[0-9a-f]{{{MIN_PREFIX},64}}")


class Chosen(Frozen):
    """The principle that is asked for: all that ever had an id, or one wording by its hash."""

    name: str
    ids: tuple[str, ...]
    hashes: tuple[str, ...] | None
    """Of the texts of the phases; None: whatever the wording."""
    constitutions: tuple[str, ...]
    """Keys of those that hold it."""


class TouchedVersion(Frozen):
    """One version that the principle had a part in."""

    key: str
    state: State
    how: Literal["direct", "derived"]
    """`direct`: it has rows under the principle. `derived`: it was made from a version that was touched."""
    rows: int | None
    """Rows that were asked under the principle; None: gc removed them, its constitution held the principle."""
    of: int | None
    """All its rows; None for a model."""
    row_ids: tuple[str, ...] = ()
    """The first of them, as many as were asked for."""
    through: tuple[str, ...] = ()
    """Keys of the touched versions that it was made from."""


class Touched(Frozen):
    """Everything that a principle touched; a version comes after what it was made from."""

    principle: Chosen
    versions: tuple[TouchedVersion, ...]

    @property
    def num_rows(self) -> int:
        return sum(version.rows or 0 for version in self.versions)


def find_principle(records: Records, name: str) -> Chosen:
    """The principle by its id, or by 8 or more digits of the hash of its texts, of one phase or of both.

    Raises: StoreError: no constitution has it; names the ids that there are.
    """
    held = [(key, p) for key, constitution in records.constitutions.items() for p in constitution.principles]
    by_id = [(key, p) for key, p in held if p.id == name]
    if by_id:
        return Chosen(name=name, ids=(name,), hashes=None, constitutions=tuple(key for key, _ in by_id))
    found = [(key, p, hashes_of(p, name)) for key, p in held] if _HASH.fullmatch(name) else []
    found = [(key, p, hashes) for key, p, hashes in found if hashes]
    if not found:
        known = ", ".join(sorted({p.id for _, p in held})) or "none"
        raise StoreError(
            f"principle {name!r}: in no constitution of this store; expected an id or {MIN_PREFIX} or more digits "
            f"of a hash; the ids are {known}"
        )
    return Chosen(
        name=name,
        ids=tuple(sorted({p.id for _, p, _ in found})),
        hashes=tuple(sorted({digest for _, _, hashes in found for digest in hashes})),
        constitutions=tuple(dict.fromkeys(key for key, _, _ in found)),
    )


def hashes_of(principle: Principle, prefix: str) -> set[str]:
    """The phases' hashes that a prefix means: both where it is one of the whole principle."""
    both = {principle.revision_hash, principle.comparison_hash}
    return both if principle.hash.startswith(prefix) else {digest for digest in both if digest.startswith(prefix)}


def touched(store: Store, records: Records, principle: Chosen, num_row_ids: int = 0) -> Touched:
    """Every version with rows under the principle, and all that derive from one.

    Raises: Corrupt.
    """
    found = {version.key: version for version in direct(store, records, principle, num_row_ids)}
    below = {key: [edge for edge in records.edges(m) if passes(edge)] for key, m in records.all.items()}
    spread = set(found)
    while added := {key for key in below.keys() - spread if any(edge.to in spread for edge in below[key])}:
        spread |= added
    versions = []
    depths = depths_of({key: [edge.to for edge in below[key] if edge.to in spread] for key in spread})
    for key in sorted(spread, key=lambda key: (depths[key], records.all[key].created_at, key)):
        through = tuple(dict.fromkeys(edge.to for edge in below[key] if edge.to in spread))
        version = found.get(key) or derived(records, key)
        versions.append(version.model_copy(update={"through": through}))
    return Touched(principle=principle, versions=tuple(versions))


def depths_of(made_from: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """How many steps lie between each key and the last of what it was made from."""
    depths = dict.fromkeys(made_from, 0)
    for _ in made_from:  # as often as the longest way is long, at most
        deeper = {key: 1 + max((depths[to] for to in below), default=-1) for key, below in made_from.items()}
        if deeper == depths:
            break
        depths = deeper
    return depths


def passes(edge: Edge) -> bool:
    """Whether content comes this way: not from a constitution, whose rows say themselves what they drew."""
    return not edge.nominal and not edge.to.startswith(f"{CONSTITUTIONS}/")


def derived(records: Records, key: str) -> TouchedVersion:
    manifest = records.all[key]
    of = manifest.rows if manifest.kind == "rows" else None
    return TouchedVersion(key=key, state=records.node(key).state, how="derived", rows=0, of=of)


def direct(store: Store, records: Records, principle: Chosen, num_row_ids: int) -> Iterator[TouchedVersion]:
    """The versions that have rows under the principle."""
    for key, manifest in records.all.items():
        columns = {column.name for column in manifest.columns}
        if "principle_id" not in columns or manifest.dataset == CONSTITUTIONS:
            continue
        holding = set(drawn_from(records, manifest)) & set(principle.constitutions)
        if key in records.live:
            found = [records.constitutions[name] for name in sorted(holding)]
            rows, row_ids = count(store, manifest, beside_draws(found, principle), num_row_ids)
            if rows:
                yield TouchedVersion(
                    key=key, state="live", how="direct", rows=rows, of=manifest.rows, row_ids=tuple(row_ids)
                )
        elif holding:
            yield TouchedVersion(key=key, state="removed", how="direct", rows=None, of=manifest.rows)


class Under(NamedTuple):
    """How a version's rows come to be under a principle."""

    principle: Chosen
    held: bool
    """Its constitution held it: where rows do not say the wording, it is that one's."""
    in_critiques: bool
    """A hard constraint there, which every critique names."""
    in_comparisons: bool
    """Among the questions that are asked all at once."""


def beside_draws(constitutions: Sequence[Constitution], principle: Chosen) -> Under:
    """What the constitutions of a version make of a principle, whether or not it is drawn."""
    named = [p for c in constitutions for p in constraints_of(c, "revision")]
    questions = [p for c in constitutions for p in principles_of(c, "comparison")]
    return Under(
        principle,
        held=bool(constitutions),
        in_critiques=any(is_chosen(p, "revision", principle) for p in named),
        in_comparisons=any(is_chosen(p, "comparison", principle) for p in questions),
    )


def is_chosen(found: Principle, phase: Phase, principle: Chosen) -> bool:
    return found.id in principle.ids and (principle.hashes is None or text_hash(found, phase) in principle.hashes)


def drawn_from(records: Records, manifest: Manifest) -> list[str]:
    """The constitutions that a version's principles are of: its own, or those of what it was made from."""
    own = records.constitutions_of(manifest)
    if own:
        return own
    inputs = [records.all[edge.to] for edge in records.edges(manifest) if edge.to in records.all]
    return [key for made in inputs if made.kind == "rows" for key in records.constitutions_of(made)]


def count(store: Store, manifest: Manifest, under: Under, num_row_ids: int) -> tuple[int, list[str]]:
    """Rows under the principle that a model was asked for, and the first few by name."""
    names = [column.name for column in manifest.columns if column.name in COLUMNS]
    if under.principle.hashes is not None and "principle_hash" not in names and not under.held:
        return 0, []
    rows, row_ids = 0, list[str]()
    for table in store.read_tables(manifest.dataset_ref(), columns=names):
        mask = pc.and_(was_asked(table), is_under(table, under, manifest.dataset))
        rows += pc.sum(mask).as_py() or 0
        if len(row_ids) < num_row_ids:
            row_ids += table.column("row_id").filter(mask).slice(0, num_row_ids - len(row_ids)).to_pylist()
    return rows, row_ids


def was_asked(table: pa.Table) -> pa.ChunkedArray:
    """Which rows a model was asked for: all but the skipped, and of those the revisions that had nothing to change."""
    unchanged = pc.is_in(table.column("reason"), value_set=pa.array(sorted(ASKED), pa.string()))
    return pc.or_(pc.not_equal(table.column("status"), "skipped"), unchanged)


def is_under(table: pa.Table, under: Under, dataset: str) -> pa.ChunkedArray:
    """Which rows are under the principle, never null: by their draw, or as it was asked of all or decided."""
    column, values = "principle_id", under.principle.ids
    if under.principle.hashes is not None and "principle_hash" in table.column_names:
        column, values = "principle_hash", under.principle.hashes
    found = among(table, column, values)
    if dataset == "revisions" and under.in_critiques:
        found = pc.or_(found, pc.is_valid(table.column("row_id")))
    if "slot" in table.column_names and under.in_comparisons:
        found = pc.or_(found, among(table, "slot", [ALL]))
    if "decided_by" in table.column_names and under.in_comparisons:
        found = pc.or_(found, among(table, "decided_by", [f"hard/{name}" for name in under.principle.ids]))
    return found


def among(table: pa.Table, column: str, values: Sequence[str]) -> pa.ChunkedArray:
    return pc.is_in(table.column(column), value_set=pa.array(values, pa.string()))
