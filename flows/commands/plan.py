"""`./solon plan`: what a run would do, why, and what it would take."""

import json
from typing import Annotated, Any

import typer
from rich.table import Table

from flows.commands.console import (
    FileOption,
    JsonOption,
    PresetOption,
    SeedOption,
    SetOption,
    StoreOption,
    console,
    make_config,
    print_json,
)

WORK_TO_DO = 3

ExitCodeOption = Annotated[bool, typer.Option("--exit-code", help=f"End with {WORK_TO_DO} if there is work to do.")]


def plan(
    preset: PresetOption = None,
    config: FileOption = None,
    settings: SetOption = None,
    seed: SeedOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
    exit_code: ExitCodeOption = False,
) -> None:
    """Say which stages a run would make, why, how many rows, and what it would take; make nothing."""
    from flows.plan import make_plan, summary, table_row

    made = make_plan(make_config(preset, config, settings, seed, store))
    if as_json:
        totals = {"fresh": made.is_fresh, "rows_to_make": made.rows_to_make, "seconds": made.seconds}
        print_json(json.loads(made.model_dump_json()) | totals | {"gpu_hours": made.gpu_hours})
    else:
        console.print(plan_table([table_row(stage) for stage in made.stages], f"Plan on {made.store}"))
        console.print(summary(made))
    if exit_code and not made.is_fresh:
        raise typer.Exit(WORK_TO_DO)


def plan_table(rows: list[dict[str, Any]], title: str) -> Table:
    """The rows as a table, without the columns that say nothing."""
    columns = [name for name in rows[0] if any(row[name] != "" for row in rows)]
    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*(str(row[name]) for name in columns))
    return table
