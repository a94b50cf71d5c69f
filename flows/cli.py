"""The subcommands of `./solon`. A user's error is a message and an exit code, never a traceback."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.table import Table

from flows.commands.beside import beside
from flows.commands.calibrate import calibrate
from flows.commands.capabilities import capabilities
from flows.commands.console import (
    FileOption,
    PresetOption,
    SeedOption,
    SetOption,
    StoreOption,
    console,
    make_config,
)
from flows.commands.labels import labels_app
from flows.commands.lineage import lineage
from flows.commands.matches import matches_app
from flows.commands.plan import plan
from flows.commands.preflight import preflight
from flows.commands.principles import constitution_app
from flows.commands.stored import datasets_app, doctor
from flows.commands.up import down, up

if TYPE_CHECKING:
    from flows.config import AlignConfig
    from flows.runner import AlignResult

app = typer.Typer(
    help="Constitutional AI as Prefect flows: critique and revision, AI labels, SFT, reward model, PPO.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def run() -> int:
    """Run the command line.

    Returns: 0 done, 1 a run failed, 2 the command or a setting is wrong, 3 `--exit-code` found work or a difference.
    """
    from flows.config import ConfigError
    from tasks.serving import TransientServingError
    from tasks.training.launch import TrainingDied, TrainingLeft

    try:
        app()
    except SystemExit as error:  # how typer ends, with 2 for a wrong command line, which it explains itself
        return int(error.code or 0)
    except ConfigError as error:
        print(f"solon: {error}", file=sys.stderr)
        return 2
    except (TrainingDied, TrainingLeft, TransientServingError) as error:
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
    preset: PresetOption = None,
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
    show_result(run_align(make_config(["micro"], None, settings, seed, store)))


@app.command()
def config(
    preset: PresetOption = None,
    file: FileOption = None,
    settings: SetOption = None,
    seed: SeedOption = None,
    store: StoreOption = None,
) -> None:
    """Print the resolved config as JSON."""
    print(make_config(preset, file, settings, seed, store).model_dump_json(indent=2))


for command in (plan, preflight, lineage, doctor, calibrate, capabilities, beside, up, down):
    app.command()(command)
app.add_typer(constitution_app, name="constitution")
app.add_typer(datasets_app, name="datasets")
app.add_typer(labels_app, name="labels")
app.add_typer(matches_app, name="matches")


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
    from tasks.evaluation.names import ALL_POLICIES
    from tasks.report.policies import results

    metrics = [m for m in metrics if m.policy != ALL_POLICIES]
    policies = results(list(dict.fromkeys(m.policy for m in metrics)))
    cells = {(m.measure, m.judge, m.group, m.policy): m for m in metrics}
    table = Table("measure", "prompts", *policies, "n", title="Held-out prompts, 95 % bootstrap intervals")
    for measure, judge, group in dict.fromkeys((m.measure, m.judge, m.group) for m in metrics):
        found = [cells.get((measure, judge, group, p)) for p in policies]
        counts = dict.fromkeys(str(m.num_samples) for m in found if m)
        name = f"{measure}, {judge}" if judge else measure
        table.add_row(name.replace("_", " "), group, *map(figure, found), ", ".join(counts))
    return table


def figure(m: Any) -> str:
    """Value and interval: Elo and lengths to one, shares to a thousandth."""
    if m is None:
        return "–"
    if m.judge or m.measure == "num_tokens":
        return f"{m.value:.0f} [{m.low:.0f}, {m.high:.0f}]"
    return f"{m.value:.3f} [{m.low:.2f}, {m.high:.2f}]"


def stages_table(result: "AlignResult") -> Table:
    table = Table("stage", "result", "rows", "how they ended", "seconds", title="Stages")
    for s in result.stages:
        statuses = ", ".join(f"{key} {count}" for key, count in sorted(s.statuses.items()))
        seconds = "reused" if s.reused else f"{s.seconds:.1f}"
        table.add_row(s.stage, f"{s.dataset} {s.version[:12]}", str(s.rows or ""), statuses, seconds)
    return table
