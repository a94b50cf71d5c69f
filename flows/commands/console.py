"""What the subcommands share: the console, common options, and how JSON is printed."""

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

if TYPE_CHECKING:
    from tasks.store import Store

console = Console(width=None if sys.stdout.isatty() else 120)  # a pipe has no width of its own

PresetOption = Annotated[str, typer.Option("--preset", "-p", help="micro, small or paper.")]
FileOption = Annotated[str | None, typer.Option("--config", "-c", help="YAML file over the preset.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", "-s", help="name=value over both.")]
SeedOption = Annotated[int | None, typer.Option("--seed", help="Seed of the run.")]
StoreOption = Annotated[str | None, typer.Option("--store", help="Folder or s3://bucket/prefix.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


def open_store(uri: str | None) -> "Store":
    """The store at `uri`, or the default one."""
    from tasks.stage import RunContext
    from tasks.store import Store

    return Store.open(uri or RunContext().store)


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    print(json.dumps(value, indent=2, sort_keys=True))
