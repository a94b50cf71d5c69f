"""What is asked of a cluster and made of its answers, without one."""

import datetime
import ipaddress
import ssl
from pathlib import Path

import pytest

from tasks.training.cluster.api import JOBSETS, PODS, Access, Cluster, ClusterAway, ClusterError, NotThere
from tasks.training.cluster.jobset import first_address, jobset, jobset_name
from tasks.training.cluster.pods import ends, waiting
from tasks.training.launch_config import LaunchConfig
from tasks.training.nodes_config import NodesConfig
from tests.servers.kubernetes_api import NAMESPACE, TOKEN, kubernetes_api

OWN_POD = {
    "metadata": {"name": "launcher"},
    "spec": {
        "serviceAccountName": "worker",
        "nodeName": "cpu-7",
        "containers": [
            {
                "name": "prefect-job",
                "image": "registry/solon:1",
                "command": ["prefect"],
                "envFrom": [{"secretRef": {"name": "store"}}],
                "env": [
                    {"name": "PREFECT_API_AUTH_STRING", "value": "not for nodes"},
                    {"name": "AWS_ENDPOINT_URL", "value": "https://s3"},
                ],
                "resources": {"limits": {"cpu": "1"}},
                "volumeMounts": [
                    {"name": "cache", "mountPath": "/solon/.solon"},
                    {"name": "small", "mountPath": "/dev/shm/"},
                    {"name": "kube-api-access-x", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"},
                ],
            }
        ],
        "volumes": [
            {"name": "cache", "emptyDir": {}},
            {"name": "small", "emptyDir": {"medium": "Memory"}},
            {"name": "kube-api-access-x", "projected": {}},
        ],
    },
}


def body(**nodes: object) -> dict:
    launch = LaunchConfig(num_processes=8, nodes=NodesConfig(num_nodes=3, **nodes))  # type: ignore[arg-type]
    return jobset("solon-sft-0", '{"text": "$(HOME) $5"}', launch, OWN_POD, {"version": "abc"})


def pod_of(whole: dict) -> dict:
    return whole["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]


# the JobSet


def test_jobset_name_is_the_same_for_the_same_version_and_short_enough_for_its_pods():
    name = jobset_name("held_out_reward", "0123456789abcdef0123")
    assert name == "solon-held-out-reward-0123456789abcdef" == jobset_name("held_out_reward", "0123456789abcdef9999")
    assert len(f"{name}-node-0-100-abcde") <= 63


@pytest.mark.parametrize(
    ("stage", "identity"),
    [("sft/../x", "0" * 16), ("SFT", "0" * 16), ("sft", "-"), ("s" * 60, "0" * 16), ("sft", "a.b")],
)
def test_jobset_name_that_kubernetes_would_not_take_is_refused(stage, identity):
    with pytest.raises(ValueError, match="expected at most 48 lower-case letters"):
        jobset_name(stage, identity)


def test_jobset_runs_a_pod_a_node_and_ends_with_the_first_that_fails():
    whole = body()
    job = whole["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert (whole["apiVersion"], whole["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert (job["completionMode"], job["completions"], job["parallelism"]) == ("Indexed", 3, 3)
    assert job["backoffLimit"] == 0 == whole["spec"]["failurePolicy"]["maxRestarts"]
    assert pod_of(whole)["restartPolicy"] == "Never" and whole["spec"]["ttlSecondsAfterFinished"] > 0
    assert first_address("solon-sft-0") == "solon-sft-0-node-0-0.solon-sft-0"


def test_jobset_pods_are_made_after_the_launchers_own_but_for_what_is_its_alone():
    pod = pod_of(body())
    (container,) = pod["containers"]
    assert container["image"] == "registry/solon:1" and container["envFrom"] == [{"secretRef": {"name": "store"}}]
    assert pod["serviceAccountName"] == "worker" and pod["automountServiceAccountToken"] is False
    assert [v["name"] for v in container["env"]] == ["AWS_ENDPOINT_URL", "SOLON_STAGE"] and "nodeName" not in pod
    assert container["command"] == ["python", "-m", "flows.node"]
    assert {v["name"] for v in pod["volumes"]} == {"cache", "dshm"} == {m["name"] for m in container["volumeMounts"]}


def test_jobset_pods_ask_for_gpus_memory_shared_memory_and_machines_as_the_config_says():
    told = body(
        memory_gib=900, cpus=64, shm_gib=64, node_selector=("gpu=h200",), priority_class="training", image="own:2"
    )
    pod = pod_of(told)
    (container,) = pod["containers"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": "8", "memory": "900Gi"}
    assert container["resources"]["requests"] == {"nvidia.com/gpu": "8", "memory": "900Gi", "cpu": "64"}
    assert pod["nodeSelector"] == {"gpu": "h200"} and pod["priorityClassName"] == "training"
    assert {"key": "nvidia.com/gpu", "operator": "Exists"} in pod["tolerations"] and container["image"] == "own:2"
    assert {"name": "dshm", "emptyDir": {"medium": "Memory", "sizeLimit": "64Gi"}} in pod["volumes"]
    assert body(queue="team")["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team"
    assert "nvidia.com/gpu" not in pod_of(body(gpu_resource=""))["containers"][0]["resources"]["limits"]


def test_jobset_stage_reaches_the_pod_as_it_is_whatever_dollars_it_has():
    (variable,) = [v for v in pod_of(body())["containers"][0]["env"] if v["name"] == "SOLON_STAGE"]
    assert variable["value"] == '{"text": "$$(HOME) $$5"}'


# pods


def pod(index: int, phase: str, state: dict | None = None, **status: object) -> dict:
    containers = {"containerStatuses": [{"state": state}]} if state else {}
    labels = {"batch.kubernetes.io/job-completion-index": str(index)}
    return {"metadata": {"labels": labels}, "status": {"phase": phase, **containers, **status}}


DISRUPTED = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"}


def terminated(code: int, reason: str = "Error", message: str = "", at: str = "2026-01-01T00:00:01Z") -> dict:
    return {"terminated": {"exitCode": code, "reason": reason, "message": message, "finishedAt": at}}


@pytest.mark.parametrize(
    ("failed", "words"),
    [
        (pod(1, "Failed", terminated(137, "OOMKilled")), "OOMKilled: .*memory_gib"),
        (pod(1, "Failed", reason="Evicted", message="low on resource: memory"), "Evicted: low on resource: memory"),
        (pod(1, "Failed", terminated(139)), "exit code 139, killed by signal 11"),
        (pod(1, "Failed", terminated(1, message="KeyError: x")), "KeyError: x"),
        (pod(1, "Failed"), "does not say why"),
        (pod(1, "Running", conditions=[DISRUPTED]), "not reachable or not ready"),
    ],
)  # fmt: skip
def test_pod_that_failed_says_why(failed, words):
    (end,) = ends([failed, pod(0, "Running", {"running": {}}), pod(2, "Succeeded", terminated(0, "Completed"))])
    assert end.node == 1
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(end.words)


def test_pods_that_failed_name_the_cause_first():
    """The cluster's doing, then a refusal, then the earliest; one that left when it was asked is no cause of others."""
    left = pod(0, "Failed", terminated(75, at="2026-01-01T00:00:00Z"))
    early, late = (pod(n, "Failed", terminated(1, at=f"2026-01-01T00:00:0{n}Z")) for n in (1, 2))
    refused = pod(3, "Failed", terminated(65, at="2026-01-01T00:00:09Z"))
    killed = pod(4, "Failed", terminated(137, "OOMKilled", at="2026-01-01T00:00:09Z"))
    assert [end.node for end in ends([left, late, early])] == [1, 2, 0]
    assert [end.node for end in ends([left, late, refused, early, killed])] == [4, 3, 1, 2, 0]


def test_pods_that_wait_say_for_what():
    pulling = pod(0, "Pending", {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}})
    unscheduled = pod(1, "Pending", conditions=[{"reason": "Unschedulable", "message": "0/4 nodes have GPUs"}])
    words = waiting([pulling, unscheduled], 3)
    assert "node 0: ImagePullBackOff no such image; node 1: no machine takes it (0/4 nodes have GPUs)" in words
    assert "1 of 3 pods are not there yet" in words
    assert waiting([pod(n, "Running", {"running": {}}) for n in range(3)], 3) == ""


# the API


def certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A self-signed one for loopback, and a server's context with it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kube")])
    today, one = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), today - one, today + one)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "ca.crt").write_bytes(signed.public_bytes(pem))
    plain = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key").write_bytes(plain)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "ca.crt", folder / "key")
    return folder / "ca.crt", context


def test_cluster_is_reached_with_the_pods_own_account_over_tls_and_a_strangers_certificate_is_refused(
    tmp_path, monkeypatch
):
    for name in ("account", "stranger"):
        (tmp_path / name).mkdir()
    ca, context = certificate(tmp_path / "account")
    stranger, _ = certificate(tmp_path / "stranger")
    (tmp_path / "account" / "token").write_text(f"{TOKEN}\n")
    (tmp_path / "account" / "namespace").write_text(NAMESPACE)
    with kubernetes_api(context) as api:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", api.server.rpartition(":")[2])
        access = Access.in_cluster(tmp_path / "account")
        assert access.ca_file == ca and access.namespace == NAMESPACE
        with Cluster(access) as cluster:
            assert cluster.list(PODS, "a=b") == ([], "100")
            with pytest.raises(NotThere):
                cluster.get(JOBSETS, "solon-sft-0")
        other = Access(access.server, NAMESPACE, access.token_file, stranger)
        with Cluster(other) as cluster, pytest.raises(ClusterAway, match="CERTIFICATE_VERIFY_FAILED"):
            cluster.list(PODS, "a=b")


def test_cluster_outside_a_pod_is_an_error_that_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ClusterError, match="run it on a Kubernetes pool, or set num_nodes to 1"):
        Access.in_cluster(tmp_path)
