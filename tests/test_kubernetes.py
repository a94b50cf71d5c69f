"""What is applied to a cluster: valid for Kubernetes, confined, pinned, without a credential, and consistent."""

import re
from pathlib import Path

import pytest
import yaml

from tests.cluster_files import (
    FILES,
    FOLDER,
    MANIFESTS,
    ROOT,
    VALUES,
    documents,
    entries,
    named,
    objects,
    pods,
    validate,
)

# Custom resources, which Kubernetes' own schemas lack: the fields that we use, as KEDA 2.20 and Kueue 0.19 define
# them. Both files were held against those definitions once, by hand.
FIELDS = {
    "ScaledObject": {
        "scaleTargetRef": {"apiVersion", "kind", "name"},
        "minReplicaCount": None,
        "maxReplicaCount": None,
        "pollingInterval": None,
        "cooldownPeriod": None,
        "fallback": {"failureThreshold", "replicas"},
        "advanced": {"horizontalPodAutoscalerConfig"},
        "triggers": {"type", "metricType", "metadata"},
    },
    "ResourceFlavor": {"nodeLabels": None, "tolerations": {"key", "operator", "effect"}},
    "ClusterQueue": {
        "namespaceSelector": {"matchLabels"},
        "queueingStrategy": None,
        "preemption": {"withinClusterQueue"},
        "resourceGroups": {"coveredResources", "flavors"},
    },
    "LocalQueue": {"clusterQueue": None},
}
PODS = pods()
SECRET_WORD = re.compile(
    r"password|passwd|secret_?key|access_?key|api_?key|token$|auth_?string|connection_?string|requirepass", re.I
)
LOOKS_SECRET = re.compile(r"AKIA[0-9A-Z]{16}|hf_[A-Za-z]{20}|-----BEGIN|://[^/\s:]+:[^/\s@]+@|eyJ[A-Za-z0-9_-]{20}")


def keyed(found: dict) -> str:
    return f"{found['kind']} {found['metadata'].get('namespace', '')} {found['metadata']['name']}"


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifests_are_valid_for_kubernetes(path):
    for found in documents(path):
        if found["kind"] not in FIELDS:
            validate(found)


def test_manifests_of_custom_resources_use_fields_that_there_are():
    custom = [found for found in objects() if found["kind"] in FIELDS]
    assert {found["kind"] for found in custom} == set(FIELDS)
    for found in custom:
        known = FIELDS[found["kind"]]
        for field, value in found["spec"].items():
            assert field in known, keyed(found)
            for each in value if isinstance(value, list) else [value]:
                assert not isinstance(each, dict) or known[field] is None or set(each) <= known[field], field


def test_manifests_are_each_there_once_and_listed():
    listed = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
    assert sorted(listed) == sorted(path.name for path in MANIFESTS if path.parent == FOLDER)
    keys = [keyed(found) for found in objects()]
    assert len(keys) == len(set(keys))
    namespaces = {found["metadata"]["name"] for found in objects() if found["kind"] == "Namespace"}
    assert {found["metadata"].get("namespace") for found in objects()} <= namespaces | {None}


@pytest.mark.parametrize("path", [*FILES, *VALUES, ROOT / "deployments" / "job_templates.yaml"], ids=lambda p: p.name)
def test_cluster_files_say_at_their_top_that_they_were_not_applied(path):
    top = path.read_text()[:900].lower()
    assert top.startswith("#")
    assert "not applied" in top or "not rendered" in top or "not run on a cluster" in top


@pytest.mark.parametrize("path", [*FILES, *VALUES, ROOT / "deployments" / "job_templates.yaml"], ids=lambda p: p.name)
def test_cluster_files_hold_no_credential(path):
    assert not LOOKS_SECRET.search(path.read_text())
    for found in documents(path):
        assert found.get("kind") != "Secret"
        for name, value in entries(found):
            key = name.rpartition(".")[2]
            references = {
                "existingSecretKey",
                "existingSecretPasswordKey",
                "connectionStringSecretKey",
                "automountServiceAccountToken",
            }
            assert key in references or not SECRET_WORD.search(key) or value in ("", None), f"{name}: {value}"
        for env in environments(found):
            assert "valueFrom" in env or not SECRET_WORD.search(env["name"]), env["name"]


def environments(value: object) -> list[dict]:
    if isinstance(value, dict):
        own = value["env"] if isinstance(value.get("env"), list) else []
        return [*own, *(env for inner in value.values() for env in environments(inner))]
    return [env for inner in value for env in environments(inner)] if isinstance(value, list) else []


@pytest.mark.parametrize("name", PODS)
def test_pods_have_pinned_images_and_no_rights(name):
    spec = PODS[name]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in spec["containers"]:
        assert re.search(r":v?\d+\.\d+\.\d+[\w.-]*$", container["image"]), container["image"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
        assert "memory" in container["resources"]["limits"]
        volumes = {volume["name"] for volume in spec["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes


@pytest.mark.parametrize("name", PODS)
def test_pods_name_accounts_and_priorities_that_are_there(name):
    spec = PODS[name]["spec"]
    assert named("PriorityClass", spec["priorityClassName"])
    if "serviceAccountName" in spec:
        account = named("ServiceAccount", spec["serviceAccountName"], "solon")
        assert account["automountServiceAccountToken"] is False
    else:
        assert spec["automountServiceAccountToken"] is False


def test_accounts_of_trainings_alone_may_speak_to_kubernetes():
    binding, role = named("RoleBinding", "solon-training"), named("Role", "solon-training")
    bound = {subject["name"] for subject in binding["subjects"]}
    mounted = {found["metadata"]["name"] for found in objects() if found.get("automountServiceAccountToken")}
    assert bound == mounted == {"solon-sft", "solon-reward", "solon-held-out-reward", "solon-rl"}
    assert all("*" not in [*rule["verbs"], *rule["resources"], *rule["apiGroups"]] for rule in role["rules"])
    assert "secrets" not in {name for rule in role["rules"] for name in rule["resources"]}


def test_vllm_drains_before_it_is_killed_and_starts_again_however_it_ended():
    deployment = named("Deployment", "vllm")
    spec = deployment["spec"]["template"]["spec"]
    [container] = spec["containers"]
    arguments = dict(argument.removeprefix("--").partition("=")[::2] for argument in container["args"])
    pause = int(container["lifecycle"]["preStop"]["exec"]["command"][-1])
    assert spec["terminationGracePeriodSeconds"] > int(arguments["shutdown-timeout"]) + pause
    assert spec["restartPolicy"] == "Always" and "replicas" not in deployment["spec"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": "/health", "port": "http"}
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 1800
    assert container["ports"] == [{"name": "http", "containerPort": int(arguments["port"])}]
    pinned = re.search(r"^vllm==([\d.]+)", (ROOT / "infra/requirements/vllm-cuda.txt").read_text(), re.M)
    assert pinned and container["image"].endswith(f":v{pinned[1]}")


def test_vllm_service_budget_and_scaling_are_about_its_pods():
    labels = named("Deployment", "vllm")["spec"]["template"]["metadata"]["labels"]
    service, scaling = named("Service", "vllm")["spec"], named("ScaledObject", "vllm")["spec"]
    assert service["selector"] == labels and service["clusterIP"] == "None"
    assert named("PodDisruptionBudget", "vllm")["spec"]["selector"]["matchLabels"] == labels
    assert scaling["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "vllm"}
    assert "vllm:num_requests_waiting{" in scaling["triggers"][0]["metadata"]["query"]
    assert 1 <= scaling["minReplicaCount"] <= scaling["maxReplicaCount"]


def test_gpus_of_vllm_and_of_kueue_are_those_of_the_quota():
    quota = named("ResourceQuota", "solon")["spec"]["hard"]["requests.nvidia.com/gpu"]
    [group] = named("ClusterQueue", "solon")["spec"]["resourceGroups"]
    shared = {each["name"]: each["nominalQuota"] for each in group["flavors"][0]["resources"]}["nvidia.com/gpu"]
    [container] = PODS["vllm"]["spec"]["containers"]
    served = (
        named("ScaledObject", "vllm")["spec"]["maxReplicaCount"] * container["resources"]["limits"]["nvidia.com/gpu"]
    )
    assert int(quota) == int(shared) + served


def test_secrets_that_are_named_are_made_by_the_runbook():
    runbook = Path(ROOT / "docs" / "kubernetes.md").read_text()
    keys = ("existingSecret", "secretRef.name", "secretKeyRef.name", "secretName")
    files = [*FILES, *VALUES, ROOT / "deployments" / "job_templates.yaml"]
    found = [entry for path in files for document in documents(path) for entry in entries(document)]
    secrets = {value for name, value in found if name.endswith(keys) and isinstance(value, str)} - {"string"}
    assert {"prefect-auth", "prefect-database", "redis", "solon-store"} <= secrets
    made = set(re.findall(r"create secret generic ([a-z-]+)", runbook))
    assert secrets - made == set(), "docs/kubernetes.md does not say how they are made"
