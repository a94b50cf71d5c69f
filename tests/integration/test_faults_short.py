"""The short form of `make test-faults`: a race with each kind of fault, and the controls that must break something."""

import random
from pathlib import Path

import pytest

from infra.debian_tools import Missing
from tests.faults import machine
from tests.faults.rounds import Place, race
from tests.faults.scenarios import control_careless, control_unconditional, through_proxy
from tests.servers.access import aws_environment


@pytest.fixture
def folder(tmp_path: Path) -> Place:
    return Place("folder", str(tmp_path / "store"), {})


@pytest.fixture
def moto_place(s3_environment: str, s3_uri: str, tmp_path: Path) -> Place:
    return Place("moto", s3_uri, aws_environment(s3_environment, tmp_path))


@pytest.fixture
def radosgw_place(radosgw_endpoint: str, radosgw_uri: str, tmp_path: Path) -> Place:
    return Place("radosgw", radosgw_uri, aws_environment(radosgw_endpoint, tmp_path))


def test_race_and_kill_in_a_folder_break_nothing(folder: Place) -> None:
    found = race(folder, random.Random(0), kills=4)
    assert found.violations == ()
    assert found.killed >= 4 and found.commits >= 5


@pytest.mark.parametrize("place", ["moto_place", "radosgw_place"])
def test_race_under_all_faults_breaks_nothing(place: str, request: pytest.FixtureRequest) -> None:
    found = through_proxy(request.getfixturevalue(place), "all mixed, kill -9", random.Random(0))
    assert found.violations == ()
    assert found.killed >= 2 and found.injected >= 20 and found.commits >= 5


def test_race_on_a_mutant_store_is_noticed(folder: Place) -> None:
    assert "two winners" in "".join(control_unconditional(folder, random.Random(0)).violations)


def test_race_on_a_careless_server_is_noticed(moto_place: Place) -> None:
    assert "two winners" in "".join(control_careless(moto_place, random.Random(0)).violations)


def test_full_disk_is_a_named_error_and_loses_nothing() -> None:
    try:
        found = machine.disk_full(512)
    except Missing as error:
        pytest.skip(str(error))
    assert found.violations == ()
    assert found.errors and found.commits
