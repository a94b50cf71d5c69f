"""`./solon datasets gc` and `./solon datasets tag`: what is kept, and the names that keep it."""

import getpass
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from flows.commands.console import JsonOption, StoreOption, console, open_store, print_json
from flows.commands.tables import clip

if TYPE_CHECKING:
    from tasks.store.tags import Tag

DeleteOption = Annotated[bool, typer.Option("--delete", help="Do it; without, only show what would go.")]
NewestOption = Annotated[int, typer.Option("--newest", min=0, help="Keep so many versions of each dataset.")]
DaysOption = Annotated[float, typer.Option("--days", min=0, help="Keep versions younger than this.")]
ReuseDaysOption = Annotated[float, typer.Option("--reuse-days", min=0, help="The same, where rows can be reused.")]
GraceOption = Annotated[
    float, typer.Option("--grace-hours", min=0.1, help="How long a silent process counts as alive, and files outlive.")
]
VersionArgument = Annotated[str | None, typer.Argument(help="A tag, a version, or the first characters of one.")]
ByOption = Annotated[str | None, typer.Option("--by", help="Who moves it; the user's name where left out.")]


def gc(
    store: StoreOption = None,
    delete: DeleteOption = False,
    newest: NewestOption = 3,
    days: DaysOption = 7,
    reuse_days: ReuseDaysOption = 90,
    grace_hours: GraceOption = 24,
    as_json: JsonOption = False,
) -> None:
    """Show what nobody needs, and with --delete remove it: what is tagged, held by a live run, young, or the source
    of such a version is kept."""
    from flows.gc import GcConfig, run_gc, summary, table_rows
    from tasks.stage import RunContext
    from tasks.store.retention import Retention

    retention = Retention(newest=newest, days=days, reuse_days=reuse_days)
    uri = store or RunContext().store
    config = GcConfig(store=uri, retention=retention, grace_hours=grace_hours, dry_run=not delete)
    report = run_gc(config)
    if as_json:
        print_json({"deleted": delete, **report.model_dump(mode="json")})
        return
    console.print(_judgements_table(table_rows(report)))
    console.print(summary(config, report))


def tag(
    dataset: str,
    name: Annotated[str, typer.Argument(metavar="TAG")],
    version: VersionArgument = None,
    store: StoreOption = None,
    by: ByOption = None,
    as_json: JsonOption = False,
) -> None:
    """Move a tag to a version; without VERSION, print every move of it, newest first."""
    opened = open_store(store)
    if version is None:
        moves = opened.tag_history(dataset, name)
    else:
        moves = [opened.tag(dataset, name, opened.resolve(dataset, version).version, by or getpass.getuser())]
    if as_json:
        print_json([move.model_dump() for move in moves])
    else:
        console.print(_moves_table(moves) if moves else Text(f"{dataset} has no tag {name!r}"))


def _judgements_table(rows: list[dict[str, str]]) -> Table:
    table = Table(*rows[0], box=None) if rows else Table(box=None)
    for row in rows:
        table.add_row(*(Text(clip(cell, 80)) for cell in row.values()))
    return table


def _moves_table(moves: "list[Tag]") -> Table:
    table = Table("tag", "move", "version", "by", "at", box=None)
    for move in moves:
        table.add_row(move.tag, str(move.sequence), move.version, Text(clip(move.by, 60)), move.at)
    return table
