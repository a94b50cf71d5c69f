"""`./solon datasets gc` and `./solon datasets tag`: what is kept, and the names that keep it."""

import getpass
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from flows.commands.console import JsonOption, StoreOption, console, open_store, print_json
from flows.commands.tables import bytes_text, clip

if TYPE_CHECKING:
    from tasks.store.gc import GcReport
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
    from tasks.store.gc import collect_garbage, plan_garbage
    from tasks.store.retention import Retention

    retention = Retention(newest=newest, days=days, reuse_days=reuse_days)
    report = (collect_garbage if delete else plan_garbage)(open_store(store), retention, grace_hours * 3600)
    if as_json:
        print_json({"deleted": delete, **report.model_dump(mode="json")})
        return
    console.print(_judgements_table(report))
    done = "removed" if delete else "would be removed"
    console.print(
        f"{len(report.removed)} versions {done}, {len(report.kept)} kept; {report.objects} files with "
        f"{bytes_text(report.bytes)} {done} now. Files of a removed version go {grace_hours:g} hours later."
    )
    if report.publishing:
        console.print(f"{len(report.publishing)} attempts stopped while publishing; their files are left.")


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


def _judgements_table(report: "GcReport") -> Table:
    table = Table("dataset", "version", "", "why", "size", box=None)
    for outcome, versions in (("goes", report.removed), ("stays", report.kept)):
        for found in versions:
            table.add_row(
                found.dataset, found.version[:12], outcome, Text(clip(found.reason, 80)), bytes_text(found.bytes)
            )
    return table


def _moves_table(moves: "list[Tag]") -> Table:
    table = Table("tag", "move", "version", "by", "at", box=None)
    for move in moves:
        table.add_row(move.tag, str(move.sequence), move.version, Text(clip(move.by, 60)), move.at)
    return table
