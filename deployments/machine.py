"""A Prefect server and its three workers on this machine, for one home folder: what `make up` and `make down` do.

Everything listens on loopback behind a password, is recorded with pid and start time, and carries the home's mark in
its environment, as do the runs that the workers start and all that those start.
"""

import json
import os
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from flows.server import PASSWORD, RECORD, ROOT, ServerFailed, read_settings, server_command, wait_for
from tasks.detached import MARK, Detached, marked, start_detached, stop
from tasks.processes import port_is_free
from tasks.schema import Frozen

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

PORT = 4200
GRACE_SECONDS = 20.0
"""How long what is stopped may take: a training process writes its checkpoint meanwhile."""
WORKERS_SECONDS = 120.0


class Machine(Frozen):
    """What runs for a home."""

    url: str
    """Of the API."""
    processes: dict[str, Detached] = Field(default_factory=dict)
    """`server`, and a worker for each pool by the pool's name."""

    @property
    def port(self) -> int:
        return int(self.url.removesuffix("/api").rpartition(":")[2])


class Up(Frozen):
    """What `up` did."""

    url: str
    password_file: Path
    started: tuple[str, ...]
    """Processes that did not run yet."""
    deployed: dict[str, str]
    """What became of each deployment and automation."""


def up(home: Path, port: int | None) -> Up:
    """Start what does not run yet, and put pools, deployments and automations on the server.

    Raises: ServerFailed: the port is taken, or a process ended or did not answer; its log's end is in the message.
    """
    home = home.resolve()
    machine = expected(home, port)
    env = environment(home, machine.url)
    started = []
    if not is_alive(machine, "server"):
        expect_free(machine.port)
        machine = start(home, machine, "server", server_command(machine.port), env | server_secrets(home))
        started.append("server")
    server = machine.processes["server"]
    wait_for(f"{machine.url}/health", server.is_alive, server.log_tail)
    with client_of(env) as client:
        from deployments.deploy import deploy
        from deployments.pools import POOLS, ensure_pools

        ensure_pools(client)
        since = time.time()
        for pool in (pool.name for pool in POOLS if not is_alive(machine, pool.name)):
            machine = start(home, machine, pool, worker_command(pool), env)
            started.append(pool)
        deployed = deploy(client)
        for pool in (name for name in started if name != "server"):
            wait_for_worker(client, pool, machine.processes[pool], since)
    return Up(url=machine.url, password_file=home / PASSWORD, started=tuple(started), deployed=deployed)


def down(home: Path) -> list[str]:
    """Stop all that was started for a home; what was stopped, in words.

    Runs go first, so that their workers hear how they ended, and the server last, so that it hears it too.
    """
    home = home.resolve()
    names = {process.pid: name for name, process in read(home).processes.items()} if (home / RECORD).exists() else {}
    stopped = dict[int, str]()
    for goes in (lambda name: name == "run", lambda name: name != "server", lambda name: True):
        found = {process: names.get(process.pid, "run") for process in marked(str(home))}
        going = [process for process, name in found.items() if goes(name)]
        stop(going, GRACE_SECONDS)
        stopped |= {process.pid: found[process] for process in going}
    (home / RECORD).unlink(missing_ok=True)
    return [f"{name} (pid {pid})" for pid, name in stopped.items()]


def expected(home: Path, port: int | None) -> Machine:
    """What the record says, if its server runs; else a machine at the port with what still runs of it.

    Raises: ServerFailed: the server of this home runs at another port.
    """
    recorded = read(home) if (home / RECORD).exists() else Machine(url=url_of(port or PORT))
    wanted = port or recorded.port
    if wanted == recorded.port:
        return recorded
    if any(is_alive(recorded, name) for name in recorded.processes):
        raise ServerFailed(
            f"{home} is served at port {recorded.port} already, not at {wanted}; leave --port out, or stop it first: "
            "./solon down"
        )
    return Machine(url=url_of(wanted))


def url_of(port: int) -> str:
    return f"http://127.0.0.1:{port}/api"


def expect_free(port: int) -> None:
    """Raises: ServerFailed: something listens there."""
    if not port_is_free(port):
        raise ServerFailed(f"port {port} is taken by another program; end that, or choose another: --port {port + 1}")


def is_alive(machine: Machine, name: str) -> bool:
    return name in machine.processes and machine.processes[name].is_alive()


def start(home: Path, machine: Machine, name: str, command: list[str], env: dict[str, str]) -> Machine:
    """The machine with one process more, which is recorded at once."""
    process = start_detached(command, env, home / "logs" / f"{name}.log", ROOT)
    machine = machine.model_copy(update={"processes": {**machine.processes, name: process}})
    part = home / f"{RECORD}.part"
    part.write_text(machine.model_dump_json(indent=2))
    part.replace(home / RECORD)
    return machine


def read(home: Path) -> Machine:
    return Machine(**json.loads((home / RECORD).read_text()))


def environment(home: Path, url: str) -> dict[str, str]:
    """What every process of the machine has: ours, Prefect's settings, where the server is, and the home's mark."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    chosen = {name: value for name, value in os.environ.items() if name in read_settings()}
    return {
        **ours,
        **read_settings(),
        **chosen,
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_API_URL": url,
        "PREFECT_API_AUTH_STRING": password(home),
        MARK: str(home),
    }


def server_secrets(home: Path) -> dict[str, str]:
    return {"PREFECT_SERVER_API_AUTH_STRING": password(home)}


def password(home: Path) -> str:
    """The server's `user:password`, made once; only its owner can read the file."""
    path = home / PASSWORD
    if not path.exists():
        home.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"solon:{secrets.token_urlsafe(24)}\n")
    return path.read_text().strip()


def worker_command(pool: str) -> list[str]:
    """A process worker of a pool. Nothing is installed by it."""
    start = [sys.executable, "-m", "prefect", "worker", "start", "--type", "process", "--install-policy", "never"]
    return [*start, "--pool", pool, "--name", pool]


@contextmanager
def client_of(env: dict[str, str]) -> Iterator["SyncPrefectClient"]:
    """A client of the machine's server, which is then the one that Prefect's own calls use too.

    Raises: ServerFailed: the server refused something, or answered too late.
    """
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    settings = {PREFECT_API_URL: env["PREFECT_API_URL"], PREFECT_API_AUTH_STRING: env["PREFECT_API_AUTH_STRING"]}
    try:
        with temporary_settings(settings), get_client(sync_client=True) as client:
            yield client
    except httpx.HTTPError as error:
        raise ServerFailed(
            f"the Prefect server: {error or type(error).__name__}; once more goes on from here"
        ) from error


def wait_for_worker(client: "SyncPrefectClient", pool: str, process: Detached, since: float) -> None:
    """Until the worker has reported. Raises: ServerFailed: it ended, or did not report in time."""
    deadline = time.monotonic() + WORKERS_SECONDS
    while time.monotonic() < deadline and process.is_alive():
        workers = client.read_workers_for_work_pool(pool)
        reported = [worker.last_heartbeat_time for worker in workers if worker.name == pool]
        if any(moment and moment.timestamp() >= since for moment in reported):
            return
        time.sleep(0.3)
    problem = "ended" if not process.is_alive() else f"did not report within {WORKERS_SECONDS:.0f} s"
    raise ServerFailed(f"the worker of pool {pool} {problem}; its log ends:\n{process.log_tail()}")
