"""Bad values and typos are refused by a real Prefect server with the field's name; what only a validator sees ends the
run before any stage."""

import json
from collections.abc import Iterator
from copy import deepcopy
from typing import Any
from uuid import UUID

import httpx
import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId, FlowRunFilter
from prefect.client.schemas.filters import FlowRunFilterParentFlowRunId as Parent
from prefect.exceptions import PrefectHTTPStatusError
from prefect.flow_engine import run_flow

from deployments.deploy import definition, read_file
from flows.align import align

pytestmark = pytest.mark.usefixtures("prefect_home")
GONE = "left out"
"""Stands for a field that is not sent."""


def nested(depth: int) -> Any:
    value: Any = "deep"
    for _ in range(depth):
        value = {"a": value}
    return value


class Deployed:
    """`align/micro` as `make up` makes it, without a pool: nothing takes its runs."""

    def __init__(self, client: SyncPrefectClient) -> None:
        self.client = client
        spec = next(
            spec for spec in read_file() if spec["entrypoint"] == "flows.align.align" and spec["name"] == "micro"
        )
        wanted = {**definition(align, spec), "work_pool_name": None, "work_queue_name": None}
        flow_id = str(client.create_flow(align))
        self.id = UUID(client.request("POST", "/deployments/", json={**wanted, "flow_id": flow_id}).json()["id"])
        self.parameters: dict[str, Any] = wanted["parameters"]

    def with_values(self, values: dict[str, Any]) -> dict[str, Any]:
        """The deployment's parameters with some fields, by their full names, changed."""
        parameters = deepcopy(self.parameters)
        for path, value in values.items():
            *sections, name = path.split(".")
            inner = parameters
            for section in sections:
                inner = inner[section]
            if value == GONE:
                del inner[name]
            else:
                inner[name] = value
        return parameters

    def start(self, parameters: dict[str, Any]) -> UUID:
        """A new run. Raises: PrefectHTTPStatusError: the server refuses."""
        body = json.dumps({"parameters": parameters})  # Python's JSON has infinities
        path = f"/deployments/{self.id}/create_flow_run"
        answer = self.client._client.post(path, content=body, headers={"content-type": "application/json"})
        return UUID(answer.json()["id"])

    def num_runs(self) -> int:
        return self.client.count_flow_runs(deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[self.id])))


@pytest.fixture(scope="module")
def deployed(prefect_home: Any) -> Iterator[Deployed]:
    with get_client(sync_client=True) as client:
        yield Deployed(client)


BAD = [
    ("config.run.seed", -1, "config.run.seed"),
    ("config.run.seed", "seven", "config.run.seed"),
    ("config.run.seed", 2**60, "config.run.seed"),  # more than a browser counts exactly
    ("config.run.chunk_rows", -5, "config.run.chunk_rows"),
    ("config.run.force", ["revize"], "config.run.force"),
    ("config.run.force", "revise", "config.run.force"),
    ("config.run.rerun_from", "last", "config.run.rerun_from"),
    ("config.run.executor", "kubernetes", "config.run.executor"),
    ("config.run.store", "", "config.run.store"),
    ("config.run.serving.port", 70_000, "config.run.serving.port"),
    ("config.run.serving.url", "localhost:8000", "config.run.serving.url"),
    ("config.run.training.tracker", "mlflow", "config.run.training.tracker"),
    ("config.revise.num_rounds", 0, "config.revise.num_rounds"),
    ("config.revise.num_rounds", 2.5, "config.revise.num_rounds"),
    ("config.revise.num_rounds", "4", "config.revise.num_rounds"),
    ("config.revise.num_rounds", None, "config.revise.num_rounds"),
    ("config.revise.num_rounds", GONE, "num_rounds"),
    ("config.revise.num_round", 4, "num_round"),
    ("config.revise", None, "config.revise"),
    ("config.revise", [], "config.revise"),
    ("config.revize", {}, "revize"),
    ("config", "micro", "config"),
    ("konfig", {}, "konfig"),
    ("config.rl.algorithm", "pppo", "config.rl.algorithm"),
    ("config.rl.ppo.clip_range", 1, "config.rl.ppo.clip_range"),
    ("config.reward.learning_rate", 0, "config.reward.learning_rate"),
    ("config.reward.learning_rate", 30, "config.reward.learning_rate"),
    ("config.reward.learning_rate", float("inf"), "config.reward.learning_rate"),
    ("config.reward.learning_rate", float("nan"), "config.reward.learning_rate"),
    ("config.rl.ppo.kl_coef", float("inf"), "config.rl.ppo.kl_coef"),
    ("config.reward.held_out_fraction", 1.5, "config.reward.held_out_fraction"),
    ("config.gates.max_swap_loss", "NaN", "config.gates.max_swap_loss"),
    ("config.models.helpful_only", "", "config.models.helpful_only"),
    ("config.models.helpful_only", nested(50), "config.models.helpful_only"),
    ("config.models.pretrained", GONE, "pretrained"),
    ("config.models.jury", {"second": "x"}, "config.models.jury"),
    ("config.models.jury", [{"name": "a b", "model": "x"}], "config.models.jury"),
    ("config.models.jury", [{"name": "second", "modell": "x"}], "config.models.jury"),
    ("config.constitution", "constitutions/../secret.yaml", "config.constitution"),
    ("config.constitution", "constitutions/harmlesness.yaml", "config.constitution"),
    ("config.constitution_version", "../../etc/passwd", "config.constitution_version"),
]


@pytest.mark.parametrize(("path", "value", "named"), BAD, ids=lambda value: str(value)[:40])
def test_forms_bad_value_is_refused_by_name_and_starts_nothing(deployed, path, value, named):
    before = deployed.num_runs()
    with pytest.raises(PrefectHTTPStatusError) as refused:
        deployed.start(deployed.with_values({path: value}))
    detail = refused.value.response.json()["detail"]
    assert refused.value.response.status_code == httpx.codes.CONFLICT and named in detail.partition(" not valid ")[0]
    assert deployed.num_runs() == before


def test_forms_the_defaults_are_taken_as_they_are(deployed):
    run = deployed.client.read_flow_run(deployed.start({}))
    assert run.parameters == deployed.parameters


CROSSED = [
    ({"config.rl.ppo.batch_size": 100}, "config.rl.ppo", "batch_size is 100, expected a multiple of mini_batch_size"),
    ({"config.rl.ppo.mini_batch_size": 256}, "config.rl.ppo", "mini_batch_size (256)"),
    ({"config.reward.micro_batch_size": 5}, "config.reward", "micro_batch_size (5)"),
    ({"config.sft.training.batch_size": 10}, "config.sft.training", "batch_size is 10"),
    ({"config.rl.group.group_size": 5}, "config.rl.group", "group_size (5)"),
    ({"config.rl.algorithm": "dpo", "config.rl.num_rounds": 2}, "config.rl", "num_rounds is 2"),
    ({"config.label.num_samples": 3}, "config.label", "num_samples: 3"),
    ({"config.preferences.human": "", "config.preferences.human_fraction": 0.5}, "config.preferences", "human"),
    (
        {"config.run.serving.url": "http://127.0.0.1:1", "config.run.serving.engine": "transformers"},
        "config.run.serving",
        "url",
    ),
    ({"config.models.jury": [{"name": "feedback", "model": "x"}]}, "config.models.jury", "feedback"),
    ({"config.models.jury": [{"name": "again", "model": "tasks/micro/model"}]}, "models.jury.again", "same model"),
    ({"config.models.feedback": "tasks/nowhere"}, "", "tasks/nowhere"),
]


@pytest.mark.parametrize(("values", "section", "says"), CROSSED, ids=lambda value: str(value)[:60])
def test_forms_what_only_a_validator_sees_ends_the_run_before_any_stage(deployed, tmp_path, values, section, says):
    run = deployed.client.read_flow_run(
        deployed.start(deployed.with_values({"config.run.store": str(tmp_path), **values}))
    )
    state = run_flow(align, flow_run=run, parameters=run.parameters, return_type="state")
    assert state.is_failed() and section in state.message and says in state.message
    below = FlowRunFilter(parent_flow_run_id=Parent(any_=[run.id]))
    assert deployed.client.read_flow_runs(flow_run_filter=below) == []
    assert not list(tmp_path.rglob("*.json"))  # no manifest, no claim
    seen = deployed.client.read_flow_run(run.id).state
    assert seen and seen.is_failed() and says in (seen.message or "")
