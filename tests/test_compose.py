"""`infra/compose.yaml`: valid by the specification's schema where npm can bring it, and safe by our own checks always.

Nothing is started here. The schema is the one that the npm package dclint ships.
"""

import json
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
INFRA = ROOT / "infra"
SCHEMA = ROOT / ".solon" / "tools" / "compose-spec" / "schema-3.1.0.json"
ONE_SHOT = {"prepare"}
TEXT = (INFRA / "compose.yaml").read_text()


def variables(path):
    lines = path.read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


@pytest.fixture(scope="module")
def compose():
    """The file with its variables filled in; a variable that nobody gives is an error, as it is to docker."""
    given = {
        **variables(INFRA / "images" / "images.env"),
        "SOLON_SECRETS": "/s",
        "SOLON_MODEL": "m",
        "SOLON_MODELS": "/m",
    }
    return yaml.safe_load(re.sub(r"\$\{(\w+):\?[^}]*\}", lambda match: given[match[1]], TEXT))


@pytest.fixture(scope="module")
def schema():
    if not SCHEMA.exists():
        fetch_schema(SCHEMA)
    return json.loads(SCHEMA.read_text())


def fetch_schema(target):
    if not shutil.which("npm"):
        pytest.skip("the compose specification's schema comes from npm, which this machine lacks")
    target.parent.mkdir(parents=True, exist_ok=True)
    command = ["npm", "pack", "--silent", "--pack-destination", str(target.parent), "dclint@3.1.0"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if result.returncode:
        pytest.skip(f"npm cannot bring the compose specification's schema: {result.stderr[-200:]}")
    with tarfile.open(target.parent / "dclint-3.1.0.tgz") as packed:
        member = packed.extractfile("package/schemas/compose.schema.json")
        assert member
        target.write_bytes(member.read())


def test_compose_is_valid_by_the_specification(compose, schema):
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft7Validator(schema)
    assert [f"{list(e.absolute_path)}: {e.message}" for e in validator.iter_errors(compose)] == []
    broken = {**compose, "services": {"a": {"image": "b", "port": 1}}}
    assert list(validator.iter_errors(broken))


def test_compose_has_a_worker_for_each_pool(compose):
    from deployments.pools import POOLS

    commands = [" ".join(s.get("command", [])) for name, s in compose["services"].items() if name.startswith("worker-")]
    images = [(INFRA / "images" / f"{n}.Dockerfile").read_text() for n in ("orchestrator", "trainer")]
    defaults = re.findall(r'"--pool", "([\w-]+)"', "".join(images))
    named = re.findall(r"--pool ([\w-]+)", " ".join(commands)) + defaults
    assert sorted(named) == sorted(pool.name for pool in POOLS)


def test_compose_publishes_on_loopback_only(compose):
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert ports and all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in ports)


def test_compose_services_are_confined_and_checked(compose):
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"] and "no-new-privileges:true" in service["security_opt"], name
        assert not service.get("privileged") and "network_mode" not in service, name
        if name in ONE_SHOT:
            assert service["restart"] == "no"
        else:
            assert service["restart"] == "unless-stopped" and service["healthcheck"]["test"][0] == "CMD", name


def test_compose_waits_for_what_is_there_and_can_become_so(compose):
    for name, service in compose["services"].items():
        for other, wait in service.get("depends_on", {}).items():
            expected = "service_completed_successfully" if other in ONE_SHOT else "service_healthy"
            assert other in compose["services"] and wait["condition"] == expected, (name, other)


def test_compose_secrets_are_files_outside_the_repository(compose):
    used = {name for service in compose["services"].values() for name in service.get("secrets", [])}
    assert used == set(compose["secrets"])
    assert {secret["file"] for secret in compose["secrets"].values()} == {f"/s/{name}" for name in used}
    for name, service in compose["services"].items():
        for variable, value in service.get("environment", {}).items():
            if re.search("PASS|SECRET|AUTH|ACCESS_KEY|DATABASE", variable):
                assert variable.endswith("_FILE"), (name, variable)
                assert value.removeprefix("/run/secrets/") in service["secrets"], (name, variable)


def test_compose_secret_files_are_ones_that_the_entrypoint_reads(compose):
    from infra.images.runtime.entrypoint import SECRETS

    for name, service in compose["services"].items():
        if "solon-orchestrator" in service["image"] or "solon-trainer" in service["image"]:
            given = {v for v in service["environment"] if v.endswith("_FILE")}
            assert given <= {f"{secret}_FILE" for secret in SECRETS}, name


def test_compose_volumes_and_images_are_declared_and_pinned(compose):
    used = {v.partition(":")[0] for s in compose["services"].values() for v in s.get("volumes", []) if ":" in v}
    assert {volume for volume in used if not volume.startswith("/")} == set(compose["volumes"])
    for service in compose["services"].values():
        assert re.search(r":v?\d[\w.-]*$", service["image"])


def test_compose_example_names_every_variable_and_gives_no_value():
    wanted = set(re.findall(r"\$\{(\w+)", TEXT))
    example = variables(INFRA / "compose.env.example")
    assert wanted == example.keys() | (variables(INFRA / "images" / "images.env").keys() & wanted)
    assert set(example.values()) == {""}


def test_compose_gpus_are_not_shared(compose):
    devices = [
        d["device_ids"]
        for s in compose["services"].values()
        for d in s.get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices", [])
    ]
    assert sorted(devices) == [["0"], ["1"]]
