"""Prefect for a laptop: the server that is configured, the one of `make up`, or a private one for as long as needed.

Settings are put in the environment before Prefect is imported, because it reads them then.
"""

import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.detached import Detached
from tasks.processes import free_port, guarded

ROOT = Path(__file__).resolve().parent.parent
HOME = Path(".solon")
SETTINGS = ROOT / "deployments" / "settings.env"
RECORD = "machine.json"
"""In a home: what `make up` started."""
PASSWORD = "prefect-password"
"""In a home: the server's `user:password`, readable by its owner alone."""
START_SECONDS = 180


class ServerFailed(ValueError):
    """The Prefect server did not come up."""


def read_settings(path: Path = SETTINGS) -> dict[str, str]:
    """The settings of an env file: `NAME=value` lines, comments and empty lines.

    Raises: ServerFailed: a line is none of these.
    """
    lines = [line.strip() for line in path.read_text().splitlines()]
    settings = dict[str, str]()
    for line in (line for line in lines if line and not line.startswith("#")):
        name, sign, value = line.partition("=")
        if not sign or not name.isidentifier():
            raise ServerFailed(f"{path}: {line!r} is no setting, expected NAME=value")
        settings[name] = value
    return settings


def apply_settings() -> None:
    """Solon's Prefect settings, and the address of the server that `make up` runs; what the environment says stays."""
    os.environ.setdefault("PREFECT_HOME", str((HOME / "prefect").resolve()))
    for name, value in read_settings().items():
        os.environ.setdefault(name, value)
    url = running_server(HOME)
    if url and "PREFECT_API_URL" not in os.environ:
        os.environ["PREFECT_API_URL"] = url
        os.environ["PREFECT_API_AUTH_STRING"] = (HOME / PASSWORD).read_text().strip()


def running_server(home: Path) -> str | None:
    """The address of the API that `make up` runs for this home; None where it does not."""
    record = home / RECORD
    if not record.exists():
        return None
    machine = json.loads(record.read_text())
    server = machine["processes"].get("server")
    return str(machine["url"]) if server and Detached(**server).is_alive() else None


@contextmanager
def prefect_server() -> Iterator[str]:
    """The address of a running Prefect API.

    With PREFECT_API_URL set, or `make up` running, it is that one. Otherwise a server is started on a free loopback
    port and stopped at the end, or when this process dies, however it dies.

    Raises: ServerFailed: it did not answer; its log's end is in the message.
    """
    configured = os.environ.get("PREFECT_API_URL")
    if configured:
        yield configured
        return
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    log = HOME / "logs" / "prefect-server.log"
    process = guarded(server_command(port), {**os.environ, "PREFECT_API_URL": url}, log)
    try:
        wait_for(f"{url}/health", lambda: process.poll() is None, process.log_tail)
        os.environ["PREFECT_API_URL"] = url
        try:
            yield url
        finally:
            send_what_is_queued()
    finally:
        os.environ.pop("PREFECT_API_URL", None)
        process.stop()


def server_command(port: int) -> list[str]:
    """Prefect's server on loopback."""
    return [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]


def send_what_is_queued() -> None:
    """Let Prefect's log and event threads finish; at exit they would retry for a minute against a stopped server."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for worker in (APILogWorker, EventsWorker):
        worker.drain_all(timeout=10)


def wait_for(url: str, is_alive: Callable[[], bool], log_tail: Callable[[], str]) -> None:
    """Wait until the server answers. Raises: ServerFailed: it ended, or did not answer in time."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and is_alive():
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            pass  # not up yet; the deadline bounds the wait
        time.sleep(0.2)
    problem = "ended" if not is_alive() else f"did not answer at {url} within {START_SECONDS} s"
    raise ServerFailed(f"the Prefect server {problem}; its log ends:\n{log_tail()}")
