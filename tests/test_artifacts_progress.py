"""A stage's artifacts on a real Prefect server, and a stage whose server is away or refuses."""

import time
from collections import Counter
from typing import ClassVar
from uuid import UUID

import httpx
import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.objects import Artifact
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.artifacts import LiveArtifact, StageProgress, publish, shown
from flows.artifacts import live as live_module
from flows.artifacts.live import AWAY_SECONDS
from flows.execution import execute
from tasks.processes import free_port
from tasks.schema import DatasetRef, Prompt
from tasks.stage import RunContext, Session, Stage
from tasks.store import Store
from tasks.store.identity import rows_to_table
from tests.test_artifacts_rate import Clock
from tests.test_artifacts_samples import HARM, Item, completion
from tests.worlds import prompt

pytestmark = pytest.mark.usefixtures("prefect_home")


def artifacts_of(run: str) -> dict[str, Artifact]:
    """The artifacts of a flow run by key; each key has one."""
    with get_client(sync_client=True) as client:
        chosen = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[UUID(run)]))
        found = client.read_artifacts(artifact_filter=chosen, limit=200)
    assert len({a.key for a in found}) == len(found)
    return {str(a.key): a for a in found}


def events_of(run: str) -> list[dict]:
    """The events of a flow run, its end among them: the server writes them a little later."""
    asked = {"filter": {"any_resource": {"id": [f"prefect.flow-run.{run}"]}}, "limit": 50}
    for _ in range(150):
        with get_client(sync_client=True) as client:
            found = client.request("POST", "/events/filter", json=asked).json()["events"]
        if any(event["event"] == "prefect.flow-run.Completed" for event in found):
            return found
        time.sleep(0.2)
    raise AssertionError(f"the end of {run} is not among its events: {found}")


@flow
def updates(clock: Clock, states: list[tuple[float, int, int]]) -> str:
    """Updates of a stage called `start_gates`, each (seconds since the last one, done, total)."""
    progress = StageProgress("start_gates", clock)
    for seconds, done, total in states:
        clock.now += seconds
        progress.update(done, total, "so far so good")
    return str(flow_run.id)


def test_progress_is_one_artifact_with_percent_and_words():
    found = artifacts_of(updates(Clock(), [(0, 0, 40), (10, 10, 40), (10, 30, 40)]))
    assert set(found) == {"progress-start-gates"}
    progress = found["progress-start-gates"]
    assert (progress.type, progress.data) == ("progress", 75.0)
    assert progress.description == "30 of 40 rows, 1.5 rows/s, about 7 s left; so far so good"


def test_progress_faster_than_the_eye_is_not_sent_but_its_end_is():
    early = artifacts_of(updates(Clock(), [(0, 1, 40), (0.1, 2, 40), (0.1, 3, 40)]))
    assert early["progress-start-gates"].data == 2.5
    ended = artifacts_of(updates(Clock(), [(0, 1, 40), (0.1, 2, 40), (0.1, 40, 40)]))
    assert ended["progress-start-gates"].data == 100.0


def test_progress_of_a_stage_without_rows_is_all_of_it():
    assert artifacts_of(updates(Clock(), [(0, 0, 0)]))["progress-start-gates"].data == 100.0


def test_progress_while_waiting_names_who_is_waited_for_as_text():
    @flow
    def waits() -> str:
        clock = Clock()
        progress = StageProgress("revise", clock)
        clock.now += 95
        progress.waiting("host <b>x</b> process 7")
        return str(flow_run.id)

    said = str(artifacts_of(waits())["progress-revise"].description)
    assert "2 min so far" in said and "process 7" in said and "<b>" not in said


def test_samples_are_replaced_as_chunks_finish_and_leave_no_text_in_events():
    @flow
    def writes() -> str:
        clock = Clock()
        progress = StageProgress("respond", clock)
        for number in range(3):
            clock.now += 60
            progress.rows([completion(HARM, f"saidbymodel{number}")], [Item(HARM)])
            progress.update(number + 1, 3, "")
        return str(flow_run.id)

    run = writes()
    samples = artifacts_of(run)["samples-respond"]
    assert "saidbymodel2" in str(samples.data) and samples.description == "The newest 3 of 3 rows"
    assert "saidbymodel" not in str(events_of(run))


def test_publish_leaves_no_text_in_events():
    @flow
    def writes() -> str:
        publish("before-after", ["<p>saidbymodel</p>"], "d")
        return str(flow_run.id)

    run = writes()
    assert "saidbymodel" in str(artifacts_of(run)["before-after"].data)
    assert "saidbymodel" not in str(events_of(run))


def test_publish_artifact_too_large_is_bounded():
    @flow
    def large() -> str:
        publish("large", [f"<p>{'x' * 50_000}</p>"] * 30, "d")
        return str(flow_run.id)

    assert len(str(artifacts_of(large())["large"].data)) < 100_000


class OnePrompt(Stage):
    """A stage that shows all there is to show, and commits one row."""

    stage: ClassVar[str] = "prompts"
    dataset: ClassVar[str] = "prompts"
    code_version: ClassVar[int] = 1

    def make(self, session: Session) -> DatasetRef:
        session.progress.rows([completion(HARM, "text")], [Item(HARM)])
        session.progress.trained("sft", {"history": [{"step": 1, "loss": 1.0}], "final": {"num_steps": 1}})
        session.progress.update(1, 1, "")
        rows = rows_to_table([prompt("ask")], Prompt)
        return session.store.commit_rows(self.derivation(session.store), rows, metrics={}, cost={})


class Broken(httpx.BaseTransport):
    """An API that breaks in one way."""

    def __init__(self, error: Exception | int) -> None:
        self.error = error
        self.asked: Counter[str] = Counter()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.asked[request.url.path] += 1
        if isinstance(self.error, int):
            return httpx.Response(self.error, json={"detail": "no"})
        raise self.error


@pytest.mark.parametrize("error", [httpx.ConnectError("away"), httpx.ReadTimeout("hangs"), 500, 503, 409, 404])
def test_stage_goes_on_where_the_api_is_away_or_refuses(tmp_path, monkeypatch, error):
    broken, stage = Broken(error), OnePrompt(run=RunContext(store=str(tmp_path)))
    monkeypatch.setattr(
        live_module, "get_client", lambda **how: get_client(**how, httpx_settings={"transport": broken})
    )

    @flow
    def one_stage() -> DatasetRef:
        return execute(stage)

    assert one_stage() == stage.result(Store.open(str(tmp_path)))
    assert set(broken.asked.values()) == {3}, "each artifact was tried once, and not again and again"


def test_live_artifact_comes_back_with_the_server_and_does_not_ask_all_the_time():
    clock = Clock()

    @flow
    def goes_away() -> str:
        progress = LiveArtifact("back", "markdown", 1.0, clock)
        with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api"}):
            progress.show("lost", "d")
        assert not progress.is_due()
        clock.now += AWAY_SECONDS
        assert progress.is_due()
        progress.show("there", "d")
        return str(flow_run.id)

    assert artifacts_of(goes_away())["back"].data == "there"


def test_live_artifact_that_somebody_deleted_is_a_warning():
    @flow
    def deleted() -> None:
        artifact = LiveArtifact("deleted", "markdown", 1.0)
        artifact.show("a", "d")
        with get_client(sync_client=True) as client:
            client.delete_artifact(artifacts_of(str(flow_run.id))["deleted"].id)
        artifact.show("b", "d")

    deleted()


def test_shown_takes_no_error_of_ours():
    @flow
    def wrong() -> None:
        with shown("wrong"):
            raise TypeError("a mistake")

    with pytest.raises(TypeError, match="a mistake"):
        wrong()
