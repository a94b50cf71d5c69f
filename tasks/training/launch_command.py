"""The command and environment of training processes: one, several by torchrun, or sharded by `accelerate launch`.

Over several nodes each runs the same command but for its number. Ranks follow the nodes' numbers (torchrun's static
rendezvous, on a TCPStore of the first node), so that the process which logs and writes is on the node that commits.
"""

import importlib.util
import os
import sys
from pathlib import Path
from typing import Literal

from tasks.training.launch_config import LaunchConfig, Tracker
from tasks.training.nodes_config import Node

ROOT = Path(__file__).parents[2]
SHARDING_CONFIGS = ROOT / "infra" / "accelerate"
MODULE = "tasks.training.child"

Kind = Literal["sft", "reward", "ppo", "rloo", "grpo", "dpo"]

_TRACKER_PACKAGES: dict[Tracker, str] = {"tensorboard": "tensorboard", "wandb": "wandb", "trackio": "trackio"}


def check_launch(kind: Kind, config: LaunchConfig) -> None:
    """Refuse what could not run, before anything is fetched or started.

    Raises: ValueError: names the setting and what to do.
    """
    if kind == "ppo" and config.sharding != "none":
        raise ValueError(
            f"ppo: run.training.sharding is {config.sharding!r}, expected 'none': every process of PPO holds the whole "
            "models; set it to none (lora_rank lowers memory), or choose rloo, grpo or dpo"
        )
    if config.sharding.startswith("zero") and not importlib.util.find_spec("deepspeed"):
        raise ValueError(
            f"run.training.sharding is {config.sharding!r}, which needs the package deepspeed; "
            "install it, or set sharding to fsdp2"
        )
    package = _TRACKER_PACKAGES.get(config.tracker)
    if package and not importlib.util.find_spec(package):
        raise ValueError(
            f"run.training.tracker is {config.tracker!r}, but the package {package} is not installed; "
            "install Solon's extra `trackers`, or set run.training.tracker to tensorboard or none"
        )


def command(job: Path, config: LaunchConfig, node: Node | None = None) -> list[str]:
    """What starts the processes of this machine that run the job in this file; `node` is its place among several."""
    processes = ["-m", MODULE, str(job)]
    if config.sharding != "none":
        launcher = ["accelerate.commands.launch", "--config_file", str(SHARDING_CONFIGS / f"{config.sharding}.yaml")]
        among = accelerate_nodes(config, node) if node else []
        # accelerate counts the processes of all machines
        return [sys.executable, "-m", *launcher, "--num_processes", str(config.total_processes), *among, *processes]
    if node or config.num_processes > 1:
        among = torchrun_nodes(config, node) if node else ["--standalone"]
        launcher = ["torch.distributed.run", *among, "--nproc-per-node", str(config.num_processes)]
        return [sys.executable, "-m", *launcher, *processes]
    return [sys.executable, *processes]


def torchrun_nodes(config: LaunchConfig, node: Node) -> list[str]:
    """A node's place, as torchrun is told it."""
    nodes = config.nodes
    place = ["--nnodes", str(nodes.num_nodes), "--node-rank", str(node.rank)]
    first = ["--master-addr", node.address, "--master-port", str(nodes.port)]
    return [*place, *first, "--rdzv-conf", f"timeout={nodes.join_seconds}"]


def accelerate_nodes(config: LaunchConfig, node: Node) -> list[str]:
    """A node's place, as `accelerate launch` is told it."""
    nodes = config.nodes
    place = ["--num_machines", str(nodes.num_nodes), "--machine_rank", str(node.rank)]
    # accelerate reads this one off its command line alone, whatever its file says
    first = ["--same_network", "--main_process_ip", node.address, "--main_process_port", str(nodes.port)]
    return [*place, *first, "--rdzv_conf", f"timeout={nodes.join_seconds}"]


ALLOCATOR = {"MALLOC_TRIM_THRESHOLD_": "8000000000", "MALLOC_MMAP_THRESHOLD_": "4000000000"}
"""glibc keeps what a step frees for the next one, instead of returning it to the kernel and asking for it again."""


def one_gpu_each(config: LaunchConfig) -> dict[str, str]:
    """A training of one process sees one GPU: a Trainer that finds several would split batches over them by itself."""
    if config.num_processes > 1:
        return {}
    return {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]}


def network(config: LaunchConfig) -> dict[str, str]:
    """What NCCL and gloo are told; nothing on one machine."""
    nodes = config.nodes
    if nodes.num_nodes == 1:
        return {}
    interface = nodes.network_interface
    chosen = {"NCCL_SOCKET_IFNAME": interface, "GLOO_SOCKET_IFNAME": interface} if interface else {}
    return {"NCCL_DEBUG": nodes.nccl_debug, **chosen}


def child_environment(config: LaunchConfig) -> dict[str, str]:
    """Ours, with the thread count, no telemetry and no network: all that is read is in local folders."""
    return os.environ | {
        **ALLOCATOR,
        **one_gpu_each(config),
        **network(config),
        "OMP_NUM_THREADS": str(config.threads),
        "MKL_NUM_THREADS": str(config.threads),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        # torchrun kills the processes that it asked to leave after 30 s, whatever grace they have from us
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(int(config.grace_seconds) + 1),
    }
