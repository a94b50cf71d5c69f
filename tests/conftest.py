"""One Prefect server for the whole session, and no network, telemetry or extra threads in any test."""

import os
import shutil
import tempfile

os.environ.update(
    OMP_NUM_THREADS="1",
    TOKENIZERS_PARALLELISM="false",
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    DO_NOT_TRACK="1",
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
    PREFECT_RESULTS_PERSIST_BY_DEFAULT="false",
    PREFECT_RESULTS_DEFAULT_SERIALIZER="json",
    PREFECT_HOME=tempfile.mkdtemp(prefix="prefect-home-"),  # else it is the user's, and keeps what failed runs write
)

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.servers.fixtures import (
    moto_endpoint,
    object_uri,
    radosgw_endpoint,
    radosgw_uri,
    s3_endpoint,
    s3_environment,
    s3_uri,
    store_uri,
)

if TYPE_CHECKING:
    from flows.config import AlignConfig
    from flows.runner import AlignResult

__all__ = [
    "moto_endpoint",
    "object_uri",
    "radosgw_endpoint",
    "radosgw_uri",
    "s3_endpoint",
    "s3_environment",
    "s3_uri",
    "store_uri",
]


def pytest_unconfigure() -> None:
    shutil.rmtree(os.environ["PREFECT_HOME"], ignore_errors=True)


@pytest.fixture(scope="session")
def prefect_home() -> Iterator[Path]:
    """A real Prefect server with a home of its own, started by the first test that runs a flow."""
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, PREFECT_HOME, temporary_settings
    from prefect.testing.utilities import prefect_test_harness

    # a heartbeat's thread costs each flow a second at its end
    with (
        prefect_test_harness(server_startup_timeout=120),
        temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),
    ):
        yield Path(PREFECT_HOME.value())


@pytest.fixture(scope="session")
def first_run(tmp_path_factory: pytest.TempPathFactory, prefect_home: Path) -> "tuple[AlignConfig, AlignResult]":
    """The config and result of one small alignment run; who wants to change its store works on a copy."""
    from flows.align import align
    from tests.aligned import small_config

    config = small_config(tmp_path_factory.mktemp("align"))
    return config, align(config)
