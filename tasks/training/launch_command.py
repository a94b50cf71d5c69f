"""The command and environment of training processes: one, several by torchrun, or sharded by `accelerate launch`."""

import importlib.util
import os
import sys
from pathlib import Path
from typing import Literal

from tasks.training.launch_config import LaunchConfig, Tracker

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


def command(job: Path, config: LaunchConfig) -> list[str]:
    """What starts the processes that run the job in this file."""
    num_processes = str(config.num_processes)
    if config.sharding != "none":
        launcher = ["accelerate.commands.launch", "--config_file", str(SHARDING_CONFIGS / f"{config.sharding}.yaml")]
        return [sys.executable, "-m", *launcher, "--num_processes", num_processes, "-m", MODULE, str(job)]
    if config.num_processes > 1:
        launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", num_processes]
        return [sys.executable, "-m", *launcher, "-m", MODULE, str(job)]
    return [sys.executable, "-m", MODULE, str(job)]


ALLOCATOR = {"MALLOC_TRIM_THRESHOLD_": "8000000000", "MALLOC_MMAP_THRESHOLD_": "4000000000"}
"""glibc keeps what a step frees for the next one, instead of returning it to the kernel and asking for it again."""


def one_gpu_each(config: LaunchConfig) -> dict[str, str]:
    """A training of one process sees one GPU: a Trainer that finds several would split batches over them by itself."""
    if config.num_processes > 1:
        return {}
    return {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]}


def child_environment(config: LaunchConfig) -> dict[str, str]:
    """Ours, with the thread count, no telemetry and no network: all that is read is in local folders."""
    return os.environ | {
        **ALLOCATOR,
        **one_gpu_each(config),
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
