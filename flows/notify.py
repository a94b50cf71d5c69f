"""Tells people that a run failed or crashed. An automation runs this; `SOLON_NOTIFY_URL` says where the message goes.

The address may hold a secret, as those of Slack and Mattermost do. So it stands in the environment of the worker and
nowhere else: no parameter, no block, no log, no error.
"""

import json
import os
import textwrap
import urllib.request
from http.client import HTTPException
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from uuid import UUID

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run

from tasks.schema import Frozen

ADDRESS = "SOLON_NOTIFY_URL"
TIMEOUT_SECONDS = 20
MAX_CHARACTERS = 2000
"""Of a run's message; the whole is on the run's page."""


class NotifyFailed(ValueError):
    """The message did not arrive. The address is not shown."""


class Notice(Frozen):
    """What an automation says about a run."""

    name: str
    """Name of the run."""
    state: str
    """Name of the state it is in: Failed, Crashed."""
    message: str = ""
    """What its state says."""
    run_id: UUID
    """Id of the flow run."""
    url: str = ""
    """Its page in Prefect's UI."""


@flow(name="notify", flow_run_name="{notice.name} {notice.state}")
def notify(notice: Notice) -> None:
    """Post the notice; where no address is configured, keep it as an artifact and in the log."""
    log = get_run_logger()
    if is_about_notify(notice.run_id):
        log.warning("notify: run %s is a notification itself: nobody is told, lest it never ends", notice.name)
    elif os.environ.get(ADDRESS):
        post(text_of(notice))
    else:
        log.warning("notify: %s is not set, so nobody is told:\n%s", ADDRESS, text_of(notice))
        create_markdown_artifact(markdown_of(notice), key="notice", description=f"{ADDRESS} is not set")


@task(cache_policy=NO_CACHE, persist_result=False, retries=3, retry_delay_seconds=[2, 10, 60])
def post(text: str) -> None:
    """Send `{"text": ...}` to the address in the environment; `send` without it being seen."""
    send(os.environ[ADDRESS], text)


def send(address: str, text: str) -> None:
    """POST a message as JSON, in the form that Slack, Mattermost and others take.

    Raises: NotifyFailed: it did not arrive; without the address, and without the error, which may show it.
    """
    problem = attempt(address, json.dumps({"text": text}).encode())
    if problem:
        raise NotifyFailed(f"notify: the message did not arrive at {ADDRESS} (not shown): {problem}")


def attempt(address: str, body: bytes) -> str | None:
    """What went wrong, in words that do not show the address; None where the message arrived."""
    try:
        if urlsplit(address).scheme not in ("http", "https"):
            return "it does not begin with http:// or https://"
        request = urllib.request.Request(address, body, {"Content-Type": "application/json"}, method="POST")
        with urllib.request.build_opener(NoRedirect).open(request, timeout=TIMEOUT_SECONDS):
            return None
    except HTTPError as error:
        return f"the server answered {error.code}"
    except URLError as error:
        return type(error.reason).__name__
    except (OSError, HTTPException, ValueError) as error:
        return type(error).__name__


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows none: a post that is redirected arrives as a GET, without its message."""

    def redirect_request(self, *_: object) -> None:
        return None


def is_about_notify(run: UUID) -> bool:
    """Whether the run that failed is one of this flow."""
    with get_client(sync_client=True) as client:
        try:
            return client.read_flow_run(run).flow_id == client.read_flow_run(UUID(flow_run.id)).flow_id
        except ObjectNotFound:
            return False  # it was deleted meanwhile


def text_of(notice: Notice) -> str:
    """What people read."""
    message = shorten(notice.message)
    return "\n".join(part for part in (f"{notice.name}: {notice.state}", message, notice.url) if part)


def markdown_of(notice: Notice) -> str:
    """The same as a block of plain text, since a message may hold anything."""
    return textwrap.indent(text_of(notice), "    ", lambda line: True)


def shorten(message: str) -> str:
    return message if len(message) <= MAX_CHARACTERS else message[:MAX_CHARACTERS] + " …"
