"""The preflight of one training: tokenizers, rows and memory, before weights are fetched or anything is allocated."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tasks.schema import Frozen
from tasks.training.config import SFTConfig
from tasks.training.encode import load_tokenizer
from tasks.training.launch_command import Kind
from tasks.training.launch_config import LaunchConfig
from tasks.training.preflight.device import Device, find_device
from tasks.training.preflight.identity import check_identity
from tasks.training.preflight.memory import AnyConfig, Lengths, Part, Training, default_lengths, memory_parts, peak
from tasks.training.preflight.remedies import Remedy, needed, remedies
from tasks.training.preflight.rows import Example, RowFacts, measure_rows
from tasks.training.preflight.shape import read_shape
from tasks.training.rl_config import GroupConfig, PPOConfig

GIB = 2**30
TIGHT = 0.85
"""Beyond this share of the device the estimate, which may err by so much, is no assurance."""


class PreflightReport(Frozen):
    """What is known of a training before it starts."""

    kind: Kind
    device: Device
    num_processes: int
    num_parameters: dict[str, int]
    """By model."""
    parts: tuple[Part, ...]
    """What takes memory in one process."""
    peak_bytes: int
    """Of one process, at its worst moment."""
    needed_bytes: int
    """Of the device: without a GPU, of all processes together."""
    remedies: tuple[Remedy, ...] = ()
    """Settings that would fit, where it does not."""
    rows: RowFacts | None = None
    """None where no rows were given."""
    warnings: tuple[str, ...] = ()
    """What stops nothing, but should be known."""

    @property
    def fits(self) -> bool:
        """Whether the estimate is within the device's memory."""
        return self.needed_bytes <= self.device.bytes

    def table(self) -> str:
        """The parts, the peak and the device, a line each."""
        width = max(len(part.name) for part in self.parts)
        lines = [f"  {part.name:{width}}  {part.bytes / GIB:9.3f} GiB  {part.phase}" for part in self.parts]
        return "\n".join([f"{self.kind}: {self.verdict()}", *lines])

    def verdict(self) -> str:
        """One sentence: what is needed, what there is."""
        there = f"{self.device.name} has {self.device.bytes / GIB:.1f} GiB ({self.device.source})"
        several = self.num_processes > 1 and self.device.kind == "cpu"
        together = f", {self.needed_bytes / GIB:.2f} GiB in {self.num_processes} processes" if several else ""
        verb = "fits" if self.fits else "does not fit"
        return f"{verb}: about {self.peak_bytes / GIB:.2f} GiB a process{together}; {there}"


def preflight(
    kind: Kind, config: AnyConfig, examples: Sequence[Example], models: Mapping[str, Path], launch: LaunchConfig
) -> PreflightReport:
    """Look at a training without its weights.

    `models` are folders with at least config and tokenizer files, by role: `model`, and where the kind learns from one
    `reward` and `held_out_reward`.

    Raises: ValueError: models of different tokenizers, rows that cannot be learnt from, more processes than GPUs, or,
    unless `launch.preflight` is "warn", more memory than the device has: with what would fit.
    """
    check_identity(models)
    context = read_shape(models["model"], "tokens").context
    rows = measure_rows(kind, config, examples, load_tokenizer(models["model"]), context)
    training = describe_training(kind, config, lengths_of(config, rows), models, launch, device_of(launch))
    report = report_on(training, rows)
    if not report.fits and launch.preflight == "refuse":
        raise ValueError(refusal(report))
    return report


def device_of(launch: LaunchConfig) -> Device:
    """What trains here. Raises: ValueError: there are fewer GPUs than processes."""
    device = find_device(launch.device_memory_gib)
    if device.kind == "cuda" and launch.num_processes > device.count:
        raise ValueError(
            f"preflight: run.training.num_processes is {launch.num_processes}, this machine has {device.count} GPUs; "
            "set it to at most that"
        )
    return device


def lengths_of(config: AnyConfig, rows: RowFacts) -> Lengths:
    """The longest rows as they will be: packed ones are filled, and to a prompt comes what is sampled."""
    if isinstance(config, PPOConfig | GroupConfig):
        return Lengths(prompt=rows.longest_prompt, row=rows.longest_prompt + config.max_tokens)
    is_packed = isinstance(config, SFTConfig) and config.packing
    return Lengths(prompt=rows.longest_prompt, row=rows.limit if is_packed else rows.longest)


def describe_training(
    kind: Kind,
    config: AnyConfig,
    lengths: Lengths | None,
    models: Mapping[str, Path],
    launch: LaunchConfig,
    device: Device,
) -> Training:
    """What the estimate follows from; without lengths, the longest that the settings allow.

    Raises: ValueError: a folder has no config.
    """
    policy = read_shape(models["model"], "scalar" if kind == "reward" else "tokens")
    rewards = [read_shape(models[role], "scalar") for role in ("reward", "held_out_reward") if role in models]
    return Training(
        kind=kind,
        config=config,
        policy=policy,
        rewards=tuple(rewards),
        lengths=lengths or default_lengths(config, policy.context),
        launch=launch,
        device=device,
    )


def report_on(training: Training, rows: RowFacts | None = None) -> PreflightReport:
    """The estimate of a training beside its device."""
    parts, takes = memory_parts(training), needed(training)
    room = training.device.bytes
    warnings = rows.warnings() if rows else []
    if room >= takes > TIGHT * room:
        warnings.append(f"{training.kind}: the estimate is {takes / room:.0%} of the device's memory: it may run out")
    names = ["model", "reward", "held_out_reward"]
    shapes = dict(zip(names, (training.policy, *training.rewards), strict=False))
    report = PreflightReport(
        kind=training.kind,
        device=training.device,
        num_processes=training.launch.num_processes,
        num_parameters={name: shape.num_parameters for name, shape in shapes.items()},
        parts=tuple(parts),
        peak_bytes=peak(parts),
        needed_bytes=takes,
        remedies=tuple(remedies(training)) if takes > room else (),
        rows=rows,
        warnings=tuple(warnings),
    )
    return report if report.fits else report.model_copy(update={"warnings": (*warnings, refusal(report))})


def refusal(report: PreflightReport) -> str:
    """Why a training that does not fit is not started, part by part, and what would fit."""
    parts = ", ".join(f"{part.name} {part.bytes / GIB:.2f}" for part in report.parts)
    ways = "; or ".join(remedy.words() for remedy in report.remedies)
    advice = (
        f"What would fit: {ways}" if ways else "No setting would make it fit: take a larger device or smaller model"
    )
    return (
        f"preflight: {report.kind} {report.verdict()}. In GiB: {parts}. {advice}. "
        "run.training.preflight=warn starts it all the same"
    )
