"""`./solon plan`: what a run would do, why, and what it would take."""

import json
from typing import Annotated

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
    preset: PresetOption = "micro",
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
        rows = [table_row(stage) for stage in made.stages]
        table = Table(*rows[0], title=f"Plan on {made.store}")
        for row in rows:
            table.add_row(*map(str, row.values()))
        console.print(table)
        console.print(summary(made))
    if exit_code and not made.is_fresh:
        raise typer.Exit(WORK_TO_DO)
