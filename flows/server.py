"""Prefect for a laptop: use the server that is configured, or run a private one on loopback for as long as needed.

Settings are put in the environment before Prefect is imported, because it reads them then.
"""

import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.processes import GuardedProcess, free_port, guarded

HOME = Path(".solon")
START_SECONDS = 180

SETTINGS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",  # results would be pickles
    "PREFECT_TASKS_DEFAULT_NO_CACHE": "true",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_READ_BATCH_SIZE": "100",
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
}


class ServerFailed(ValueError):
    """The private Prefect server did not come up."""


def apply_settings() -> None:
    """Solon's Prefect settings; whatever the environment says already stays."""
    os.environ.setdefault("PREFECT_HOME", str((HOME / "prefect").resolve()))
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)


@contextmanager
def prefect_server() -> Iterator[str]:
    """The address of a running Prefect API.

    With PREFECT_API_URL set it is that one. Otherwise a server is started on a free loopback port and stopped at the
    end, or when this process dies, however it dies.

    Raises: ServerFailed: it did not answer; its log's end is in the message.
    """
    configured = os.environ.get("PREFECT_API_URL")
    if configured:
        yield configured
        return
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    log = HOME / "logs" / "prefect-server.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    process = guarded(command, {**os.environ, "PREFECT_API_URL": url}, log)
    try:
        wait_for(f"{url}/health", process)
        os.environ["PREFECT_API_URL"] = url
        try:
            yield url
        finally:
            send_what_is_queued()
    finally:
        os.environ.pop("PREFECT_API_URL", None)
        process.stop()


def send_what_is_queued() -> None:
    """Let Prefect's log and event threads finish; at exit they would retry for a minute against a stopped server."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for worker in (APILogWorker, EventsWorker):
        worker.drain_all(timeout=10)


def wait_for(url: str, process: GuardedProcess) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            pass  # not up yet; the deadline bounds the wait
        time.sleep(0.2)
    raise ServerFailed(
        f"the Prefect server did not answer at {url} within {START_SECONDS} s; its log ends:\n{process.log_tail(15)}"
    )
