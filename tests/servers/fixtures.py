"""pytest's view of the test servers: one moto and one radosgw a session, and stores on them."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.debian_tools import Missing, fetch
from tests.servers.access import UNWANTED, aws_environment
from tests.servers.moto import moto
from tests.servers.radosgw import radosgw


@pytest.fixture(scope="session")
def moto_endpoint() -> Iterator[str]:
    """The address of an in-memory S3 server that judges conditional writes as AWS does."""
    with moto() as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def radosgw_endpoint() -> Iterator[str]:
    """The address of a Ceph; skips where this machine cannot have one, with the reason."""
    try:
        fetch("ceph")
    except Missing as error:
        pytest.skip(str(error))
    with radosgw("memstore") as server:
        yield server.endpoint


@pytest.fixture
def s3_endpoint(moto_endpoint: str) -> str:
    """The server of a test that asks for S3 and does not say which."""
    return moto_endpoint


@pytest.fixture
def s3_environment(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Credentials and endpoint where the store looks for them: in the environment, and nowhere else."""
    return point_at(s3_endpoint, monkeypatch, tmp_path)


@pytest.fixture
def s3_uri(s3_environment: str) -> str:
    """A store address in a bucket of this test's own, which does not exist yet."""
    return new_uri()


@pytest.fixture
def radosgw_uri(radosgw_endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The same on a Ceph."""
    point_at(radosgw_endpoint, monkeypatch, tmp_path)
    return new_uri()


@pytest.fixture(params=["moto", "radosgw"])
def object_uri(request: pytest.FixtureRequest) -> str:
    """A store address on each object server; its own address is in AWS_ENDPOINT_URL."""
    return request.getfixturevalue({"moto": "s3_uri", "radosgw": "radosgw_uri"}[request.param])


@pytest.fixture(params=["folder", "moto", "radosgw"])
def store_uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty store in a folder and on each object server."""
    if request.param == "folder":
        return str(tmp_path / "store")
    return request.getfixturevalue({"moto": "s3_uri", "radosgw": "radosgw_uri"}[request.param])


def point_at(endpoint: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> str:
    for name, value in aws_environment(endpoint, folder).items():
        monkeypatch.setenv(name, value)
    for name in UNWANTED:
        monkeypatch.delenv(name, raising=False)
    return endpoint


def new_uri() -> str:
    return f"s3://solon-{uuid.uuid4().hex[:12]}/lab/run"
