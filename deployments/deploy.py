"""Puts everything of `prefect.yaml` on a server, with the triggers and automations. Again is harmless.

Prefect's own `prefect deploy` deletes the schedules that were made in the UI, and leaves unknown parameters to crash
the worker. So deployments are made here: each with the preset of its name as default config, a schema that refuses
unknown parameters, the schedules that it has already, and a version by which an unchanged one is left alone.

    python -m deployments.deploy                      pools of type process, as `make up` has them
    python -m deployments.deploy --pools kubernetes   pools whose runs are Jobs (docs/kubernetes.md)
"""

from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer
import yaml
from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule
from prefect.events import DeploymentEventTrigger
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema

from deployments.automations import Automations, notices, short_hash, zombies
from deployments.job_templates import expect_known, service_account
from deployments.pools import PoolType, ensure_pools
from flows.config import load_config
from flows.constitution_changed import AmendmentConfig

FILE = Path(__file__).with_name("prefect.yaml")
NOTIFY = "notify/notify"
AMENDMENTS = "constitution-changed"
PRESET_FLOWS = ("align", "plan", AMENDMENTS)
"""Flows whose deployments are named after the preset that they run."""


def deploy(client: SyncPrefectClient) -> dict[str, str]:
    """What became of each deployment and automation: `created`, `updated` or `unchanged`, by name.

    Raises: UnknownVariable: a deployment has a job variable that the pools' templates lack.
    """
    flows = {found.name: found.id for found in client.read_flows(limit=200)}
    deployments = {(found.flow_id, found.name): found for found in client.read_deployments(limit=200)}
    automations = Automations(client)
    done, ids = dict[str, str](), dict[str, UUID]()
    for spec in read_file():
        flow: Flow[..., Any] = load_flow_from_entrypoint(spec["entrypoint"])
        flow_id = flows.get(flow.name) or client.create_flow(flow)
        name, wanted = f"{flow.name}/{spec['name']}", {"flow_id": str(flow_id), **definition(flow, spec)}
        flows[flow.name] = flow_id
        ids[name], done[name] = ensure_deployment(client, spec, wanted, deployments.get((flow_id, spec["name"])))
        for trigger in spec.get("triggers", []):
            automation = DeploymentEventTrigger(**trigger)
            automation.set_deployment_id(ids[name])
            done[trigger["name"]] = automations.ensure(automation.as_automation())
    for wanted_automation in (zombies(), notices(ids[NOTIFY])):
        done[wanted_automation.name] = automations.ensure(wanted_automation)
    return done


def read_file() -> list[dict[str, Any]]:
    """The deployments of `prefect.yaml`."""
    specs: list[dict[str, Any]] = yaml.safe_load(FILE.read_text())["deployments"]
    return specs


def ensure_deployment(
    client: SyncPrefectClient, spec: dict[str, Any], wanted: dict[str, Any], there: DeploymentResponse | None
) -> tuple[UUID, str]:
    """Its id, and what was done."""
    if there and there.version == wanted["version"]:
        return there.id, "unchanged"
    schedules = [kept(schedule) for schedule in there.schedules] if there else spec.get("schedules", [])
    wanted["schedules"] = [as_schedule(schedule) for schedule in schedules]
    # the client's own call would drop what its model of a schema does not know: `additionalProperties`
    answer = client.request("POST", "/deployments/", json=wanted)
    return UUID(answer.json()["id"]), "updated" if there else "created"


def definition(flow: Flow[..., Any], spec: dict[str, Any]) -> dict[str, Any]:
    """A deployment as Prefect's API takes it, but for its flow's id and its schedules; its version is its hash."""
    limit, job_variables = spec.get("concurrency_limit", {}), spec["work_pool"].get("job_variables", {})
    expect_known(f"prefect.yaml: {flow.name}/{spec['name']}", job_variables)
    wanted = {
        "name": spec["name"],
        "entrypoint": spec["entrypoint"],
        "description": spec.get("description") or flow.description,
        "tags": spec["tags"],
        "work_pool_name": spec["work_pool"]["name"],
        "work_queue_name": spec["work_pool"]["work_queue_name"],
        # a process worker has no use for any of it
        "job_variables": {"service_account_name": service_account(flow.name), **job_variables},
        "parameters": default_parameters(flow, spec),
        "parameter_openapi_schema": parameter_schema(flow).model_dump_for_openapi() | {"additionalProperties": False},
        "enforce_parameter_schema": True,
        "pull_steps": [],
        "concurrency_limit": limit.get("limit"),
        "concurrency_options": {"collision_strategy": limit["collision_strategy"]} if limit else None,
    }
    return {**wanted, "version": short_hash(wanted)}


def default_parameters(flow: Flow[..., Any], spec: dict[str, Any]) -> dict[str, Any]:
    """Those of the file, and where its name is a preset that preset's config, with each stage a run of its own."""
    given: dict[str, Any] = spec.get("parameters", {})
    if flow.name not in PRESET_FLOWS:
        return given
    config = load_config([spec["name"]], None, ["run.executor=deployments"])
    whole = AmendmentConfig(align=config) if flow.name == AMENDMENTS else config
    return {**given, "config": whole.model_dump(mode="json", exclude_none=True)}


def kept(schedule: DeploymentSchedule) -> dict[str, Any]:
    kept: dict[str, Any] = schedule.model_dump(mode="json", include={"schedule", "active", "parameters", "slug"})
    return kept


def as_schedule(given: dict[str, Any]) -> dict[str, Any]:
    """A schedule of the file, or one that the server had, as the API takes it."""
    if "schedule" not in given:
        cron = CronSchedule(cron=given["cron"], timezone=given["timezone"])
        given = {"schedule": cron, **{key: given[key] for key in given.keys() & {"slug", "active", "parameters"}}}
    return DeploymentScheduleCreate(**given).model_dump(mode="json", exclude_unset=True)


def main(pools: Annotated[PoolType, typer.Option(help="Type of the pools.")] = "process") -> None:
    """Apply the pools and `prefect.yaml` to the server that is configured (PREFECT_API_URL)."""
    with get_client(sync_client=True) as client:
        ensure_pools(client, pools)
        for name, what in deploy(client).items():
            print(f"{what:>10}  {name}")


if __name__ == "__main__":
    typer.run(main)
