"""The JobSet of one training: its name, what it asks for, and what its conditions say. Pure.

A node's pod is made after the launcher's own: image, environment, volumes and service account are those that the
work pool gave it, so that there is one place that says where the store is and who may read it.
"""

import os
import re
from typing import Any

from tasks.training.cluster.api import JOBSETS, Object
from tasks.training.launch_config import LaunchConfig

JOB = "node"
CONTAINER = "node"
SHM = "dshm"
MESSAGE_FILE = "/dev/termination-log"
STAGE_VARIABLE = "SOLON_STAGE"
MARK = "solon.training"
"""Prefix of our annotations."""
OF_JOBSET = "jobset.sigs.k8s.io/jobset-name"
"""The label by which a JobSet's pods are found."""
KUEUE = "kueue.x-k8s.io/queue-name"

_LABEL = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")
_LONGEST = 48
"""Of a JobSet's name: pods are called `<name>-node-0-<index>-<5>`, and 63 characters are what a label takes."""
_OF_POD = ("serviceAccountName", "imagePullSecrets", "securityContext", "runtimeClassName", "schedulerName")
_OF_CONTAINER = ("envFrom", "workingDir", "securityContext", "imagePullPolicy")
_OWN_TOKEN = "kube-api-access-"
_NOT_HANDED_ON = ("PREFECT_", STAGE_VARIABLE)
"""Variables that are the launcher's alone: its flow run, and its way into Prefect, which a node never talks to."""


def jobset_name(stage: str, identity: str) -> str:
    """`solon-<stage>-<hash>`. The hash is of the store and the version: two stores may train one version.

    Raises: ValueError: Kubernetes would not take it.
    """
    name = f"solon-{stage.replace('_', '-')}-{identity[:16]}"
    if not _LABEL.fullmatch(name) or len(name) > _LONGEST:
        raise ValueError(
            f"JobSet name {name!r}: expected at most {_LONGEST} lower-case letters, digits and dashes; "
            "the stage's name or its version is not what it should be"
        )
    return name


def first_address(name: str) -> str:
    """The name under which the pods of a JobSet find the first of them."""
    return f"{name}-{JOB}-0-0.{name}"


def jobset(name: str, stage: str, launch: LaunchConfig, own_pod: Object, about: dict[str, str]) -> Object:
    """The JobSet that runs the stage (JSON) on its nodes. `about` is what people read on it (annotations)."""
    nodes = launch.nodes
    queue = {KUEUE: nodes.queue} if nodes.queue else {}
    labels = {"app.kubernetes.io/name": "solon", "app.kubernetes.io/component": "training"}
    job = {
        "backoffLimit": 0,  # a node alone cannot be started again: all go on from the newest resume point together
        "completionMode": "Indexed",
        "completions": nodes.num_nodes,
        "parallelism": nodes.num_nodes,
        "template": {"metadata": {"labels": labels}, "spec": pod_spec(name, stage, launch, own_pod)},
    }
    return {
        "apiVersion": f"{JOBSETS.group}/{JOBSETS.version}",
        "kind": "JobSet",
        "metadata": {
            "name": name,
            "labels": {**labels, **queue},
            "annotations": {f"{MARK}/{key}": value for key, value in about.items()},
        },
        "spec": {
            "failurePolicy": {"maxRestarts": 0},
            "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
            "ttlSecondsAfterFinished": nodes.kept_seconds,
            "replicatedJobs": [{"name": JOB, "replicas": 1, "template": {"spec": job}}],
        },
    }


def pod_spec(name: str, stage: str, launch: LaunchConfig, own_pod: Object) -> Object:
    """A node's pod, after the launcher's own."""
    nodes, own = launch.nodes, own_pod["spec"]
    image_and_more = own["containers"][0]
    left_out = {v["name"] for v in own.get("volumes", ()) if v["name"].startswith(_OWN_TOKEN)} | shm_volumes(own)
    volumes = [volume for volume in own.get("volumes", ()) if volume["name"] not in left_out]
    mounts = [mount for mount in image_and_more.get("volumeMounts", ()) if mount["name"] not in left_out]
    container = {
        **{key: image_and_more[key] for key in _OF_CONTAINER if key in image_and_more},
        "name": CONTAINER,
        "image": nodes.image or image_and_more["image"],
        "command": ["python", "-m", "flows.node"],
        "args": ["--address", first_address(name), "--message", MESSAGE_FILE],
        "env": [*handed_on(image_and_more.get("env", ())), {"name": STAGE_VARIABLE, "value": literal(stage)}],
        "resources": resources(launch),
        "terminationMessagePath": MESSAGE_FILE,
        "volumeMounts": [*mounts, {"name": SHM, "mountPath": "/dev/shm"}],
    }
    return {
        **{key: own[key] for key in _OF_POD if key in own},
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,  # a node speaks to the store alone
        "terminationGracePeriodSeconds": nodes.grace_seconds,
        "nodeSelector": dict(label.split("=", 1) for label in nodes.node_selector),
        "tolerations": [{"key": key, "operator": "Exists"} for key in nodes.tolerations],
        **({"priorityClassName": nodes.priority_class} if nodes.priority_class else {}),
        "containers": [container],
        "volumes": [*volumes, {"name": SHM, "emptyDir": {"medium": "Memory", "sizeLimit": f"{nodes.shm_gib}Gi"}}],
    }


def resources(launch: LaunchConfig) -> Object:
    """What a node asks for; extended resources such as GPUs must be limits."""
    nodes = launch.nodes
    gpus = {nodes.gpu_resource: str(launch.num_processes)} if nodes.gpu_resource else {}
    memory = {"memory": f"{nodes.memory_gib}Gi"} if nodes.memory_gib else {}
    cpus = {"cpu": str(nodes.cpus)} if nodes.cpus else {}
    return {"limits": {**gpus, **memory}, "requests": {**gpus, **memory, **cpus}}


def handed_on(variables: Any) -> list[Object]:
    return [variable for variable in variables if not variable["name"].startswith(_NOT_HANDED_ON)]


def shm_volumes(spec: Object) -> set[str]:
    """The launcher's own /dev/shm, in whose place a node has a larger one."""
    mounts = [mount for container in spec["containers"] for mount in container.get("volumeMounts", ())]
    return {mount["name"] for mount in mounts if os.path.normpath(mount["mountPath"]) == "/dev/shm"}


def literal(value: str) -> str:
    """Kubernetes replaces `$(NAME)` in values; a doubled dollar stands for one."""
    return value.replace("$", "$$")


def terminal_state(found: Object) -> str:
    """Completed or Failed; empty while it works."""
    for condition in found.get("status", {}).get("conditions", ()):
        if condition.get("type") in ("Completed", "Failed") and condition.get("status") == "True":
            return str(condition["type"])
    return ""


def is_suspended(found: Object) -> bool:
    """Whether it waits to be admitted, as by Kueue."""
    return bool(found.get("spec", {}).get("suspend"))


def why_it_ended(found: Object) -> str:
    """What its conditions say of its end."""
    said = [c for c in found.get("status", {}).get("conditions", ()) if c.get("type") in ("Completed", "Failed")]
    return "; ".join(f"{c.get('reason', '')}: {c.get('message', '')}" for c in said) or "it says no more"
