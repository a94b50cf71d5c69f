"""What Prefect does by itself. Nothing retries: the store says what is done, a person or a schedule runs again."""

import hashlib
from datetime import timedelta
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState, RunDeployment
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.settings import get_current_settings

TAG = "solon"
ZOMBIE_SECONDS = 120
"""Four heartbeats of 30 s (settings.env), for a busy machine may be late with one. A server that was away for longer
crashes the runs that it does not hear of in the first seconds after it is back, though they live: what they finished is
kept, and Retry goes on."""
BAD_ENDS = {"prefect.flow-run.Failed", "prefect.flow-run.Crashed", "prefect.flow-run.TimedOut"}
RUNS = ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"})
ALIVE = "prefect.flow-run.heartbeat"


def zombies() -> AutomationCore:
    """A run that no longer gives a sign of life is crashed: its process and its worker died together.

    A run that gave none is not looked at, and one that ends is not waited for.
    """
    ends = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Crashed", "Cancelled", "TimedOut")}
    return AutomationCore(
        name="Solon: runs without a sign of life",
        description=f"No heartbeat for {ZOMBIE_SECONDS} s: the run's process is gone, or cannot reach the server.",
        tags=[TAG],
        trigger=EventTrigger(
            match=RUNS,
            after={ALIVE},
            expect={ALIVE, *ends, "prefect.flow-run.Suspended", "prefect.flow-run.Paused"},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=ZOMBIE_SECONDS),
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED, message=f"No sign of life for {ZOMBIE_SECONDS} s; Retry goes on where it was."
            )
        ],
    )


def notices(notify: UUID) -> AutomationCore:
    """A run of Solon that failed, crashed or timed out is told by the deployment `notify`."""
    notice = {
        "name": text("{{ flow_run.name }}"),
        "state": text("{{ flow_run.state.name }}"),
        "message": text("{{ flow_run.state.message or '' }}"),
        "run_id": text("{{ flow_run.id }}"),
        # Prefect's filter `ui_url` is unknown where an automation fills a deployment's parameters
        "url": text(f"{get_current_settings().ui_url}/runs/flow-run/{{{{ flow_run.id }}}}"),
    }
    return AutomationCore(
        name="Solon: tell of failed runs",
        description="Runs notify/notify, which posts to the address in its worker's SOLON_NOTIFY_URL.",
        tags=[TAG],
        trigger=EventTrigger(
            match=RUNS,
            match_related=ResourceSpecification(
                {"prefect.resource.id": f"prefect.tag.{TAG}", "prefect.resource.role": "tag"}
            ),
            expect=BAD_ENDS,
            for_each={"prefect.resource.id"},
            posture=Posture.Reactive,
            threshold=1,
            within=timedelta(0),
        ),
        actions=[RunDeployment(source="selected", deployment_id=notify, parameters={"notice": notice})],
    )


def text(template: str) -> dict[str, str]:
    """A parameter that Prefect fills from the event."""
    return {"__prefect_kind": "jinja", "template": template}


class Automations:
    """Those of a server, by name."""

    def __init__(self, client: SyncPrefectClient) -> None:
        self.client = client
        self.there = {automation.name: automation for automation in client.read_automations()}

    def ensure(self, wanted: AutomationCore) -> str:
        """`created`, `updated` where ours is another than it was, else `unchanged`; whether it is enabled stays."""
        wanted = wanted.model_copy(update={"tags": [*wanted.tags, f"definition-{digest(wanted)}"]})
        there = self.there.get(wanted.name)
        if there is None:
            self.client.create_automation(wanted)
            return "created"
        if there.tags == wanted.tags:
            return "unchanged"
        changed = {**dict(wanted), "enabled": there.enabled}
        del changed["owner_resource"]  # it cannot be changed
        self.client.update_automation(there.id, AutomationCore(**changed))
        return "updated"


def digest(automation: AutomationCore) -> str:
    """Names what we ask for, so that a change made in the UI stays until ours changes."""
    return short_hash(automation.model_dump(mode="json", exclude={"trigger": {"id"}}))


def short_hash(value: Any) -> str:
    import json

    return hashlib.sha256(json.dumps(sorted_lists(value), sort_keys=True).encode()).hexdigest()[:12]


def sorted_lists(value: Any) -> Any:
    """JSON whose lists of words are in order, since those of a set are in none."""
    if isinstance(value, dict):
        return {key: sorted_lists(inner) for key, inner in value.items()}
    if isinstance(value, list):
        words = all(isinstance(inner, str) for inner in value)
        return sorted(value) if words else [sorted_lists(inner) for inner in value]
    return value
