"""The cluster's pools: rendered by Prefect's own code, valid for Kubernetes, and no misspelt variable gets through."""

import asyncio
import json
from typing import Any

import pytest
from kubernetes_validate import ValidationError
from prefect.client.orchestration import PrefectClient, SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_AUTH_STRING, temporary_settings
from prefect_kubernetes.worker import KubernetesWorker, KubernetesWorkerJobConfiguration

from deployments.deploy import definition
from deployments.deploy import read_file as read_specs
from deployments.job_templates import UnknownVariable, base_job_template, read_file, service_account
from deployments.pools import POOLS, OtherType, ensure_pools
from tests.cluster_files import objects, validate

NAMES = [pool.name for pool in POOLS]
GPU_POOLS = [name for name in NAMES if name.startswith("gpu-")]
PASSWORD = "solon:never-to-be-seen"


def configured(pool: str, **variables: Any) -> KubernetesWorkerJobConfiguration:
    """As a worker makes it of the pool's template and of job variables, which name nothing that a server would know."""
    nobody = PrefectClient("http://127.0.0.1:9/api")
    made = KubernetesWorkerJobConfiguration.from_template_and_values(base_job_template(pool), variables, client=nobody)
    return asyncio.run(made)


def rendered(pool: str, **variables: Any) -> dict[str, Any]:
    """The Job that a worker would send for a run."""
    configuration = configured(pool, **variables)
    configuration.prepare_for_flow_run(FlowRun(flow_id="00000000-0000-0000-0000-000000000000", name="a-run"))
    return configuration.job_manifest


def pod_of(job: dict[str, Any]) -> dict[str, Any]:
    return job["spec"]["template"]["spec"]


def environment_of(job: dict[str, Any]) -> dict[str, Any]:
    return {entry["name"]: entry for entry in pod_of(job)["containers"][0]["env"]}


@pytest.mark.parametrize("pool", NAMES)
def test_job_of_each_pool_is_valid_for_kubernetes(pool):
    job = rendered(pool)
    # Prefect wants both in the pod's spec, where Kubernetes knows neither; nothing else may be unknown to it
    assert pod_of(job).pop("parallelism") == pod_of(job).pop("completions") == 1
    validate(job)
    pod_of(job)["nodeSelctor"] = {}
    with pytest.raises(ValidationError, match="nodeSelctor"):
        validate(job)


def test_job_with_every_variable_given_is_valid_and_says_what_was_given():
    toleration = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    job = rendered(
        "gpu-training",
        gpu_count=8,
        node_selector={"accelerator": "h200"},
        tolerations=[toleration],
        shm_size="64Gi",
        scratch_size="1Ti",
        priority_class_name="urgent",
        env_from_secret=[{"secretRef": {"name": "another"}}],
        service_account_name="somebody",
        finished_job_ttl=600,
        labels={"kueue.x-k8s.io/queue-name": "solon"},
        env={"HF_HUB_OFFLINE": "1"},
        image="registry.example.com/solon-trainer:0.2.0",
        cpu_request="90",
        memory_request="900Gi",
        memory_limit="1000Gi",
    )
    pod = pod_of(job)
    del pod["parallelism"], pod["completions"]
    validate(job)
    [container] = pod["containers"]
    assert container["resources"] == {
        "requests": {"cpu": "90", "memory": "900Gi"},
        "limits": {"memory": "1000Gi", "nvidia.com/gpu": 8},
    }
    assert pod["nodeSelector"] == {"accelerator": "h200"} and pod["tolerations"] == [toleration]
    assert {volume["name"]: volume["emptyDir"]["sizeLimit"] for volume in pod["volumes"]} == {
        "scratch": "1Ti",
        "tmp": "10Gi",
        "shm": "64Gi",
    }
    assert (pod["priorityClassName"], pod["serviceAccountName"]) == ("urgent", "somebody")
    assert container["envFrom"] == [{"secretRef": {"name": "another"}}]
    assert container["image"].endswith("solon-trainer:0.2.0") and job["spec"]["ttlSecondsAfterFinished"] == 600
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "solon"
    assert environment_of(job)["HF_HUB_OFFLINE"]["value"] == "1"


@pytest.mark.parametrize("pool", NAMES)
def test_job_runs_without_rights_and_keeps_its_own_account_and_labels(pool):
    job = rendered(pool)
    pod, template = pod_of(job), job["spec"]["template"]
    security = pod["containers"][0]["securityContext"]
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["seccompProfile"]
    assert security["readOnlyRootFilesystem"] and security["capabilities"] == {"drop": ["ALL"]}
    assert security["allowPrivilegeEscalation"] is False
    assert pod["serviceAccountName"] == f"solon-{pool}"
    assert template["metadata"]["labels"] | {"solon/role": "run", "solon/pool": pool} == template["metadata"]["labels"]
    assert job["spec"]["backoffLimit"] == 0
    requested = pod["containers"][0]["resources"]["requests"]
    assert set(requested) == {"cpu", "memory"}


@pytest.mark.parametrize("pool", GPU_POOLS)
def test_job_on_gpu_pools_may_wait_half_an_hour_for_its_node(pool):
    assert configured(pool).pod_watch_timeout_seconds >= 1800


def test_job_of_trainings_alone_has_a_gpu_by_default():
    gpus = {pool: pod_of(rendered(pool))["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] for pool in NAMES}
    assert gpus == {"cpu": 0, "gpu-inference": 0, "gpu-training": 1}


def test_job_that_reaches_the_cluster_has_no_password(monkeypatch):
    sent = []

    class Cluster:
        def __init__(self, client: object) -> None:
            pass

        async def create_namespaced_job(self, namespace: str, manifest: dict[str, Any]) -> None:
            sent.append((namespace, manifest))

    # what the worker's chart sets where it is given an existing secret
    monkeypatch.setenv("PREFECT_INTEGRATIONS_KUBERNETES_WORKER_API_AUTH_STRING_SECRET_NAME", "prefect-auth")
    monkeypatch.setenv("PREFECT_INTEGRATIONS_KUBERNETES_WORKER_API_AUTH_STRING_SECRET_KEY", "auth-string")
    monkeypatch.setattr("prefect_kubernetes.worker.BatchV1Api", Cluster)
    with temporary_settings({PREFECT_API_AUTH_STRING: PASSWORD}):
        configuration = configured("cpu")
        configuration.prepare_for_flow_run(FlowRun(flow_id="00000000-0000-0000-0000-000000000000", name="a-run"))
        assert configuration.get_environment_variable_value("PREFECT_API_AUTH_STRING") == PASSWORD
        asyncio.run(KubernetesWorker("cpu")._create_job(configuration, client=None))
    [(namespace, job)] = sent
    assert namespace == "solon" and PASSWORD not in json.dumps(job)
    reference = environment_of(job)["PREFECT_API_AUTH_STRING"]["valueFrom"]["secretKeyRef"]
    assert reference == {"name": "prefect-auth", "key": "auth-string"}


def test_variables_are_all_used_and_all_placeholders_are_variables():
    from prefect.utilities.templating import find_placeholders

    template = base_job_template("cpu")
    used = {found.name for found in find_placeholders(template["job_configuration"])}
    assert used == set(template["variables"]["properties"])


def test_deployment_with_a_misspelt_variable_is_refused_by_name():
    from flows.gc import gc

    spec = {"name": "store", "entrypoint": "flows.gc.gc", "tags": [], "parameters": {}}
    pool = {"name": "cpu", "work_queue_name": "low", "job_variables": {"gpu_cuont": 8}}
    with pytest.raises(UnknownVariable, match=r"gc/store: job variable 'gpu_cuont' is unknown; .* 'gpu_count'"):
        definition(gc, {**spec, "work_pool": pool})
    pool["job_variables"] = {"gpu_count": 8}
    assert definition(gc, {**spec, "work_pool": pool})["job_variables"] == {
        "gpu_count": 8,
        "service_account_name": "solon-gc",
    }


def test_deployments_have_service_accounts_that_are_there():
    accounts = {found["metadata"]["name"] for found in objects() if found["kind"] == "ServiceAccount"}
    flows = {spec["entrypoint"].rpartition(".")[2].replace("_", "-") for spec in read_specs()}
    assert {service_account(flow) for flow in flows} <= accounts
    assert {f"solon-{pool}" for pool in NAMES} <= accounts


def test_template_with_a_default_for_no_variable_is_refused(monkeypatch):
    read = json.loads(json.dumps(read_file()))
    read["pools"]["cpu"]["completely_else"] = 1
    monkeypatch.setattr("deployments.job_templates.read_file", lambda: read)
    with pytest.raises(UnknownVariable, match=r"pool cpu: job variable 'completely_else' is unknown; expected one of"):
        base_job_template("cpu")


@pytest.fixture
def server(prefect_home):
    with get_client(sync_client=True) as client:
        yield client
        for name in NAMES:
            client.delete_work_pool(name)


def test_pools_on_a_server_have_the_templates_and_refuse_unknown_variables(server: SyncPrefectClient):
    from prefect.exceptions import PrefectHTTPStatusError

    from flows.gc import gc

    for _ in range(2):  # again is harmless
        ensure_pools(server, "kubernetes")
    for pool in POOLS:
        there = server.read_work_pool(pool.name)
        assert (there.type, there.concurrency_limit) == ("kubernetes", pool.limit)
        assert there.base_job_template == base_job_template(pool.name)
        assert {queue.name for queue in server.read_work_queues(work_pool_name=pool.name)} == {"high", "default", "low"}
    wanted = {"name": "once", "flow_id": str(server.create_flow(gc)), "work_pool_name": "cpu"}
    deployment = server.request("POST", "/deployments/", json=wanted).json()["id"]
    assert server.create_flow_run_from_deployment(deployment, job_variables={"cpu_request": "2"}).id
    for variables in ({"cpu_reqeust": "2"}, {"cpu_request": 2}, {"image": "solon-orchestrator"}):
        with pytest.raises(PrefectHTTPStatusError) as refused:
            server.create_flow_run_from_deployment(deployment, job_variables=variables)
        assert next(iter(variables)) in refused.value.response.text
    with pytest.raises(OtherType, match="pool cpu is of type kubernetes, expected process"):
        ensure_pools(server, "process")
    server.delete_deployment(deployment)
