"""A Prefect server and a process worker of a test's own, each a process that may be killed and started again.

All of it lives below one folder and on a free port, so that several may be beside each other. Whatever any of it
starts has the server's address in its environment: that is how it is found, listed and ended.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self
from uuid import UUID

from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterParentFlowRunId
from prefect.client.schemas.objects import FlowRun
from prefect.deployments.runner import EntrypointType, RunnerDeployment
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import AwaitingRetry, Cancelling, State
from prefect.workers.process import ProcessWorker

from flows.children import state_of
from flows.server import read_settings
from tasks.processes import free_port

ROOT = Path(__file__).parents[1]
POOL = "stages"


class PrefectStack:
    """The server, its worker, and the clicks of a user."""

    def __init__(self, home: Path, environment: Mapping[str, str] = {}) -> None:
        self.home, self.port = home, free_port()
        self.url = f"http://127.0.0.1:{self.port}/api"
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")},
            **read_settings(),
            "PREFECT_HOME": str(home / "prefect"),
            "PREFECT_API_URL": self.url,
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
            "PYTHONPATH": str(ROOT),
            **environment,
        }

    def __enter__(self) -> Self:
        self.start_server()
        with self.client() as client:
            template = ProcessWorker.get_default_base_job_template()
            client.create_work_pool(WorkPoolCreate(name=POOL, type="process", base_job_template=template))
        self.start_worker()
        return self

    def __exit__(self, *error: object) -> None:
        kill(self.processes())

    def start_server(self) -> None:
        self._start("server", "start", "--host", "127.0.0.1", "--port", str(self.port))
        eventually(self.answers, f"no Prefect server at {self.url}; see {self.home / 'server.log'}")

    def start_worker(self) -> None:
        self._start("worker", "start", "--pool", POOL, "--type", "process")

    def _start(self, *command: str) -> None:
        with (self.home / f"{command[0]}.log").open("ab") as log:
            subprocess.Popen(
                [sys.executable, "-m", "prefect", *command],
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def answers(self) -> bool:
        with self.client() as client:
            return client.api_healthcheck() is None

    @contextmanager
    def client(self) -> Iterator[SyncPrefectClient]:
        with SyncPrefectClient(self.url) as client:
            yield client

    def deploy(self, flow: "Flow[..., Any]", name: str, module: str) -> None:
        """Make `flow/name`, whose runs import the flow from this module."""
        with temporary_settings({PREFECT_API_URL: self.url}):
            deployment = flow.to_deployment(
                name,
                work_pool_name=POOL,
                entrypoint_type=EntrypointType.MODULE_PATH,
                job_variables={"working_dir": str(ROOT)},
            )
            assert isinstance(deployment, RunnerDeployment)
            deployment.entrypoint = f"{module}.{flow.fn.__name__}"
            deployment.apply()

    def start(self, deployment: str, parameters: dict[str, Any]) -> UUID:
        """What a click on Run does."""
        with self.client() as client:
            found = client.read_deployment_by_name(deployment)
            return client.create_flow_run_from_deployment(found.id, parameters=parameters).id

    def retry(self, run: UUID) -> None:
        """What a click on Retry does."""
        self.set_state(run, AwaitingRetry())

    def cancel(self, run: UUID) -> None:
        """What a click on Cancel does."""
        self.set_state(run, Cancelling())

    def set_state(self, run: UUID, state: State[Any]) -> None:
        with self.client() as client:
            client.set_flow_run_state(run, state, force=True)

    def read(self, run: UUID) -> FlowRun:
        with self.client() as client:
            return client.read_flow_run(run)

    def state(self, run: UUID) -> str:
        return state_of(self.read(run)).name or ""

    def finished(self, run: UUID, seconds: float = 180) -> FlowRun:
        """The run, once its state is final."""
        eventually(lambda: state_of(self.read(run)).is_final(), f"run {run} did not end", seconds)
        return self.read(run)

    def children(self, run: UUID) -> dict[str, FlowRun]:
        """The runs of the stages of a run, by the name of their flow."""
        below = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[run]))
        with self.client() as client:
            runs = client.read_flow_runs(flow_run_filter=below, limit=200)
            return {client.read_flow(child.flow_id).name: child for child in runs}

    def processes(self, *words: str) -> dict[int, str]:
        """Living processes of this stack whose command holds all of these words, by pid."""
        mark = f"PREFECT_API_URL={self.url}\0".encode()
        return {pid: command for pid, command in all_processes(mark) if all(word in command for word in words)}

    def processes_of(self, run: UUID) -> dict[int, str]:
        """Those of one flow run, its training and its model's server among them."""
        return dict(all_processes(f"PREFECT__FLOW_RUN_ID={run}\0".encode()))


def all_processes(mark: bytes) -> Iterator[tuple[int, str]]:
    """Living processes whose environment holds this."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended while we looked, or is not ours
            if mark in (folder / "environ").read_bytes() and (command := (folder / "cmdline").read_bytes()):
                yield int(folder.name), command.replace(b"\0", b" ").decode(errors="replace").strip()


def kill(processes: Mapping[int, str]) -> None:
    """`kill -9` of each."""
    for pid in processes:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def eventually(happened: Callable[[], bool], otherwise: str, seconds: float = 120, every: float = 0.2) -> None:
    """Wait until something is so. Raises: TimeoutError: with this text."""
    deadline = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{otherwise} within {seconds:.0f} s")
        time.sleep(every)
