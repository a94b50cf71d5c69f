"""Resume points of PPO: everything that an uninterrupted run would have had in memory.

A checkpoint is a folder `update-000010`: tensors as safetensors, the rest as JSON, no pickle. It is written
under a hidden name and renamed when whole, so a folder with that name is complete. There is no generator
state to keep: prompts, samples and shuffles are functions of (seed, number of the update).
"""

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tasks.training.folders import write_json

KEPT = 2  # the newest, and the one before in case the newest is lost


@dataclass
class Progress:
    """Where a run stands between two updates."""

    kl_coef: float
    next_update: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    """Metrics of each finished update."""
    rollouts: list[dict[str, Any]] = field(default_factory=list)


def save_checkpoint(
    folder: Path, run: str, progress: Progress, model: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Write a resume point and drop all but the newest `KEPT`. `run` names what is trained on what."""
    complete = folder / f"update-{progress.next_update:06d}"
    partial = folder / f".partial-{complete.name}"
    for leftover in folder.glob(".partial-*"):
        shutil.rmtree(leftover)
    partial.mkdir(parents=True)
    save_file({name: tensor.detach() for name, tensor in model.named_parameters()}, partial / "model.safetensors")
    save_file(_optimizer_tensors(model, optimizer), partial / "optimizer.safetensors")
    write_json(partial / "progress.json", {"run": run, **asdict(progress)})
    if complete.exists():
        shutil.rmtree(complete)
    partial.replace(complete)
    for old in _checkpoints(folder)[:-KEPT]:
        shutil.rmtree(old)


def load_checkpoint(folder: Path, run: str, model: nn.Module, optimizer: torch.optim.Optimizer) -> Progress | None:
    """Put the newest complete checkpoint into model and optimizer; None, touching nothing, if there is none.

    Raises: ValueError: it belongs to another run (other config, seed or prompts).
    """
    checkpoints = _checkpoints(folder)
    if not checkpoints:
        return None
    newest = checkpoints[-1]
    saved = json.loads((newest / "progress.json").read_text(encoding="utf-8"))
    if saved.pop("run") != run:
        raise ValueError(
            f"checkpoint {newest} is of another config, seed, model or set of prompts; give each run its own folder"
        )
    tensors = load_file(newest / "model.safetensors")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[name])
    _load_optimizer(load_file(newest / "optimizer.safetensors"), model, optimizer)
    return Progress(**saved)


def _checkpoints(folder: Path) -> list[Path]:
    """Complete ones, oldest first."""
    return sorted(folder.glob("update-*"))


def _optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    return {
        f"{name}/{key}": value.detach()
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state[parameter].items()
    }


def _load_optimizer(tensors: dict[str, torch.Tensor], model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    parameters = dict(model.named_parameters())
    for name, value in tensors.items():
        owner, key = name.rsplit("/", 1)
        parameter = parameters[owner]
        # Adam's step counter lives where it was made; moments live beside their parameter
        optimizer.state[parameter][key] = value if key == "step" else value.to(parameter.device)
