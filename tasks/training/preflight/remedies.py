"""Which settings would make a training fit, each tried by the same sum as the training itself."""

from collections.abc import Iterator
from typing import Any

from tasks.schema import Frozen
from tasks.training.launch_command import Kind
from tasks.training.preflight.memory import Training, memory_parts, peak
from tasks.training.rl_config import GroupConfig

SECTION: dict[Kind, str] = {
    "sft": "sft.training",
    "reward": "reward",
    "ppo": "rl.ppo",
    "rloo": "rl.group",
    "grpo": "rl.group",
    "dpo": "rl.dpo",
}
"""Where in a run's config a trainer's settings are."""
RANK = 16
"""Of the adapters that are proposed."""
Changes = dict[str, Any]


class Remedy(Frozen):
    """Settings under which the estimate fits."""

    settings: dict[str, Any]
    """By their full names."""
    peak_bytes: int
    """Of one process."""
    effect: str
    """What else they change."""

    def words(self) -> str:
        settings = " ".join(f"{name}={_yaml(value)}" for name, value in self.settings.items())
        return f"{settings} ({self.peak_bytes / 2**30:.1f} GiB; {self.effect})"


def needed(training: Training) -> int:
    """Bytes of the device: of one process, or without a GPU of all, which share the machine's memory."""
    processes = 1 if training.device.kind == "cuda" else training.launch.num_processes
    return processes * peak(memory_parts(training))


def remedies(training: Training) -> list[Remedy]:
    """Of each way to save memory the mildest settings that fit, cheapest way first; none where nothing helps."""
    found = []
    for effect, ladder in _ladders(training).items():
        fitting = (changes for changes in ladder if needed(changed(training, changes)) <= training.device.bytes)
        if changes := next(fitting, None):
            size = peak(memory_parts(changed(training, changes)))
            settings = {_full_name(training.kind, name): value for name, value in changes.items()}
            found.append(Remedy(settings=settings, peak_bytes=size, effect=effect))
    return found


def changed(training: Training, changes: Changes) -> Training:
    """The training under other settings; `sharding` and `num_processes` are the launch's."""
    of_launch = {name: value for name, value in changes.items() if name in ("sharding", "num_processes")}
    of_config = {name: value for name, value in changes.items() if name not in of_launch}
    return training.model_copy(
        update={
            "config": training.config.model_copy(update=of_config),
            "launch": training.launch.model_copy(update=of_launch),
        }
    )


def _ladders(training: Training) -> dict[str, list[Changes]]:
    """Ways to save memory with their effects, and of each its settings from mild to strong."""
    config = training.config
    recompute: list[Changes] = [] if config.gradient_checkpointing else [{"gradient_checkpointing": True}]
    sizes = [size for size in _halves(config.micro_batch_size) if config.batch_size % size == 0]
    same = [*recompute, *_micro_batches({}, sizes), *(c for way in recompute for c in _micro_batches(way, sizes))]
    short: list[Changes] = [{"precision": "bfloat16"}] if config.precision == "float32" else []
    ladders = {"the same results but for rounding": same}
    ladders |= {"bfloat16 arithmetic": [way | changes for way in short for changes in ({}, *same)]}
    if not config.lora_rank:
        adapters = _together({"lora_rank": RANK}, *short)
        ladders["adapters instead of all weights: take about ten times the learning rate"] = [
            adapters | changes for changes in ({}, *same)
        ]
        same = [*same, _together(adapters, *same[-1:])]
    if isinstance(config, GroupConfig):
        ladders["fewer completions a step: lower the learning rate with them"] = list(_small_steps(config, same))
    if can_shard(training):
        ladders["more GPUs of this size"] = [
            {"sharding": "fsdp2", "num_processes": count} | changes
            for count in (2, 4, 8)
            if config.batch_size % (count * config.micro_batch_size) == 0
            for changes in ({}, *recompute)
        ]
    return ladders


def can_shard(training: Training) -> bool:
    """Whether spreading the model over GPUs is something to propose: PPO takes none."""
    launch = training.launch
    return training.kind != "ppo" and training.device.kind == "cuda" and launch.sharding == "none"


def _micro_batches(way: Changes, sizes: list[int]) -> Iterator[Changes]:
    yield from (way | {"micro_batch_size": size} for size in sizes)


def _small_steps(config: GroupConfig, ways: list[Changes]) -> Iterator[Changes]:
    """Steps of fewer completions, for TRL samples a step's in one go; alone, and with the other ways."""
    sizes = [size for size in _halves(config.batch_size) if size % config.group_size == 0]
    for changes in ({}, *ways):
        micro = changes.get("micro_batch_size", config.micro_batch_size)
        yield from (changes | {"batch_size": size} for size in sizes if size % micro == 0)


def _together(*changes: Changes) -> Changes:
    return {name: value for change in changes for name, value in change.items()}


def _halves(size: int) -> Iterator[int]:
    while size > 1:
        size //= 2
        yield size


def _full_name(kind: Kind, name: str) -> str:
    return f"run.training.{name}" if name in ("sharding", "num_processes") else f"{SECTION[kind]}.{name}"


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
