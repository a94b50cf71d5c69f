"""What a user sees when processes die under an alignment: `python -m tests.faults.orchestration --engine vllm`.

A real server and worker run an alignment whose stages are runs of their own. In the middle of a stage one process is
ended by `kill -9`, or the run is cancelled, or a second one starts; then follows what a user does: a Retry, a start of
what died, nothing. The run must complete, with the content it has without all this, no row generated twice and no
process left over. Prints a line for each; exit code 1 where one is not as it must be.
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow.parquet as pq
from prefect.states import Crashed

from flows.align import align
from flows.artifacts.progress import TRAININGS
from flows.children import SETTLED, STAGE_DEPLOYMENT, ended_badly, state_of
from flows.config import AlignConfig, load_config
from flows.stages import FLOWS
from tasks.store import Store
from tests.aligned import small_config
from tests.faults import held
from tests.prefect_stack import PrefectStack, eventually, kill

GONE_SECONDS = 30.0
"""After so long, nothing of a cancelled run may live."""
HOOKS = "_workspace_runtime_bootstrap"
"""Prefect's worker starts a process to look for hooks after each cancelled or crashed run: not a run's own."""
MOST_RETRIES = 2
"""A worker on a busy machine may report a crash a second time when the run has been retried already."""
HEAD = (
    f"{'event':<22} {'run then':<12} {'stage then':<12} {'gone':>5}  {'what a user did':<20} {'end':<10} "
    "starts  twice  left  same  seconds"
)


@dataclass(frozen=True)
class Case:
    """An alignment and the stage in whose middle something happens."""

    deployment: str
    config: AlignConfig
    stage: str
    dataset: str

    def in_store(self, folder: Path) -> "Case":
        """The same with another store: what the stage makes is not in it, what comes after is, if it will do."""
        shutil.copytree(self.config.run.store, folder, ignore=shutil.ignore_patterns(*self.dataset.split("/")[-1:]))
        context = self.config.run.model_copy(update={"store": str(folder)})
        return replace(self, config=self.config.model_copy(update={"run": context}))

    @property
    def parameters(self) -> dict[str, Any]:
        return {"config": self.config.model_dump(mode="json", exclude_none=True)}

    def content(self) -> list[str]:
        """Content hashes of what the stage has made."""
        store = Store.open(self.config.run.store)
        return [manifest.content_hash for manifest in store.versions(self.dataset)]

    def rows_made_twice(self) -> int:
        """Rows that some chunk holds and another one too."""
        files = Path(self.config.run.store, "v1", "datasets", self.dataset, "chunks").glob("*/*.parquet")
        keys = [key for file in files for key in pq.read_table(file, columns=["reuse_key"])["reuse_key"].to_pylist()]
        return len(keys) - len(set(keys))


@dataclass
class Line:
    """What came of one event."""

    event: str
    run: str = ""
    """State of the run after the event, before anybody did anything."""
    stage: str = ""
    gone: float | None = None
    """Seconds until no process of a cancelled run was left."""
    did: str = "nothing"
    end: str = ""
    starts: int = 0
    """How often the stage's run was started."""
    twice: int = 0
    left: int = 0
    same: bool = False
    seconds: float = 0.0

    @property
    def is_well(self) -> bool:
        is_gone = self.gone is None or self.gone <= GONE_SECONDS
        return self.end == "Completed" and not self.twice and not self.left and self.same and is_gone

    def __str__(self) -> str:
        gone = "" if self.gone is None else f"{self.gone:.1f}"
        told = f"{self.event:<22} {self.run:<12} {self.stage:<12} {gone:>5}  {self.did:<20} {self.end:<10}"
        return f"{told} {self.starts:6} {self.twice:6} {self.left:5}  {self.same!s:<5} {self.seconds:7.1f}"


class Trial:
    """One run of a case, held in the middle of its stage."""

    def __init__(self, stack: PrefectStack, case: Case, event: str) -> None:
        self.stack, self.case, self.line = stack, case, Line(event)
        self.orders = Path(stack.environment[held.ORDERS])
        self.order("hold")
        self.run = stack.start(case.deployment, case.parameters)
        eventually(self.is_in_stage, f"{case.stage} was not reached", 600)
        self.child = stack.children(self.run)[case.stage].id
        self.started = time.monotonic()

    def order(self, what: str) -> None:
        (self.orders / f"held-{self.case.stage}").unlink(missing_ok=True)
        (self.orders / f"{what}-{self.case.stage}").touch()

    def let_go(self) -> None:
        for order in self.orders.iterdir():
            order.unlink()

    def is_in_stage(self) -> bool:
        assert not state_of(self.stack.read(self.run)).is_final(), self.stack.read(self.run).state
        if self.case.stage not in TRAININGS:
            return (self.orders / f"held-{self.case.stage}").exists()
        child = self.stack.children(self.run).get(self.case.stage)
        return child is not None and any("training.child" in word for word in self.processes(child.id).values())

    def processes(self, *runs: UUID) -> dict[int, str]:
        """Living processes of these runs; of this one and all its stages by default."""
        children = [child.id for child in self.stack.children(self.run).values()]
        found = [self.stack.processes_of(run) for run in runs or (self.run, *children)]
        return {pid: command for one in found for pid, command in one.items() if HOOKS not in command}

    def kill(self, run: UUID, word: str = "prefect.engine") -> None:
        """`kill -9` of the run's process whose command holds this word; a guard's does too, and lives."""
        kill({p: c for p, c in self.processes(run).items() if word in c and "tasks/processes.py" not in c})

    def settle(self, *runs: UUID) -> None:
        """Wait until these runs are seen to have ended, and note how."""
        for run in runs:
            self.stack.finished(run)
        self.line.run, self.line.stage = self.stack.state(self.run), self.stack.state(self.child)

    def complete(self, did: str = "") -> Line:
        """Let the stage go on, press Retry where the run ended badly, and look at what came of all."""
        self.let_go()
        line, deeds = self.line, [did] if did else []
        while ended_badly(ended := self.stack.finished(self.run, 600)) and deeds.count("Retry") < MOST_RETRIES:
            time.sleep(SETTLED.total_seconds())
            if ended_badly(self.stack.read(self.run)):
                self.stack.retry(self.run)
                deeds.append("Retry")
        line.seconds, line.end, line.did = time.monotonic() - self.started, state_of(ended).name or "", ", ".join(deeds)
        eventually_gone(self.processes)
        line.left, line.twice = len(self.processes()), self.case.rows_made_twice()
        line.starts = self.stack.children(self.run)[self.case.stage].run_count
        return line


def eventually_gone(processes: Callable[[], dict[int, str]], seconds: float = 60) -> float:
    """Seconds until there were none of these; more than `seconds` where some stay."""
    started = time.monotonic()
    while processes() and time.monotonic() - started <= seconds:
        time.sleep(0.2)
    return time.monotonic() - started


def parent_killed(trial: Trial) -> Line:
    trial.kill(trial.run)
    trial.settle(trial.run)
    return trial.complete()


def stage_killed(trial: Trial) -> Line:
    trial.kill(trial.child)
    trial.settle(trial.child, trial.run)
    return trial.complete()


def model_server_killed(trial: Trial) -> Line:
    trial.kill(trial.child, "vllm.entrypoints")
    trial.settle()
    return trial.complete()


def worker_killed(trial: Trial) -> Line:
    kill(trial.stack.processes("worker start"))
    trial.settle()
    trial.stack.start_worker()
    return trial.complete("worker started")


def server_killed(trial: Trial) -> Line:
    """The stage ends its work without a server."""
    trial.settle()
    kill(trial.stack.processes("server start"))
    trial.let_go()
    eventually(lambda: bool(trial.case.content()), "the stage committed nothing without a server", 600)
    trial.stack.start_server()
    return trial.complete("server started")


def cancelled(trial: Trial) -> Line:
    trial.stack.cancel(trial.run)
    trial.line.gone = eventually_gone(trial.processes)
    trial.settle(trial.run, trial.child)
    return trial.complete()


def cancelled_without_worker(trial: Trial) -> Line:
    kill(trial.stack.processes("worker start"))
    trial.stack.cancel(trial.run)
    trial.line.gone = eventually_gone(trial.processes)
    trial.settle(trial.run, trial.child)
    trial.stack.start_worker()
    return trial.complete("worker started")


def declared_crashed(trial: Trial) -> Line:
    """As by an automation that heard no heartbeat, though the process lives."""
    trial.stack.set_state(trial.child, Crashed(message="no heartbeat"))
    trial.line.gone = eventually_gone(lambda: trial.processes(trial.child))
    trial.settle(trial.child, trial.run)
    return trial.complete()


def second_run(trial: Trial) -> Line:
    """One that wants the same starts meanwhile: it waits, and takes what the first makes."""
    other = trial.stack.start(trial.case.deployment, trial.case.parameters)
    eventually(lambda: trial.case.stage in trial.stack.children(other), "the second run does not get there", 600)
    trial.settle()
    line = trial.complete()
    assert state_of(trial.stack.finished(other)).is_completed(), trial.stack.read(other).state
    line.twice = trial.case.rows_made_twice()
    return line


EVENTS: dict[str, Callable[[Trial], Line]] = {
    "kill -9 run": parent_killed,
    "kill -9 stage": stage_killed,
    "kill -9 worker": worker_killed,
    "kill -9 vLLM": model_server_killed,
    "kill -9 server": server_killed,
    "cancel": cancelled,
    "cancel, no worker": cancelled_without_worker,
    "declared crashed": declared_crashed,
    "second run": second_run,
}


def play(stack: PrefectStack, case: Case, event: str, folder: Path) -> Line:
    """Let the event happen to a run of the case, whose store has been made once without it."""
    expected, again = case.content(), case.in_store(folder)
    line = EVENTS[event](Trial(stack, again, event))
    line.same = again.content() == expected
    return line


@contextmanager
def stack_with_stages(home: Path) -> Iterator[PrefectStack]:
    """A server, a worker and all deployments, whose stages take orders."""
    orders = home / "orders"
    orders.mkdir(parents=True)
    with PrefectStack(home, {held.ORDERS: str(orders)}) as stack:
        for flow in FLOWS.values():
            stack.deploy(flow, STAGE_DEPLOYMENT, held.__name__)
        stack.deploy(held.begin, "test", held.__name__)
        stack.deploy(align, "test", held.__name__)
        yield stack


def make_once(stack: PrefectStack, case: Case) -> Case:
    """Run the case to its end, without anything happening to it."""
    run = stack.finished(stack.start(case.deployment, case.parameters), 3600)
    assert state_of(run).is_completed(), run.state
    return case


def small_case(folder: Path) -> Case:
    """The first four stages, in seconds and without vLLM."""
    config = small_config(folder, "run.executor=deployments")
    return Case("begin/test", config, "respond", "completions")


def micro_cases(folder: Path) -> list[Case]:
    """The whole micro alignment with vLLM: something happens in `revise`, then in `rl`."""
    config = load_config(["micro"], None, [f"run.store={folder / 'store'}", "run.executor=deployments"])
    datasets = {"revise": "revisions", "rl": "models/rl"}
    return [Case("align/test", config, stage, dataset) for stage, dataset in datasets.items()]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.orchestration", description=__doc__)
    parser.add_argument("--engine", choices=["transformers", "vllm"], default="transformers")
    parser.add_argument("--only", default="", help="only events that hold this word")
    options = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory(prefix="solon-faults-") as name, stack_with_stages(Path(name)) as stack:
        cases = [small_case(Path(name))] if options.engine == "transformers" else micro_cases(Path(name))
        make_once(stack, cases[0])
        print(HEAD, flush=True)
        for number, (case, event) in enumerate((case, event) for case in cases for event in EVENTS):
            has_server = options.engine == "vllm" and case.stage not in TRAININGS
            if options.only in event and (has_server or "vLLM" not in event):
                line = play(stack, case, event, Path(name, str(number)))
                line.event = f"{case.stage}: {event}"
                print(line, flush=True)
                failed += not line.is_well
    print(f"{failed} not as they must be" if failed else "all as they must be")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
