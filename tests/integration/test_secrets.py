"""No credential of the environment gets anywhere: not into Prefect, its logs and artifacts, nor into the store.

A whole small run on an object server, on what `make up` starts, with secrets in the environment; then every place is
searched for them. That the search would find them is shown by a flow that gives a word away.
"""

import base64
import gzip
import io
import pickle
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prefect.client.schemas.objects import State
from prefect.deployments.runner import EntrypointType, RunnerDeployment

from deployments import machine, pools
from flows.config import AlignConfig
from flows.server import PASSWORD
from tasks.processes import free_port
from tasks.store import Store
from tests.aligned import small_config
from tests.leaky_flow import CHANNELS, leaky
from tests.searching import Content, files, found_in, is_pickle, objects, rows_of_database
from tests.servers.access import aws_environment

pytestmark = pytest.mark.long
SECRETS = (
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN", "WANDB_API_KEY", "SOLON_NOTIFY_URL",
)  # fmt: skip
ROOT = Path(__file__).resolve().parents[2]
WORK = ("flows", "tasks", "constitutions", "deployments", "tests", "infra")


@pytest.fixture(scope="module")
def secrets() -> dict[str, str]:
    """Values that stand nowhere by chance."""
    return {name: f"{name.replace('_', '').lower()}{uuid.uuid4().hex}" for name in SECRETS}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to run in, so that `.solon` is this test's own; the code is linked into it."""
    folder = tmp_path_factory.mktemp("workplace")
    for name in WORK:
        (folder / name).symlink_to(ROOT / name)
    return folder


@pytest.fixture(scope="module")
def place(workplace: Path, moto_endpoint: str, secrets: dict[str, str]) -> Iterator["Place"]:
    """What `make up` starts, with the secrets in the environment, as here."""
    home = workplace / ".solon"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**aws_environment(moto_endpoint, workplace), **secrets}.items():
            patch.setenv(name, value)
        for module in (machine, pools):
            patch.setattr(module, "ROOT", workplace)
        patch.setenv("PYTHONPATH", str(workplace))
        try:
            yield Place(home, machine.up(home, free_port()).url)
        finally:
            machine.down(home)


class Place:
    """A machine that is up, runs on it, and everything that they write."""

    def __init__(self, home: Path, url: str) -> None:
        self.home, self.env = home, machine.environment(home, url)
        self.database = home / "prefect" / "prefect.db"
        self.secrets = [self.env["PREFECT_API_AUTH_STRING"].partition(":")[2]]

    def run(self, deployment: str, parameters: dict[str, object], seconds: float) -> State:
        """How a run of the deployment ended, once all that it said is written."""
        with machine.client_of(self.env) as client:
            found = client.read_deployment_by_name(deployment)
            run = client.create_flow_run_from_deployment(found.id, parameters=parameters).id
            deadline = time.monotonic() + seconds
            while not (state := client.read_flow_run(run).state) or not state.is_final():
                assert time.monotonic() < deadline, f"{deployment}: {state}, not ended within {seconds} s"
                time.sleep(1)
        event = (f"prefect.flow-run.{state.name}", f"prefect.flow-run.{run}")
        while not self.is_recorded(*event):  # events are written seconds after they came, in batches
            assert time.monotonic() < deadline, f"{event} was not recorded within {seconds} s"
            time.sleep(1)
        return state

    def is_recorded(self, event: str, resource: str) -> bool:
        with closing(sqlite3.connect(self.database)) as database:
            found = "SELECT 1 FROM events WHERE event = ? AND resource_id = ?"
            return database.execute(found, (event, resource)).fetchone() is not None

    def deploy_leaky(self) -> None:
        made = leaky.to_deployment("control", work_pool_name="cpu", entrypoint_type=EntrypointType.MODULE_PATH)
        assert isinstance(made, RunnerDeployment)
        with machine.client_of(self.env):
            made.apply()

    def contents(self, store: str) -> Iterator[Content]:
        """Prefect's database; its home and logs, and what a run leaves beside them; the store."""
        yield from rows_of_database(self.database)
        yield from (found for found in files(self.home) if Path(found[0]).name != PASSWORD)
        yield from objects(Store.open(store, cache=self.home.parent / "no-cache"))


def test_search_finds_what_a_flow_gives_away(place: Place) -> None:
    word, store = f"planted{uuid.uuid4().hex}", new_store()
    place.deploy_leaky()
    assert place.run("leaky/control", {"word": f"{word}-parameter", "store": store}, 400).is_failed()
    planted = [f"{word}-parameter", *(f"{word}-parameter-{channel}" for channel in CHANNELS[1:])]
    found = found_in(place.contents(store), planted)
    assert found.keys() == set(planted)
    tables = {name for names in found.values() for name in names if name.startswith("table ")}
    assert tables >= {f"table {name}" for name in ("flow_run", "flow_run_state", "log", "artifact", "events")}
    assert any(name.endswith(".parquet") for name in found[f"{word}-parameter-row"])


@pytest.mark.parametrize("executor", ["inline", "deployments"])
def test_secrets_of_the_environment_are_nowhere_after_a_run(
    executor: str, place: Place, secrets: dict[str, str], tmp_path: Path
) -> None:
    store, settings = new_store(), ["run.training.tracker=tensorboard", f"run.executor={executor}"]
    ended = place.run("align/micro", as_parameters(small_config(tmp_path, *settings), store), 3600)
    assert ended.is_completed(), ended
    held = list(place.contents(store))
    assert {"models/rl", "report"} <= set(Store.open(store).datasets())
    beside = {Path(name).relative_to(place.home).parts[0] for name, _ in held if name.startswith(str(place.home))}
    assert beside >= {"prefect", "logs", "reports", "trackers"}
    assert found_in(held, [*secrets.values(), *place.secrets]) == {}


def test_run_that_failed_gives_nothing_away_and_leaves_no_pickle(
    place: Place, secrets: dict[str, str], tmp_path: Path
) -> None:
    assert place.run("align/micro", as_parameters(small_config(tmp_path), "s3://Not_A_Bucket!/lab"), 400).is_failed()
    held = list(place.contents(new_store()))
    assert found_in(held, [*secrets.values(), *place.secrets]) == {}
    # Prefect keeps the error of a flow as a result, whatever is set about results, and by itself as a pickle
    assert [name for name, data in held if is_pickle(data)] == []


@pytest.mark.parametrize(
    "pack",
    [
        bytes,
        base64.b64encode,
        lambda data: base64.b64encode(b"x" + data),
        lambda data: base64.encodebytes(b"y" * 50 + data),
        lambda data: data.hex().encode(),
        gzip.compress,
        lambda data: as_parquet(data.decode()),
    ],
    ids=["plain", "base64", "base64 at an offset", "base64 in lines", "hexadecimal", "gzip", "parquet"],
)
def test_search_looks_into_what_is_packed(pack: Callable[[bytes], bytes]) -> None:
    places = [("with", pack(b"before the-word-that-is-sought after")), ("without", pack(b"nothing here"))]
    assert found_in(places, ["the-word-that-is-sought"]) == {"the-word-that-is-sought": {"with"}}


def test_is_pickle_knows_one_as_it_is_and_in_base64() -> None:
    pickled = pickle.dumps(RuntimeError("x"))
    assert is_pickle(pickled) and is_pickle(base64.encodebytes(pickled)) and not is_pickle(b'{"message": "x"}')


def as_parquet(text: str) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"text": [text] * 100}), buffer, compression="zstd")
    return buffer.getvalue()


def as_parameters(config: AlignConfig, store: str) -> dict[str, object]:
    config = config.model_copy(update={"run": config.run.model_copy(update={"store": store})})
    return {"config": config.model_dump(mode="json", exclude_none=True)}


def new_store() -> str:
    return f"s3://solon-{uuid.uuid4().hex[:12]}/lab"
