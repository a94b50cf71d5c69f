"""`./solon lineage`: what a version or row came from, and what a principle touched."""

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from flows.commands.console import JsonOption, StoreOption, console, open_store, print_json

if TYPE_CHECKING:
    from tasks.lineage import Branch, Node, Records
    from tasks.lineage.rows import RowLineage
    from tasks.lineage.touched import Touched
    from tasks.store import Manifest, Store

MAX_CHARACTERS = 300
NEWEST = "models/rl"

DatasetArgument = Annotated[str | None, typer.Argument(help=f"A dataset or model; {NEWEST} if none is given.")]
NameArgument = Annotated[str | None, typer.Argument(help="A tag, version or the first digits of one; else the newest.")]
PrincipleOption = Annotated[str | None, typer.Option("--principle", help="What this principle touched: id or hash.")]
RowOption = Annotated[str | None, typer.Option("--row", help="What this row of the version came from: its row_id.")]
RowsOption = Annotated[int, typer.Option("--rows", min=0, help="With --principle: list so many row_ids a version.")]
MermaidOption = Annotated[bool, typer.Option("--mermaid", help="Print the graph as Mermaid text.")]


def lineage(
    dataset: DatasetArgument = None,
    name: NameArgument = None,
    principle: PrincipleOption = None,
    row: RowOption = None,
    rows: RowsOption = 0,
    mermaid: MermaidOption = False,
    as_json: JsonOption = False,
    store: StoreOption = None,
) -> None:
    """Show what a version came from; with --row what a row did, with --principle what that principle touched."""
    from tasks.lineage import read_records

    if principle is not None and (dataset is not None or row is not None or mermaid):
        raise typer.BadParameter("--principle asks about the whole store: give it without DATASET, --row and --mermaid")
    if row is not None and mermaid:
        raise typer.BadParameter("--row has no graph: give it without --mermaid")
    opened = open_store(store)
    records = read_records(opened)
    if principle is not None:
        show_touched(opened, records, principle, rows, as_json)
    elif row is not None:
        show_row(opened, records, find_version(opened, records, dataset, name), row, as_json)
    else:
        show_version(records, find_version(opened, records, dataset, name), mermaid, as_json)


def find_version(store: "Store", records: "Records", dataset: str | None, name: str | None) -> "Manifest":
    """The version that is meant: named, or the newest; one that gc removed if none that is there has the name.

    Raises: StoreError: there is none.
    """
    from tasks.store import StoreError

    dataset = dataset or NEWEST
    if name is not None:
        try:
            return store.resolve(dataset, name)
        except StoreError:
            gone = [m for m in records.removed.values() if m.dataset == dataset and m.version.startswith(name)]
            if len(gone) != 1 or len(name) < 6:
                raise
            return gone[0]
    made = [manifest for manifest in records.live.values() if manifest.dataset == dataset]
    if not made:
        known = ", ".join(sorted({manifest.dataset for manifest in records.live.values()})) or "none"
        raise StoreError(f"store {store.uri}: no version of {dataset}; its datasets and models are {known}")
    return max(made, key=lambda manifest: (manifest.created_at, manifest.version))


def show_version(records: "Records", manifest: "Manifest", as_mermaid: bool, as_json: bool) -> None:
    from tasks.lineage import mermaid, tree, upstream
    from tasks.lineage.graph import key_of

    found = upstream(records, key_of(manifest))
    if as_mermaid:
        print(mermaid(found), end="")
    elif as_json:
        print_json(found.model_dump(mode="json"))
    else:
        console.print(draw_tree(tree(found)))


def draw_tree(branch: "Branch", onto: Tree | None = None, root: "Node | None" = None) -> Tree:
    """The branch and what is below it, as rich draws trees."""
    label = branch_label(branch, root)
    here = onto.add(label) if onto is not None else Tree(label)
    for below in branch.branches:
        draw_tree(below, here, root or branch.node)
    return here


def branch_label(branch: "Branch", root: "Node | None") -> Text:
    """Role, version and facts; the seed and commit only where they are not the root's."""
    from tasks.lineage.show import facts, short

    node, role, text = branch.node, branch.edge.role, Text()
    if role and role != node.dataset:
        text.append(f"{role}: ", style="dim")
    text.append(f"{node.dataset} {short(node.version)}", style="bold")
    if branch.edge.nominal:
        text.append("  not learned from", style="dim")
    if branch.again:
        return text.append("  as above", style="dim")
    text.append(f"  {', '.join(facts(node, root))}")
    return text.append(principle_lines(node), style="dim")


def principle_lines(node: "Node") -> str:
    """The principles a phase drew from, by hash; a constitution itself only counts its own."""
    if not node.principles or node.dataset == "constitutions":
        return ""
    return "\n" + ", ".join(f"{name} {digest[:10]}" for name, digest in sorted(node.principles.items()))


def show_touched(store: "Store", records: "Records", name: str, num_row_ids: int, as_json: bool) -> None:
    from tasks.lineage.touched import find_principle, touched

    found = touched(store, records, find_principle(records, name), num_row_ids)
    if as_json:
        print_json(found.model_dump(mode="json") | {"num_rows": found.num_rows})
        return
    console.print(touched_table(found))
    held = ", ".join(shorten(key) for key in found.principle.constitutions)
    console.print(Text(f"held by {held}; rows that were skipped were never asked under it and do not count"))
    for version in found.versions:
        if version.row_ids:
            console.print(Text(f"\n{shorten(version.key)}", style="bold"))
            console.print(Text("\n".join(plain(row_id) for row_id in version.row_ids)))


def touched_table(found: "Touched") -> Table:
    """Every version that was touched, the oldest first."""
    meant = " ".join((found.principle.name, *(i for i in found.principle.ids if i != found.principle.name)))
    table = Table("version", "touched", "rows under it", "of", "through", title=f"Principle {meant}")
    for version in found.versions:
        rows = "removed" if version.rows is None else str(version.rows) if version.how == "direct" else ""
        through = ", ".join(shorten(key) for key in version.through)
        how = version.how if version.state == "live" else f"{version.how}, removed"
        table.add_row(shorten(version.key), how, rows, "" if version.of is None else str(version.of), through)
    return table


def show_row(store: "Store", records: "Records", manifest: "Manifest", row_id: str, as_json: bool) -> None:
    from tasks.lineage.rows import row_lineage

    found = row_lineage(store, records, manifest, row_id)
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        console.print(row_tree(found))
        console.print(holders_table(found))


def row_tree(found: "RowLineage") -> Tree:
    tree = Tree(row_label("", found.key, found.row))
    for parent in found.parents:
        tree.add(row_label(parent.role, parent.key, parent.row))
    return tree


def row_label(role: str, key: str, row: dict[str, Any]) -> Text:
    """What a row says, a line for each column that holds something."""
    text = Text(f"{role}: " if role else "", style="dim")
    text.append(f"{shorten(key)}  {plain(str(row['row_id']))}", style="bold not dim")
    for name, value in row.items():
        if value not in (None, "", []) and name != "row_id":
            text.append(f"\n{name} ", style="dim")
            text.append(plain(spoken(value)), style="not dim")
    return text


def spoken(value: Any) -> str:
    if isinstance(value, list):  # a conversation
        return " / ".join(
            f"{turn['role']}: {turn['content']}" if isinstance(turn, dict) else str(turn) for turn in value
        )
    return str(value)


def holders_table(found: "RowLineage") -> Table:
    """The versions that hold a row under the same key."""
    table = Table("version", "row_id", "row_hash", title=f"reuse_key {found.row['reuse_key'][:16]}")
    for holder in found.holders:
        table.add_row(shorten(holder.key), Text(plain(holder.row_id)), holder.row_hash[:16])
    return table


def shorten(key: str) -> str:
    """`dataset/version` with as much of the version as tells it from others."""
    dataset, _, version = key.rpartition("/")
    return f"{dataset} {version[:10]}"


def plain(text: str) -> str:
    """On one line, cut, and without what a terminal would obey: models wrote it."""
    text = text if len(text) <= MAX_CHARACTERS else text[:MAX_CHARACTERS] + " …"
    return "".join(c if c.isprintable() else " " for c in text)
