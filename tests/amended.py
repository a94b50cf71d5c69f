"""Deployments that follow constitutions, and what a user, an editor and a worker do to them."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.deployments.runner import EntrypointType
from prefect.events import DeploymentEventTrigger
from prefect.exceptions import Pause
from prefect.flow_engine import run_flow
from prefect.settings import PREFECT_API_URL, temporary_settings

from constitutions import Constitution, load_constitution
from deployments.deploy import read_file
from flows.changes import announce, event_of
from flows.constitution_changed import AmendmentConfig, Change, constitution_changed, subject_of
from tasks.decisions import Subject
from tasks.publish import Published, publish
from tasks.store import Store
from tests.aligned import small_config
from tests.prefect_stack import ROOT, eventually

CHANGED = "constitution-changed"


class Town:
    """One store, and on the configured server its deployments `constitution-changed/NAME` and `align/NAME`."""

    def __init__(self, folder: Path, name: str, module: str, pool: str | None = None, **settings: Any) -> None:
        """`module` has the flow `align`; `settings` are those of AmendmentConfig."""
        self.folder, self.name = folder, name
        self.config = small_config(folder)
        self.store = Store.open(self.config.run.store, cache=folder / "cache")
        given = AmendmentConfig(align=self.config, **settings).model_dump(mode="json", exclude_none=True)
        self.given = {"change": Change().model_dump(), "config": given}
        self.flows: dict[UUID, Flow[..., Any]] = {}
        self.align = self._deploy(import_module(module).align, f"{module}.align", pool, {})
        entrypoint = "flows.constitution_changed.constitution_changed"
        self.changed = self._deploy(constitution_changed, entrypoint, pool, self.given)

    def _deploy(self, flow: Flow[..., Any], entrypoint: str, pool: str | None, parameters: dict[str, Any]) -> UUID:
        made = flow.to_deployment(
            self.name,
            work_pool_name=pool,
            entrypoint_type=EntrypointType.MODULE_PATH,
            job_variables={"working_dir": str(ROOT)} if pool else None,
        )
        made.entrypoint = entrypoint
        deployment = made.apply()
        assert isinstance(deployment, UUID)
        with get_client(sync_client=True) as client:
            client.update_deployment(deployment, DeploymentUpdate(parameters=parameters))
        self.flows[deployment] = flow
        return deployment

    def listen(self) -> None:
        """Let events start the flow, as prefect.yaml says."""
        trigger = next(s for s in read_file() if s["entrypoint"].endswith("constitution_changed"))["triggers"][0]
        automation = DeploymentEventTrigger(**{**trigger, "name": f"listen {self.name}"})
        automation.set_deployment_id(self.changed)
        with get_client(sync_client=True) as client:
            client.create_automation(automation.as_automation())

    def publish(self, constitution: Constitution) -> Published:
        return publish(self.store, constitution, "anna")

    def announce(self, published: Published, **other: Any) -> None:
        """The event of a move, with these fields in the place of its own."""
        announce(event_of(published, self.store.uri) | other)

    def start(self, published: Published | None = None, **settings: Any) -> UUID:
        """What an event of this move does, or the schedule where there is none."""
        change = Change()
        if published:
            change = Change(constitution=published.constitution.id, sequence=published.move.sequence)
        given = {"change": change.model_dump(), "config": {**self.given["config"], **settings}}
        with get_client(sync_client=True) as client:
            return client.create_flow_run_from_deployment(self.changed, parameters=given).id

    def subject(self, published: Published) -> Subject:
        return subject_of(published, self.config)

    def runs(self, deployment: UUID, *states: StateType) -> list[FlowRun]:
        """The runs of a deployment in these states, or in any, oldest first."""
        wanted = FlowRunFilter(
            deployment_id=FlowRunFilterDeploymentId(any_=[deployment]),
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(states))) if states else None,
        )
        with get_client(sync_client=True) as client:
            return sorted(client.read_flow_runs(flow_run_filter=wanted, limit=200), key=lambda run: str(run.created))

    def aligned(self, published: Published) -> list[FlowRun]:
        """The runs of `align` that follow this move."""
        return [run for run in self.runs(self.align) if run.idempotency_key == self.subject(published).key]

    def changes(self, constitution: str) -> list[FlowRun]:
        """The runs that took a move of this constitution in hand."""
        return [run for run in self.runs(self.changed) if run.name.startswith(f"{constitution} move ")]

    def reaches(self, run: UUID, state: str, seconds: float = 300) -> FlowRun:
        eventually(lambda: state_name(run) == state, f"the run did not become {state}", seconds)
        return read(run)

    def asked(self, run: UUID) -> None:
        """Wait for the form, which Prefect keeps a moment after it has suspended the run."""
        self.reaches(run, "Suspended")
        eventually(lambda: self.form(run) != "", "there was no form")

    def form(self, run: UUID) -> str:
        """The text above the newest form; empty where there is none yet."""
        found = read(run).state.state_details.run_input_keyset
        with get_client(sync_client=True) as client:
            body = {"prefix": "suspended", "limit": 100}
            inputs = client.request("POST", f"/flow_runs/{run}/input/filter", json=body).json()
        return "".join(entry["value"] for entry in inputs if found and entry["key"] == found["description"])

    def answer(self, run: UUID, **fields: str) -> dict[str, Any]:
        """What the form's button does: its status and reason."""
        with get_client(sync_client=True) as client:
            return dict(client.request("POST", f"/flow_runs/{run}/resume", json={"run_input": fields}).json())

    def artifact(self, run: UUID, key: str) -> Any:
        """The newest artifact of this key of a run; None where there is none."""
        wanted = {"flow_run_id": {"any_": [str(run)]}, "key": {"any_": [key]}}
        with get_client(sync_client=True) as client:
            body = {"artifacts": wanted, "sort": "CREATED_DESC"}
            found = client.request("POST", "/artifacts/filter", json=body).json()
        return found[0] if found else None


def read(run: UUID) -> FlowRun:
    with get_client(sync_client=True) as client:
        return client.read_flow_run(run)


def state_name(run: UUID) -> str:
    state = read(run).state
    return state.name if state else ""


@contextmanager
def worker(town: Town) -> Iterator[None]:
    """Executes the runs of a town that are due, in threads: processes would only cost their start."""
    url, stopped, busy = PREFECT_API_URL.value(), threading.Event(), dict[UUID, threading.Thread]()

    def execute(run: FlowRun) -> None:
        flow = town.flows[run.deployment_id]
        with temporary_settings({PREFECT_API_URL: url}):
            try:
                run_flow(flow, flow_run=run, parameters=flow.validate_parameters(run.parameters), return_type="state")
            except Pause:
                return  # suspended: somebody's answer makes it due once more

    def work() -> None:
        with temporary_settings({PREFECT_API_URL: url}):
            while not stopped.wait(0.3):
                due = [run for deployment in town.flows for run in town.runs(deployment, StateType.SCHEDULED)]
                for run in [run for run in due if run.id not in busy or not busy[run.id].is_alive()]:
                    busy[run.id] = threading.Thread(target=execute, args=(run,), daemon=True)
                    busy[run.id].start()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def amended(name: str, text: str = "") -> Constitution:
    """The micro constitution under another id, its first principle's question with some words more."""
    micro = load_constitution("constitutions/micro.yaml")
    first, *rest = micro.principles
    question = f"{first.comparison_question} {text}".strip()
    changed = first.model_copy(update={"comparison_question": question})
    return micro.model_copy(update={"id": name, "principles": (changed, *rest)})
