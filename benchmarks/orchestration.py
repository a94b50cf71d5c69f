"""What Prefect costs: the micro run by plain calls, as a flow under a server, and through deployments.

    python -m benchmarks.orchestration            # the micro run, three times each way: most of an hour on two cores
    python -m benchmarks.orchestration --small    # cut down to seconds of work, where what Prefect adds shows most

The baseline is the method called as plain functions. Each run has a process, with its imports, and a store of its own.
The ways take turns, so that a machine that slows down strikes them alike. Beside them: what a stage costs that finds
its result made, and what server and workers hold in memory while nothing runs.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from flows.server import ROOT, apply_settings

apply_settings()  # before anything imports Prefect

from benchmarks.plain_calls import align_plainly  # noqa: E402
from deployments import machine  # noqa: E402
from flows.cli import run_align  # noqa: E402
from flows.config import AlignConfig, load_config  # noqa: E402
from tasks.collect import PromptsStage  # noqa: E402
from tasks.detached import marked  # noqa: E402
from tasks.processes import free_port  # noqa: E402
from tasks.schema import Frozen  # noqa: E402
from tasks.store import Store  # noqa: E402

SMALL = [
    "run.serving.engine=transformers",
    "prompts.red_team_limit=12",
    "prompts.helpful_limit=6",
    "prompts.held_out_limit=12",
    "preferences.human_limit=12",
    "revise.num_rounds=2",
    "reward.second_model_share=0",
    "reward.epochs=1",
    "rl.ppo.num_updates=2",
    "rl.ppo.batch_size=16",
    "rl.ppo.mini_batch_size=8",
    "rl.ppo.micro_batch_size=8",
    "gates.on_failure=warn",  # so few rows decide nothing
]
POLL_SECONDS = 0.2
BASELINE = "plain calls"


class Bench:
    """A machine that is up, and the ways to run a config on it."""

    def __init__(self, folder: Path, settings: list[str]) -> None:
        self.folder, self.settings = folder, settings
        self.home = folder / "home"
        self.env = machine.environment(self.home, machine.up(self.home, free_port()).url)
        self.num_runs = 0
        self.ways: dict[str, Callable[[], float]] = {
            BASELINE: lambda: self.process("plain"),
            "flow under a server": lambda: self.process("flow"),
            "deployment, stages in its process": lambda: self.deployment("inline"),
            "deployment, stages as their own runs": lambda: self.deployment("deployments"),
        }

    def config(self, *settings: str) -> AlignConfig:
        """The same work as ever, on a store that is empty."""
        self.num_runs += 1
        store = f"run.store={self.folder / f'store-{self.num_runs}'}"
        return load_config(["micro"], None, [*self.settings, *settings, store])

    def process(self, way: str) -> float:
        """Wall seconds of a process of its own, from its start to its end."""
        path = self.folder / "config.json"
        path.write_text(self.config().model_dump_json())
        command = [sys.executable, "-m", "benchmarks.orchestration", "--one", way, "--config", str(path)]
        started = time.monotonic()
        ended = subprocess.run(command, env=self.env, cwd=ROOT, capture_output=True, text=True, check=False)
        if ended.returncode:
            raise SystemExit(f"{way} failed with exit code {ended.returncode}\n{ended.stderr}")
        return time.monotonic() - started

    def deployment(self, executor: str) -> float:
        """Wall seconds of `align/micro`, from the click to the final state."""
        return self.run("align/micro", {"config": as_json(self.config(f"run.executor={executor}"))})[0]

    def run(self, deployment: str, parameters: dict[str, Any]) -> tuple[float, float]:
        """Seconds from the click to the end, and of them until the flow's first line."""
        started = time.monotonic()
        with machine.client_of(self.env) as client:
            found = client.read_deployment_by_name(deployment)
            run = client.create_flow_run_from_deployment(found.id, parameters=parameters)
            while not (state := run.state) or not state.is_final():
                time.sleep(POLL_SECONDS)
                run = client.read_flow_run(run.id)
        seconds = time.monotonic() - started
        assert run.start_time and run.created and state.is_completed(), f"{deployment}: {state}"
        return seconds, (run.start_time - run.created).total_seconds()

    def empty_stages(self, repeats: int) -> None:
        """What a stage costs whose result is there: looked up, as a subflow, and as a deployment's run."""
        config = self.config()
        stage = PromptsStage(run=config.run, config=config.prompts)
        parameters = {"stage": as_json(stage)}
        self.run("prompts/stage", parameters)
        runs = [self.run("prompts/stage", parameters) for _ in range(repeats)]
        seconds, start = (median(column) for column in zip(*runs, strict=True))
        looked_up = median(seconds_of(lambda: stage.result(Store.open(config.run.store))) for _ in range(repeats))
        print(f"\na stage whose result is there, median of {repeats}")
        print(f"{'looked up in the store':38}{looked_up:8.3f} s")
        print(f"{'as a run of its deployment':38}{seconds:8.3f} s, of them {start:.3f} s until its first line")


def main() -> None:
    options = arguments()
    if options.one:
        ONE[options.one](AlignConfig.model_validate_json(Path(options.config).read_text()))
        return
    settings = [*(SMALL if options.small else []), *options.settings]
    print(describe_machine(), flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch) / "home"
        try:
            bench = Bench(Path(scratch), settings)
            show_memory(home, options.idle_seconds)
            show_ways(bench, options.repeats, options.ways or list(bench.ways))
            bench.empty_stages(max(options.repeats, 3))
        finally:
            machine.down(home)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="seconds of work instead of minutes")
    parser.add_argument("--repeats", type=int, default=3, help="runs each way")
    parser.add_argument("--ways", nargs="*", help="only these, by name")
    parser.add_argument("--set", action="append", default=[], dest="settings", help="name=value over the preset")
    parser.add_argument("--idle-seconds", type=float, default=30, help="until server and workers are at rest")
    parser.add_argument("--one", choices=list(ONE), help=argparse.SUPPRESS)
    parser.add_argument("--config", help=argparse.SUPPRESS)
    return parser.parse_args()


def show_ways(bench: Bench, repeats: int, names: list[str]) -> None:
    """Each way's median and range, beside the first one's median."""
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(repeats):
        for name in names:
            seconds[name].append(bench.ways[name]())
    baseline = median(seconds[names[0]])
    print(f"\nthe run, median of {repeats}, against {names[0]}")
    for name, taken in seconds.items():
        middle = median(taken)
        low, high = min(taken), max(taken)
        added = f"  {middle / baseline:.2f} x, {middle - baseline:+.1f} s"
        print(f"{name:38}{middle:8.1f} s ({low:.1f} to {high:.1f}){added}", flush=True)


def show_memory(home: Path, idle_seconds: float) -> None:
    """What the processes of a machine hold while nothing runs; PSS counts what they share once."""
    time.sleep(idle_seconds)
    names = {process.pid: name for name, process in machine.read(home).processes.items()}
    sums: dict[str, list[float]] = {}
    for process in marked(str(home)):
        used = process.memory_full_info()
        row = sums.setdefault(names.get(process.pid, "beside them"), [0.0, 0.0])
        row[0] += used.rss / 1e6
        row[1] += used.pss / 1e6
    print(f"\nidle memory after {idle_seconds:g} s, MB{'RSS':>13}{'PSS':>8}")
    for name, (rss, pss) in {**sums, "together": [sum(column) for column in zip(*sums.values(), strict=True)]}.items():
        print(f"{name:31}{rss:8.0f}{pss:8.0f}")


ONE: dict[str, Callable[[AlignConfig], object]] = {"plain": align_plainly, "flow": run_align}
"""What a process of its own runs; `run_align` is what `./solon align` does."""


def seconds_of(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


def as_json(value: Frozen) -> dict[str, Any]:
    return value.model_dump(mode="json", exclude_none=True)


def describe_machine() -> str:
    cpus = [line.partition(":")[2] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    memory = psutil.virtual_memory().total / 1e9
    return (
        f"{os.cpu_count()} CPUs ({cpus[0].strip() if cpus else 'unnamed'}), {memory:.0f} GB, load "
        f"{os.getloadavg()[0]:.1f}, {platform.system()}, Python {platform.python_version()}"
    )


if __name__ == "__main__":
    main()
