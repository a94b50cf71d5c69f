"""The Prefect API, asked by a run that can do without it for a while: a server that is away is noticed at once.

Prefect's own client tries for a minute; a run has better to do, or may wait longer than that.
"""

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import httpx
from prefect import get_run_logger
from prefect.client.orchestration import SyncPrefectClient, get_client

from tasks.stage import StageFailed

T = TypeVar("T")

REQUEST_SECONDS = 20.0
"""A server that takes longer over one request is taken to be away."""
SERVER_AWAY_SECONDS = 900.0
"""How long a server that is away is waited for."""
POLL_SECONDS = (1.0, 15.0)
"""First and longest pause between two tries, or two looks at a run."""


class ServerAway(StageFailed):
    """The Prefect server did not answer for so long that it was given up."""


def ask(question: Callable[[SyncPrefectClient], T]) -> T:
    """What the server says, now. Raises: httpx.HTTPError: it is away (`is_away`), or refuses."""
    with get_client(httpx_settings={"timeout": REQUEST_SECONDS}, sync_client=True) as client:
        return question(client)


def is_away(error: httpx.HTTPError) -> bool:
    """Whether the server did not answer, rather than say no."""
    return not isinstance(error, httpx.HTTPStatusError) or error.response.status_code >= 500


def patiently(call: Callable[[], T], needless: Callable[[], bool]) -> T | None:
    """What the call returns, tried again while the server is away; None once it is needless meanwhile.

    Raises: ServerAway. httpx.HTTPStatusError: the server refuses.
    """
    started, told = time.monotonic(), False
    for pause in pauses():
        try:
            return call()
        except httpx.HTTPError as error:
            if not is_away(error):
                raise
            if time.monotonic() - started > SERVER_AWAY_SECONDS:
                raise ServerAway(
                    f"the Prefect server has not answered for {SERVER_AWAY_SECONDS / 60:.0f} min ({error}); what was "
                    "finished is kept: start the server, then retry this run"
                ) from None
            if not told:
                get_run_logger().warning("the Prefect server does not answer (%s); waiting for it", error)
                told = True
        if needless():
            return None
        time.sleep(pause)
    raise AssertionError("pauses do not end")


def pauses() -> Iterator[float]:
    """Seconds to wait, again and again: short at first, then longer."""
    pause, longest = POLL_SECONDS
    while True:
        yield pause
        pause = min(1.5 * pause, longest)
