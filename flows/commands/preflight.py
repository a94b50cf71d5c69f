"""`./solon preflight`: what memory each training of a run would take, before anything is fetched or made."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from flows.commands.console import (
    FileOption,
    JsonOption,
    PresetOption,
    SetOption,
    console,
    make_config,
    print_json,
)

if TYPE_CHECKING:
    from flows.config import AlignConfig
    from tasks.training.preflight.memory import AnyConfig, Training
    from tasks.training.preflight.report import PreflightReport

SevenOption = Annotated[
    bool,
    typer.Option("--llama-7b", help="Show instead what a 7B Llama would take of 40 GiB GPUs under these settings."),
]

WAYS: dict[str, dict[str, Any]] = {
    "all weights, float32": {"precision": "float32", "lora_rank": 0},
    "all weights, bfloat16": {"precision": "bfloat16", "lora_rank": 0},
    "adapters of rank 16, bfloat16": {"precision": "bfloat16", "lora_rank": 16},
}
MILDEST = {"micro_batch_size": 1, "gradient_checkpointing": True}
"""What costs time alone: with these no setting but the way to train is left to save memory by."""


def preflight(
    preset: PresetOption = None,
    config: FileOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
    llama_7b: SevenOption = False,
) -> None:
    """Say what memory each training would take here, and which settings would make it fit; fetch no weights.

    Lengths are the longest that the settings allow, and the pretrained model stands for the policy and reward models
    that come of it. A run repeats this with its own rows before each training, and refuses what does not fit.
    """
    from tasks.training.preflight.report import report_on

    resolved = make_config(preset, config, settings, None, None)
    if llama_7b:
        console.print(seven_billion_table(resolved))
        return
    reports = {name: report_on(training) for name, training in trainings(resolved, base_model(resolved))}
    if as_json:
        print_json({name: json.loads(report.model_dump_json()) for name, report in reports.items()})
        return
    for name, report in reports.items():
        console.print(parts_table(name, report))
        for remedy in report.remedies:
            console.print(f"  would fit: {escape(remedy.words())}", soft_wrap=True)


def base_model(config: "AlignConfig") -> Path:
    """The folder with the pretrained model's small files."""
    from tasks.store.external import outside_files
    from tasks.store.models import SMALL_SUFFIXES

    return outside_files(config.models.pretrained, SMALL_SUFFIXES)


def trainings(config: "AlignConfig", base: Path) -> Iterator[tuple[str, "Training"]]:
    """Every training of a run with the name of its stage, in order."""
    from tasks.training.preflight.report import describe_training, device_of

    launch = config.run.training
    device = device_of(launch)
    yield "sft", describe_training("sft", config.sft.training, None, {"model": base}, launch, device)
    reward = describe_training("reward", config.reward, None, {"model": base}, launch, device)
    yield "reward", reward
    roles = ["model"]
    if config.rl.algorithm != "dpo":
        roles.append("reward")
    if config.reward.second_model_share:
        yield "held_out_reward", reward
        roles += ["held_out_reward"] if config.rl.algorithm == "ppo" else []
    models = dict.fromkeys(roles, base)
    yield "rl", describe_training(config.rl.algorithm, config.rl.trainer, None, models, launch, device)


def parts_table(name: str, report: "PreflightReport") -> Table:
    """What takes memory, the peak, and whether it fits."""
    table = Table("part", "GiB", "when", title=f"{name} ({report.kind}): {report.verdict()}", title_justify="left")
    table.columns[1].justify = "right"
    for part in report.parts:
        table.add_row(part.name, f"{part.bytes / 2**30:.3f}", part.phase)
    table.add_section()
    table.add_row("peak of a process", f"{report.peak_bytes / 2**30:.3f}", "always, and the largest phase")
    return table


def seven_billion_table(config: "AlignConfig") -> Table:
    """GiB a GPU of every training, by what is trained and in which numbers, with the mildest settings."""
    from tasks.training.preflight.memory import memory_parts, peak

    title = "A 7B Llama: GiB a GPU, micro-batches of 1, activations recomputed; * within 40 GiB"
    table = Table("training", "GPUs", *WAYS, title=title, title_justify="left")
    for name, count, choose in seven_billion_trainings(config):
        peaks = [peak(memory_parts(choose({**way, **MILDEST}))) / 2**30 for way in WAYS.values()]
        table.add_row(name, str(count), *(f"{size:.1f}{' *' if size <= 40 else ''}" for size in peaks))
    return table


def seven_billion_trainings(config: "AlignConfig") -> Iterator[tuple[str, int, Any]]:
    """(name, GPUs, settings -> training) of what the method trains."""
    from tasks.training.launch_config import LaunchConfig
    from tasks.training.preflight.device import Device
    from tasks.training.preflight.report import describe_training
    from tasks.training.preflight.shape import LLAMA_7B

    rl, base = config.rl, Path(LLAMA_7B)
    device = Device(kind="cuda", name="GPU", count=2, bytes=40 * 2**30, source="--llama-7b")
    on_one, on_two = LaunchConfig(), LaunchConfig(num_processes=2, sharding="fsdp2")
    served = rl.ppo.model_copy(update={"rollouts": "vllm"})
    listed: list[tuple[str, Any, AnyConfig, LaunchConfig]] = [
        ("sft", "sft", config.sft.training, on_one),
        ("sft, fsdp2", "sft", config.sft.training, on_two),
        ("reward", "reward", config.reward, on_one),
        ("ppo", "ppo", rl.ppo, on_one),
        ("ppo, vLLM beside it", "ppo", served, on_one),
        ("rloo or grpo", "rloo", rl.group, on_one),
        ("rloo or grpo, fsdp2", "rloo", rl.group, on_two),
        ("dpo", "dpo", rl.dpo, on_one),
    ]
    for name, kind, settings, launch in listed:
        models = {"model": base} | ({"reward": base} if kind in ("ppo", "rloo") else {})
        training = describe_training(kind, settings, None, models, launch, device)
        yield name, launch.num_processes, lambda changes, of=training: with_settings(of, changes)


def with_settings(training: "Training", changes: dict[str, Any]) -> "Training":
    """The training with other settings of its trainer."""
    from tasks.training.preflight.remedies import changed

    return changed(training, changes)
