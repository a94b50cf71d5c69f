"""How one training is spread over several machines, each a pod of a cluster: never part of an identity.

The *global* batch is part of the training's own settings; it is cut over all processes of all nodes, and how many those
are changes results by rounding alone.
"""

from typing import Literal

from pydantic import Field

from tasks.schema import Frozen, Settings


class NodesConfig(Settings):
    """Nodes of one training, and the pods that they are. With one node none of this is used."""

    num_nodes: int = Field(1, ge=1)
    """Machines of one training, `num_processes` on each. With more than one the stage starts a JobSet and waits."""
    port: int = Field(29500, ge=1024, le=65535)
    """Where the first node listens for the others."""
    image: str = ""
    """Of the nodes' containers. Empty: the image of the stage's own pod."""
    gpu_resource: str = Field("nvidia.com/gpu", pattern=r"^([a-z0-9.-]+/[a-z0-9.-]+)?$")
    """What a node asks for `num_processes` of. Empty: no GPUs."""
    cpus: int = Field(0, ge=0)
    """CPUs that a node asks for; 0: it asks for none."""
    memory_gib: int = Field(0, ge=0)
    """Memory that a node asks for and may use; 0: neither."""
    shm_gib: int = Field(16, ge=1)
    """Limit of /dev/shm, through which NCCL and data loaders exchange; the container runtime's own is 64 MiB."""
    node_selector: tuple[str, ...] = ()
    """Labels that a machine must have, each `name=value`."""
    tolerations: tuple[str, ...] = ("nvidia.com/gpu",)
    """Taints that keep others off the GPU machines, by key."""
    priority_class: str = ""
    """Of the pods; empty: the cluster's default."""
    queue: str = ""
    """Local queue of Kueue, which starts all nodes or none. Empty: Kubernetes starts each as it finds room."""
    network_interface: str = Field("", max_length=64)
    """Interface for NCCL and gloo, such as `eth0` (NCCL_SOCKET_IFNAME); empty: they choose."""
    nccl_debug: Literal["VERSION", "WARN", "INFO"] = "WARN"
    """What NCCL writes to the training's log (NCCL_DEBUG)."""
    join_seconds: int = Field(1800, ge=1)
    """How long nodes wait for each other at the start: images are pulled, machines are added."""
    exchange_seconds: int = Field(1800, ge=1)
    """How long a process waits for the others at each exchange; then a lost node ends the training."""
    grace_seconds: int = Field(300, ge=1)
    """What a pod that is asked to leave has, in all: the resume point is written and copied to the store."""
    away_seconds: int = Field(900, ge=1)
    """How long the Kubernetes API or the store may be away before the stage gives up. The nodes go on meanwhile."""
    kept_seconds: int = Field(3600, ge=60)
    """How long a JobSet that has ended stays where nobody is left to remove it."""


class Node(Frozen):
    """One machine among those of its training."""

    rank: int = Field(ge=0)
    """0: the one that logs and commits."""
    address: str = Field(min_length=1)
    """Of the first node: a name or an address that all others reach."""
