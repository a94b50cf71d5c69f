"""`constitution.changed`: the Prefect event by which a deployment learns that a constitution was published.

It is sent in one request that a server acknowledges, since Prefect's own queue of events fails without a word.
"""

import uuid
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tasks.publish import Published

EVENT = "constitution.changed"


class NotAnnounced(ValueError):
    """The event did not reach the server; the tag stands where it was moved."""


def event_of(published: "Published", store: str) -> dict[str, Any]:
    """The event of a move. Sent twice it is the same one: its id is of the store, the constitution and the move."""
    resource = f"solon.constitution.{published.constitution.id}"
    return {
        "event": EVENT,
        "id": uuid.uuid5(uuid.NAMESPACE_URL, f"{store}#{resource}#{published.move.sequence}"),
        "resource": {"prefect.resource.id": resource, "prefect.resource.name": published.constitution.id},
        "payload": {
            "constitution": published.constitution.id,
            "sequence": published.move.sequence,
            "old_version": published.before_version,
            "old_hash": published.before.hash if published.before else None,
            "new_version": published.move.version,
            "new_hash": published.constitution.hash,
            "store": store,
            "by": published.move.by,
        },
    }


def configured_api() -> str | None:
    """The address of the Prefect API that settings, profile or environment name; None where none does."""
    from prefect.settings import PREFECT_API_URL

    return PREFECT_API_URL.value()


def announce(event: dict[str, Any]) -> None:
    """Send an event to the configured Prefect API.

    Raises: NotAnnounced: it could not be reached, or refused.
    """
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.events import Event
    from prefect.types._datetime import now

    body = Event(**event, occurred=now("UTC")).model_dump(mode="json")
    try:
        with get_client(sync_client=True) as client:
            client.request("POST", "/events", json=[body])
    except (httpx.HTTPError, RuntimeError) as error:
        raise NotAnnounced(f"{EVENT} did not reach {configured_api()}: {error or type(error).__name__}") from error
