"""Resume points of PPO: everything that an uninterrupted run would have had in memory.

Tensors as safetensors, the rest as JSON, in a folder of `Checkpoints`. There is no generator state to keep:
prompts, samples and shuffles are functions of (seed, number of the update).
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tasks.training.checkpoints import Checkpoints
from tasks.training.folders import write_json


@dataclass
class Progress:
    """Where a run stands between two updates."""

    kl_coef: float
    next_update: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    """Metrics of each finished update."""
    rollouts: list[dict[str, Any]] = field(default_factory=list)
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    """Figures of each policy measured, the SL policy's first."""


def save_checkpoint(
    points: Checkpoints,
    progress: Progress,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    also: Callable[[Path], None] = lambda folder: None,
) -> None:
    """Write a resume point; `also` adds files to it."""

    def fill(folder: Path) -> None:
        save_file({name: p.detach() for name, p in trained(model).items()}, folder / "model.safetensors")
        save_file(_optimizer_tensors(model, optimizer), folder / "optimizer.safetensors")
        write_json(folder / "progress.json", asdict(progress))
        also(folder)

    points.write(progress.next_update, fill)


def load_checkpoint(points: Checkpoints, model: nn.Module, optimizer: torch.optim.Optimizer) -> Progress | None:
    """Put the newest complete checkpoint into model and optimizer; None, touching nothing, if there is none.

    Raises: ValueError: it belongs to another run (other config, seed or prompts).
    """
    newest = points.newest()
    if newest is None:
        return None
    tensors = load_file(newest / "model.safetensors")
    with torch.no_grad():
        for name, parameter in trained(model).items():
            parameter.copy_(tensors[name])
    _load_optimizer(load_file(newest / "optimizer.safetensors"), model, optimizer)
    return Progress(**json.loads((newest / "progress.json").read_text(encoding="utf-8")))


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The trained parameters by name; with adapters those and the value head alone."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    return {
        f"{name}/{key}": value.detach()
        for name, parameter in trained(model).items()
        for key, value in optimizer.state[parameter].items()
    }


def _load_optimizer(tensors: dict[str, torch.Tensor], model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    parameters = trained(model)
    for name, value in tensors.items():
        owner, key = name.rsplit("/", 1)
        parameter = parameters[owner]
        # Adam's step counter lives where it was made; moments live beside their parameter
        optimizer.state[parameter][key] = value if key == "step" else value.to(parameter.device)
