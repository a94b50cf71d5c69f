"""Artifacts on a run's page. A Prefect API that is away or refuses costs a warning, never the stage that is shown."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal
from uuid import UUID

import httpx
from prefect import get_run_logger
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_REQUEST_TIMEOUT, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from flows.artifacts.text import bounded

AWAY_SECONDS = 60.0
"""Pause after a state that could not be shown."""
ANSWER_SECONDS = 5.0
"""How long an API may take for a state of a live artifact: the stage waits meanwhile."""


@contextmanager
def shown(what: str) -> Iterator[None]:
    """Whatever is shown inside may come to nothing, with a warning: Prefect's API is away, or refuses it."""
    try:
        yield
    except httpx.HTTPError as error:
        said = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        get_run_logger().warning("%s is not shown in Prefect's UI, the run goes on; %s", what, said)


@contextmanager
def impatient() -> Iterator[None]:
    """Requests inside are tried once: the next state of a live artifact is another try."""
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0, PREFECT_API_REQUEST_TIMEOUT: ANSWER_SECONDS}):
        yield


class LiveArtifact:
    """One artifact of the running flow, made by its first `show` and replaced by every later one.

    `is_due` says whether there is time for another: every so many seconds, later where the last one failed.
    """

    def __init__(
        self,
        key: str,
        kind: Literal["markdown", "progress"],
        every_seconds: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.key, self.kind, self.every_seconds = key, kind, every_seconds
        self._monotonic = monotonic
        self._due = float("-inf")
        self._id: UUID | None = None

    def is_due(self) -> bool:
        return self._monotonic() >= self._due

    def show(self, data: str | float, description: str) -> None:
        """Replace what is shown; both texts are markdown."""
        self._due = self._monotonic() + AWAY_SECONDS  # unless it gets through
        with shown(self.key), impatient():
            self._send({"data": data, "description": description})
            self._due = self._monotonic() + self.every_seconds

    def _send(self, state: dict[str, Any]) -> None:
        with get_client(sync_client=True) as client:
            if self._id is None:
                self._id = create(client, self.key, self.kind)
            replace(client, self._id, state)


def publish(key: str, blocks: Iterable[str], description: str) -> UUID | None:
    """A markdown artifact of the running flow; `blocks` are paragraphs of it, `description` shows on its card.

    Returns: its id, or None where it could not be shown.
    """
    with shown(key), get_client(sync_client=True) as client:
        artifact = create(client, key, "markdown")
        replace(client, artifact, {"data": bounded(blocks), "description": description})
        return artifact
    return None


def create(client: SyncPrefectClient, key: str, kind: str) -> UUID:
    """An artifact of the running flow with nothing in it yet.

    The server puts a new artifact whole into an event, where it outlives the artifact: texts come by `replace`.
    Prefect takes lowercase letters, digits and dashes in a key.
    """
    run = UUID(flow_run.id) if flow_run.id else None
    empty: Any = 0.0 if kind == "progress" else ""
    state = ArtifactCreate(key=key.replace("_", "-"), type=kind, data=empty, flow_run_id=run, task_run_id=None)
    return client.create_artifact(state).id


def replace(client: SyncPrefectClient, artifact: UUID, state: dict[str, Any]) -> None:
    """Not by Prefect's `update_artifact`, which keeps every state whole in an event."""
    client.request("PATCH", "/artifacts/{id}", path_params={"id": artifact}, json=state)
