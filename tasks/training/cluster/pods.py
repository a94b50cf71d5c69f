"""What became of a node's pod, and which of several is the cause. Pure; a pod is the API's own JSON."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

Pod = dict[str, Any]

INDEX = "batch.kubernetes.io/job-completion-index"
LEFT, REFUSED = 75, 65
"""Exit codes of a node that was asked to leave (EX_TEMPFAIL), and whose trainer refused its input (EX_DATAERR)."""

_DISRUPTIONS = {
    "PreemptionByScheduler": "was preempted by a pod of higher priority",
    "DeletionByTaintManager": "was removed from a machine that is not reachable or not ready",
    "EvictionByEvictionAPI": "was evicted, as when a machine is drained",
    "DeletionByPodGC": "is gone with its machine",
    "TerminationByKubelet": "was ended by its machine (shutdown, or too little memory or disk)",
}
"""Reasons of the condition DisruptionTarget."""


_BY_CODE: dict[int | None, int] = {REFUSED: 0, LEFT: 2}
"""What is more likely a cause comes first; any other code: 1."""


class End(NamedTuple):
    """How the pod of one node ended."""

    node: int
    words: str
    code: int | None
    """Exit code; None: the cluster took the pod, its process has none to tell."""
    by_cluster: bool
    """Ended from outside: memory, eviction, preemption. That is a cause, and never what came of another node's end."""
    at: str
    """When, as the cluster tells it (RFC 3339), to the second."""


def ends(pods: Iterable[Pod]) -> list[End]:
    """The pods that failed, the one that is most likely the cause first.

    First what the cluster did; then a refusal, which says what to do; then by time. A node whose peer is gone fails
    too, often within the same second, and once one has failed the others are asked to leave.
    """
    failed = [end for pod in pods if (end := end_of(pod))]
    return sorted(failed, key=lambda end: (not end.by_cluster, _BY_CODE.get(end.code, 1), end.at, end.node))


def end_of(pod: Pod) -> End | None:
    """How it ended; None where it runs, waits or succeeded."""
    status = pod.get("status", {})
    terminated = container_state(pod, "terminated")
    disruption = next((c for c in status.get("conditions", ()) if is_disruption(c)), None)
    if status.get("phase") == "Succeeded" or not (status.get("phase") == "Failed" or terminated or disruption):
        return None
    code, at = terminated.get("exitCode"), terminated.get("finishedAt", "")
    if code == 0 and not disruption:
        return None
    outside = from_outside(status, terminated, disruption)
    if outside:
        return End(node_of(pod), outside, code, True, at)
    return End(node_of(pod), own_words(terminated), code, False, at)


def from_outside(status: dict[str, Any], terminated: dict[str, Any], disruption: dict[str, Any] | None) -> str:
    """What the cluster did to the pod, in words; empty where its process ended by itself."""
    if terminated.get("reason") == "OOMKilled":
        return (
            "OOMKilled: it used more memory than run.training.nodes.memory_gib allows; raise it, lower "
            "micro_batch_size or max_tokens, or set gradient_checkpointing"
        )
    if disruption:
        known = _DISRUPTIONS.get(disruption.get("reason", ""), "was disrupted")
        return f"{known} ({disruption.get('reason')}: {disruption.get('message', 'it says no more')})"
    if status.get("reason"):  # of the pod, not of its container: Evicted, NodeShutdown, Preempting, DeadlineExceeded
        return f"{status['reason']}: {status.get('message', 'the cluster says no more')}"
    return ""


def own_words(terminated: dict[str, Any]) -> str:
    """What the process left as its last words, or its exit code."""
    code, said = terminated.get("exitCode"), terminated.get("message", "").strip()
    if code is None:
        return "its pod failed, and the cluster does not say why"
    if said:
        return str(said)
    signal = f", killed by signal {code - 128}" if code > 128 else ""
    return f"{terminated.get('reason', 'ended')} with exit code {code}{signal}"


def waiting(pods: Sequence[Pod], num_nodes: int) -> str:
    """Why not all nodes run yet, in words; empty where all do."""
    lines = [f"node {node_of(pod)}: {why}" for pod in pods if (why := waiting_of(pod))]
    missing = num_nodes - len(pods)
    return "; ".join([*sorted(lines), *([f"{missing} of {num_nodes} pods are not there yet"] if missing > 0 else [])])


def waiting_of(pod: Pod) -> str:
    if pod.get("status", {}).get("phase") not in (None, "Pending"):
        return ""
    state = container_state(pod, "waiting")
    if state:
        return f"{state.get('reason')} {state.get('message', '')}".strip()
    unscheduled = [c for c in pod.get("status", {}).get("conditions", ()) if c.get("reason") == "Unschedulable"]
    return f"no machine takes it ({unscheduled[0].get('message', '')})" if unscheduled else "starts"


def container_state(pod: Pod, name: str) -> dict[str, Any]:
    for container in pod.get("status", {}).get("containerStatuses", ()):
        if name in container.get("state", {}):
            found: dict[str, Any] = container["state"][name]
            return found
    return {}


def is_disruption(condition: dict[str, Any]) -> bool:
    return condition.get("type") == "DisruptionTarget" and condition.get("status") == "True"


def node_of(pod: Pod) -> int:
    """Its number among the nodes."""
    metadata = pod.get("metadata", {})
    index = metadata.get("annotations", {}).get(INDEX) or metadata.get("labels", {}).get(INDEX)
    return int(index or 0)
