"""Who reaches whom by the NetworkPolicies, as Kubernetes reads them."""

import ipaddress
from typing import NamedTuple

import pytest

from tests.cluster_files import objects, pods

POLICIES = [found for found in objects() if found["kind"] == "NetworkPolicy"]
PODS = pods()


class Peer(NamedTuple):
    namespace: str
    labels: dict[str, str]
    address: str = "10.0.0.1"


def of_chart(chart: str) -> Peer:
    return Peer("solon-system", {"app.kubernetes.io/name": chart})


PEERS = {
    "server": of_chart("prefect-server"),
    "worker": of_chart("prefect-worker"),
    "redis": Peer("solon-system", PODS["redis"]["metadata"]["labels"]),
    "run": Peer("solon", PODS["cpu"]["metadata"]["labels"]),
    "training": Peer("solon", PODS["gpu-training"]["metadata"]["labels"]),
    "node": Peer("solon", {"app.kubernetes.io/name": "solon", "app.kubernetes.io/component": "training"}),
    "vllm": Peer("solon", PODS["vllm"]["metadata"]["labels"]),
    "download": Peer("solon", PODS["model-cache-feedback"]["metadata"]["labels"]),
    "prometheus": Peer("monitoring", {"app.kubernetes.io/name": "prometheus"}),
    "stranger": Peer("solon", {"app.kubernetes.io/name": "stranger"}),
    "elsewhere": Peer("default", {"solon/role": "run"}),
    "dns": Peer("kube-system", {"k8s-app": "kube-dns"}),
    "store": Peer("", {}, "52.216.0.1"),
    "metadata": Peer("", {}, "169.254.169.254"),
}


def reaches(source: Peer, target: Peer, port: int) -> bool:
    return permits("Egress", "egress", "to", source, target, port) and permits(
        "Ingress", "ingress", "from", target, source, port
    )


def permits(kind: str, rules: str, side: str, pod: Peer, other: Peer, port: int) -> bool:
    """Whether policies of a pod let it: one of them must, unless none is about it."""
    about = [p["spec"] for p in POLICIES if p["metadata"]["namespace"] == pod.namespace]
    about = [spec for spec in about if kind in spec["policyTypes"] and has(pod.labels, spec["podSelector"])]
    given = [rule for spec in about for rule in spec.get(rules, [])]
    return not about or any(fits(rule, side, other, port, pod.namespace) for rule in given)


def fits(rule: dict, side: str, other: Peer, port: int, namespace: str) -> bool:
    ports = {each["port"] for each in rule.get("ports", [])}
    peers = rule.get(side)
    return (not ports or port in ports) and (peers is None or any(is_peer(each, other, namespace) for each in peers))


def is_peer(peer: dict, other: Peer, namespace: str) -> bool:
    if block := peer.get("ipBlock"):
        inside = ipaddress.ip_address(other.address)
        return inside in ipaddress.ip_network(block["cidr"]) and not any(
            inside in ipaddress.ip_network(each) for each in block.get("except", [])
        )
    if "namespaceSelector" in peer:
        where = has({"kubernetes.io/metadata.name": other.namespace}, peer["namespaceSelector"])
    else:
        where = other.namespace == namespace
    return where and has(other.labels, peer.get("podSelector", {}))


def has(labels: dict[str, str], selector: dict) -> bool:
    return selector.get("matchLabels", {}).items() <= labels.items()


@pytest.mark.parametrize(
    ("source", "target", "port"),
    [
        ("run", "server", 4200),
        ("training", "server", 4200),
        ("worker", "server", 4200),
        ("server", "redis", 6379),
        ("run", "vllm", 8000),
        ("prometheus", "vllm", 8000),
        ("run", "store", 443),
        ("node", "store", 443),
        ("node", "node", 29500),
        ("node", "node", 41234),
        ("worker", "store", 6443),  # any address stands for Kubernetes' API
        ("training", "store", 6443),
        ("download", "store", 443),
        ("run", "dns", 53),
        ("node", "dns", 53),
        ("server", "dns", 53),
    ],
)
def test_network_lets_through(source, target, port):
    assert reaches(PEERS[source], PEERS[target], port)


@pytest.mark.parametrize("target", PEERS)
@pytest.mark.parametrize("port", [53, 443, 4200, 6379, 8000])
def test_network_vllm_reaches_nobody(target, port):
    assert not reaches(PEERS["vllm"], PEERS[target], port)


@pytest.mark.parametrize("source", sorted(set(PEERS) - {"run", "training", "prometheus", "store", "metadata"}))
def test_network_vllm_is_reached_by_runs_alone(source):
    assert not reaches(PEERS[source], PEERS["vllm"], 8000)


@pytest.mark.parametrize(
    ("source", "target", "port"),
    [
        ("run", "metadata", 443),
        ("node", "metadata", 443),
        ("download", "metadata", 443),
        ("run", "redis", 6379),
        ("run", "store", 6443),
        ("node", "server", 4200),
        ("node", "vllm", 8000),
        ("run", "node", 29500),
        ("vllm", "server", 4200),
        ("stranger", "server", 4200),
        ("stranger", "store", 443),
        ("elsewhere", "server", 4200),
        ("worker", "redis", 6379),
        ("server", "store", 443),
        ("redis", "store", 443),
    ],
)
def test_network_stops(source, target, port):
    assert not reaches(PEERS[source], PEERS[target], port)
