"""A machine as `./solon up` makes it, with some small flows beside Solon's own, and a browser to look at it."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from deployments.automations import TAG
from deployments.deploy import definition, read_file
from tasks.processes import free_port
from tests.browser import small_flows

ROOT = Path(__file__).resolve().parents[2]


class Machine:
    """Where it is, and what is on it."""

    def __init__(self, home: Path, port: int) -> None:
        self.home, self.base = home, f"http://127.0.0.1:{port}"
        self.password = (home / "prefect-password").read_text().strip()

    @contextmanager
    def client(self) -> Iterator[SyncPrefectClient]:
        settings = {PREFECT_API_URL: f"{self.base}/api", PREFECT_API_AUTH_STRING: self.password}
        with temporary_settings(settings), get_client(sync_client=True) as client:
            yield client

    def run(self, run: str) -> FlowRun:
        """What the server knows of a run: looked at, never touched."""
        with self.client() as client:
            return client.read_flow_run(UUID(run))

    def runs_of(self, deployment: str) -> list[FlowRun]:
        with self.client() as client:
            found = client.read_deployment_by_name(deployment)
            return [run for run in client.read_flow_runs(limit=200) if run.deployment_id == found.id]

    def add(self, flow: Flow[..., Any], name: str, pool: str | None) -> dict[str, Any]:
        """A deployment as Solon makes them; gives its default parameters. Without a pool nothing takes its runs."""
        entrypoint = f"{flow.fn.__module__}.{flow.fn.__name__}"
        known = [spec for spec in read_file() if spec["entrypoint"] == entrypoint and spec["name"] == "micro"]
        spec = known[0] if known else {"name": name, "entrypoint": entrypoint, "tags": [TAG]}
        wanted = definition(flow, {**spec, "work_pool": {"name": pool, "work_queue_name": pool and "default"}})
        with self.client() as client:
            flow_id = str(client.create_flow(flow))
            client.request("POST", "/deployments/", json={**wanted, "name": name, "flow_id": flow_id})
        parameters: dict[str, Any] = wanted["parameters"]
        return parameters


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    pages = pytest.importorskip("tests.browser.pages", reason="playwright is not installed", exc_type=ImportError)
    if not pages.CHROMIUM.exists():
        pytest.skip(f"no browser: {pages.CHROMIUM} is not there")
    home, port = tmp_path_factory.mktemp("machine"), free_port()
    solon("up", "--port", str(port), "--home", str(home))
    try:
        found = Machine(home, port)
        for flow in (small_flows.fails_once, small_flows.ticks, small_flows.waits, small_flows.asks):
            found.add(flow, "test", "cpu")
        yield found
    finally:
        solon("down", "--home", str(home))


def solon(*arguments: str) -> None:
    subprocess.run([str(ROOT / "solon"), *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


@pytest.fixture
def pages(machine: Machine) -> Iterator[Any]:
    """Somebody at a browser, logged in; what the page complained about fails the test."""
    from tests.browser.pages import browser

    with browser(machine.base, machine.password) as person:
        yield person


@pytest.fixture
def person(machine: Machine) -> Callable[[str], Any]:
    """Somebody at a browser of a colour scheme."""
    from tests.browser.pages import browser

    return lambda scheme: browser(machine.base, machine.password, scheme)
