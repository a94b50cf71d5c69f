"""How training processes are started: where and how it runs, which never enters an identity."""

from typing import Literal

from pydantic import Field

from tasks.schema import Settings
from tasks.training.nodes_config import NodesConfig

Sharding = Literal["none", "fsdp2", "zero2", "zero3"]
Tracker = Literal["none", "tensorboard", "wandb", "trackio"]


class LaunchConfig(Settings):
    """Processes, trackers and limits of a training. Results are the same but for rounding."""

    num_processes: int = Field(1, ge=1)
    """Processes of one training on each machine, a GPU each where there are GPUs (torchrun)."""
    threads: int = Field(1, ge=1)
    """CPU threads of a training process. With more than one, sums may differ in their last bits."""
    sharding: Sharding = "none"
    """How SFT, reward model, RLOO, GRPO and DPO spread a model over GPUs (`accelerate launch` with a config of
    `infra/accelerate`); none: every process holds all of it. PPO takes none."""
    grace_seconds: float = Field(15.0, gt=0)
    """What a training that is asked to leave has for its resume point before it is killed."""
    tracker: Tracker = "tensorboard"
    """Where curves go while it trains; wandb and trackio want the extra `trackers` installed."""
    tracker_folder: str = ".solon/trackers"
    """Where TensorBoard's files are written, a folder a training."""
    device_memory_gib: float | None = Field(None, gt=0)
    """Memory a device has, for the preflight. Empty: what this machine reports."""
    preflight: Literal["refuse", "warn"] = "refuse"
    """What follows where the estimate does not fit the device."""
    nodes: NodesConfig = NodesConfig()
    """Several machines for one training, on Kubernetes."""

    @property
    def total_processes(self) -> int:
        """Of all nodes."""
        return self.num_processes * self.nodes.num_nodes
