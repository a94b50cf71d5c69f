"""The subcommands of `./solon`. A user's error is a message and an exit code, never a traceback."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from flows.config import AlignConfig
    from flows.runner import AlignResult

app = typer.Typer(
    help="Constitutional AI as Prefect flows: critique and revision, AI labels, SFT, reward model, PPO.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
constitution_app = typer.Typer(help="Read and check constitutions.", no_args_is_help=True)
datasets_app = typer.Typer(help="What the store holds.", no_args_is_help=True)
app.add_typer(constitution_app, name="constitution")
app.add_typer(datasets_app, name="datasets")
console = Console(width=None if sys.stdout.isatty() else 120)  # a pipe has no width of its own

PresetOption = Annotated[str, typer.Option("--preset", "-p", help="micro, small or paper.")]
FileOption = Annotated[str | None, typer.Option("--config", "-c", help="YAML file over the preset.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", "-s", help="name=value over both.")]
SeedOption = Annotated[int | None, typer.Option("--seed", help="Seed of the run.")]
StoreOption = Annotated[str | None, typer.Option("--store", help="Folder or s3://bucket/prefix.")]


def run() -> int:
    """Run the command line.

    Returns: 0 done, 1 a run failed, 2 the command or a setting is wrong.
    """
    from flows.config import ConfigError
    from tasks.serving import TransientServingError
    from tasks.training.launch import TrainingDied

    try:
        app()
    except SystemExit as error:  # how typer ends, with 2 for a wrong command line, which it explains itself
        return int(error.code or 0)
    except ConfigError as error:
        print(f"solon: {error}", file=sys.stderr)
        return 2
    except (TrainingDied, TransientServingError) as error:
        print(f"solon: {error}\nsolon: what was finished is kept; run the same command again", file=sys.stderr)
        return 1
    except (ValueError, OSError) as error:  # what users can cause: bad input, an unusable store, no such model
        print(f"solon: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("solon: stopped; what was finished is kept, run again to go on", file=sys.stderr)
        return 130
    return 0


@app.command()
def align(
    preset: PresetOption = "micro",
    config: FileOption = None,
    settings: SetOption = None,
    seed: SeedOption = None,
    store: StoreOption = None,
) -> None:
    """Run the whole alignment; what the store has already is reused."""
    show_result(run_align(make_config(preset, config, settings, seed, store)))


@app.command()
def demo(seed: SeedOption = 0, store: StoreOption = None, settings: SetOption = None) -> None:
    """Align the micro model on this machine and show what became of it."""
    show_result(run_align(make_config("micro", None, settings, seed, store)))


@app.command()
def config(
    preset: PresetOption = "micro",
    file: FileOption = None,
    settings: SetOption = None,
    seed: SeedOption = None,
    store: StoreOption = None,
) -> None:
    """Print the resolved config as JSON."""
    print(make_config(preset, file, settings, seed, store).model_dump_json(indent=2))


@constitution_app.command("check")
def check_constitution(path: str) -> None:
    """Read a constitution; print its hash and principles, or what is wrong with it."""
    from constitutions import load_constitution

    constitution = load_constitution(path)
    table = Table(title=f"{constitution.id}  {constitution.hash[:12]}")
    for column in ("principle", "cluster", "weight", "critique", "comparison", "hash"):
        table.add_column(column)
    for p in constitution.principles:
        phases = ["yes" if text else "" for text in (p.critique_request, p.comparison_question)]
        table.add_row(p.id, p.cluster, f"{p.weight:g}", *phases, p.hash[:12])
    console.print(table)


@datasets_app.command("ls")
def list_datasets(store: StoreOption = None) -> None:
    """List every committed version with its rows and how they ended."""
    from tasks.stage import RunContext
    from tasks.store import Store

    opened = Store.open(store or RunContext().store)
    table = Table("dataset", "version", "rows", "statuses", "seconds")
    for name in opened.datasets():
        for manifest in opened.versions(name):
            statuses = ", ".join(f"{key} {count}" for key, count in sorted(manifest.statuses.items()))
            seconds = f"{manifest.cost.get('seconds', 0):.1f}"
            table.add_row(name, manifest.version, str(manifest.rows or ""), statuses, seconds)
    console.print(table)


def make_config(
    preset: str, file: str | None, settings: list[str] | None, seed: int | None, store: str | None
) -> "AlignConfig":
    from flows.config import load_config

    over = list(settings or [])
    over += [f"run.seed={seed}"] if seed is not None else []
    over += [f"run.store={store}"] if store is not None else []
    return load_config(preset, file, over)


def run_align(config: "AlignConfig") -> "AlignResult":
    """The flow under a Prefect server: the configured one, or a private one for the length of the run."""
    from flows.server import prefect_server

    started = time.monotonic()
    with prefect_server() as url:
        print(f"Prefect: {url.removesuffix('/api')} (progress and artifacts, while the run goes on)", flush=True)
        from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

        from flows.align import align as align_flow

        # a run in this process needs no heartbeat, whose thread costs each stage a second
        with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
            result: AlignResult = align_flow(config)
    print(f"\nwhole run: {time.monotonic() - started:.0f} s")
    return result


def show_result(result: "AlignResult") -> None:
    """The figures, the time of each stage, and where the report is."""
    from tasks.schema import Metric
    from tasks.store import Store
    from tasks.store.identity import table_to_rows

    store = Store.open(result.store)
    console.print(figures_table(table_to_rows(store.read(result.metrics), Metric)))
    console.print(stages_table(result))
    print(f"report: {Path(result.report_path)}")


def figures_table(metrics: list[Any]) -> Table:
    """Measures down, policies across, each with its 95 % interval."""
    policies = list(dict.fromkeys(m.policy for m in metrics))
    cells = {(m.measure, m.group, m.policy): m for m in metrics}
    table = Table("measure", "prompts", *policies, "n", title="Held-out prompts, 95 % bootstrap intervals")
    for measure, group in dict.fromkeys((m.measure, m.group) for m in metrics):
        found = [cells[measure, group, p] for p in policies]
        shown = [f"{m.value:.3f} [{m.low:.2f}, {m.high:.2f}]" for m in found]
        table.add_row(measure.replace("_", " "), group, *shown, str(found[0].num_samples))
    return table


def stages_table(result: "AlignResult") -> Table:
    table = Table("stage", "result", "rows", "how they ended", "seconds", title="Stages")
    for s in result.stages:
        statuses = ", ".join(f"{key} {count}" for key, count in sorted(s.statuses.items()))
        seconds = "reused" if s.reused else f"{s.seconds:.1f}"
        table.add_row(s.stage, f"{s.dataset} {s.version[:12]}", str(s.rows or ""), statuses, seconds)
    return table
