"""What the subcommands share: the console, common options, and how JSON is printed."""

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

if TYPE_CHECKING:
    from flows.config import AlignConfig
    from tasks.store import Store

console = Console(width=None if sys.stdout.isatty() else 120)  # a pipe has no width of its own

PresetOption = Annotated[
    list[str] | None,
    typer.Option("--preset", "-p", help="micro (where none is given), small or paper; then others over it, in order."),
]
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


def make_config(
    presets: Sequence[str] | None, file: str | None, settings: list[str] | None, seed: int | None, store: str | None
) -> "AlignConfig":
    """The config of a command's options; without a preset, of the micro one. Raises: ConfigError."""
    from flows.config import load_config

    over = list(settings or [])
    over += [f"run.seed={seed}"] if seed is not None else []
    over += [f"run.store={store}"] if store is not None else []
    return load_config(presets or ["micro"], file, over)
