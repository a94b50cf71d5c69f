"""`./solon up` and `down` as a user runs them: one server with its workers, on a home and a port of their own."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import psutil
import pytest

from deployments.machine import read
from flows.server import ROOT
from tasks.detached import MARK, marked, stop
from tasks.processes import free_port

ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}


class Home:
    """A home folder that is up, and what the command said."""

    def __init__(self, path: Path, port: int, said: str) -> None:
        self.path, self.port, self.said = path, port, said

    def api(self, path: str, body: Any = None) -> Any:
        """The API's answer, as the one who knows the password."""
        word = b64encode((self.path / "prefect-password").read_text().strip().encode()).decode()
        headers = {"Authorization": f"Basic {word}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}{path}", json.dumps(body).encode() if body else None, headers)
        for pause in (1, 2, 4, 8, 0):
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    return json.loads(answer.read())
            except HTTPError as error:
                if error.code != 503 or not pause:  # SQLite is busy: Prefect's own client asks again too
                    raise
            time.sleep(pause)
        raise AssertionError("unreachable")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"


def solon(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flows", *words]
    return subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=550)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    path, port = tmp_path_factory.mktemp("up") / "home", free_port()
    done = solon("up", "--home", str(path), "--port", str(port))
    try:
        assert done.returncode == 0, done.stderr
        yield Home(path, port, done.stdout)
    finally:
        stop(marked(str(path)), grace_seconds=5)


def test_up_starts_one_server_and_three_workers_behind_a_password(home):
    assert "started: server, cpu, gpu-inference, gpu-training" in home.said
    assert home.api("/health") is True
    with pytest.raises(HTTPError, match="401"):
        urllib.request.urlopen(f"{home.url}/admin/version")
    password = home.path / "prefect-password"
    assert password.stat().st_mode & 0o777 == 0o600
    logs = "".join(log.read_text() for log in (home.path / "logs").iterdir())
    assert password.read_text().strip() not in logs + home.said


def test_up_pools_have_their_limits_and_queues(home):
    limits = {pool: home.api(f"/work_pools/{pool}")["concurrency_limit"] for pool in ("cpu", "gpu-training")}
    assert limits == {"cpu": None, "gpu-training": 1}
    queues = home.api("/work_pools/cpu/queues/filter", {"limit": 10})
    assert [queue["name"] for queue in sorted(queues, key=lambda q: q["priority"])] == ["high", "default", "low"]
    template = home.api("/work_pools/cpu")["base_job_template"]
    assert template["variables"]["properties"]["working_dir"]["default"] == str(ROOT)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"confg": {}}, "'confg' was unexpected"),  # accepted, it would run with the default config
        ({"config": {"revise": {"num_round": 2}}}, "num_round"),
    ],
)
def test_up_deployment_refuses_what_its_flow_does_not_know(home, given, problem):
    deployment = home.api("/deployments/name/align/micro")
    config = deployment["parameters"]["config"]
    assert config["run"]["executor"] == "deployments"
    parameters = {**given, "config": {**config, **given.get("config", {})}}
    with pytest.raises(HTTPError) as refused:
        home.api(f"/deployments/{deployment['id']}/create_flow_run", {"parameters": parameters})
    assert refused.value.code == 409
    assert problem in refused.value.read().decode()


def test_up_schedule_of_amendments_fires(home):
    deployment = home.api("/deployments/name/constitution-changed/micro")
    wanted = {"deployments": {"id": {"any_": [deployment["id"]]}}, "limit": 1}
    deadline = time.monotonic() + 120
    while not (runs := home.api("/flow_runs/filter", wanted)) and time.monotonic() < deadline:
        time.sleep(1)
    assert runs[0]["auto_scheduled"]
    assert runs[0]["parameters"]["change"].get("sequence", 0) == 0  # the newest


def test_up_again_starts_what_died_and_keeps_what_was_edited(home):
    before = read(home.path)
    deployment = home.api("/deployments/name/gc/store")
    home.api(f"/deployments/{deployment['id']}/schedules", [{"schedule": {"interval": 3600}, "active": True}])
    psutil.Process(before.processes["gpu-training"].pid).kill()
    done = solon("up", "--home", str(home.path))
    assert "started: gpu-training\n" in done.stdout, done.stderr
    assert "41 unchanged" in done.stdout
    after = read(home.path)
    assert {name for name in before.processes if before.processes[name] != after.processes[name]} == {"gpu-training"}
    assert len(home.api(f"/deployments/{deployment['id']}/schedules")) == 2


def test_up_commands_find_the_server_that_runs(home):
    script = (
        "import pathlib, sys; from flows import server;"
        "server.HOME = pathlib.Path(sys.argv[1]); server.apply_settings();"
        "from prefect.client.orchestration import get_client; client = get_client(sync_client=True);"
        "print(client.api_url, client.request('GET', '/admin/version').status_code)"
    )
    command = [sys.executable, "-c", script, str(home.path)]
    said = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert said.stdout.split() == [f"{home.url}/", "200"], said.stderr


def test_up_at_another_port_or_a_taken_one_is_refused(home, tmp_path):
    moved = solon("up", "--home", str(home.path), "--port", str(home.port + 1))
    assert moved.returncode == 1
    assert f"is served at port {home.port} already" in moved.stderr
    taken = solon("up", "--home", str(tmp_path / "home"), "--port", str(home.port))
    assert taken.returncode == 1
    assert f"port {home.port} is taken" in taken.stderr


def test_down_stops_what_up_started_and_nothing_else(home):
    machine = read(home.path)
    orphan = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], env={MARK: str(home.path)})
    foreign = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    record = json.loads((home.path / "machine.json").read_text())
    record["processes"]["cpu"]["pid"] = foreign.pid  # as if the worker were dead and its pid given to somebody
    (home.path / "machine.json").write_text(json.dumps(record))
    try:
        done = solon("down", "--home", str(home.path))
        assert f"stopped server (pid {machine.processes['server'].pid})" in done.stdout
        assert f"stopped run (pid {orphan.pid})" in done.stdout
        assert str(foreign.pid) not in done.stdout
        assert foreign.poll() is None
        assert not marked(str(home.path))
        assert solon("down", "--home", str(home.path)).stdout == f"nothing runs for {home.path}\n"
    finally:
        for process in (orphan, foreign):
            process.kill()
            process.wait()
