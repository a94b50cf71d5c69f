"""The best policy measured so far: its trained weights, in memory and in every resume point."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from tasks.training.ppo.checkpoint import trained

FILE = "best.safetensors"


@dataclass
class BestPolicy:
    """Weights on the CPU. Until a policy is better than the SL policy there are none."""

    update: int = 0
    """Updates that it had behind it."""
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)

    def take(self, policy: nn.Module, update: int) -> None:
        """The policy as it is now is the best."""
        self.update = update
        self.tensors = {name: p.detach().to("cpu", copy=True).contiguous() for name, p in trained(policy).items()}

    def put_back(self, policy: nn.Module) -> None:
        """Make the policy the best one again; it must not be the SL policy, whose weights are in its own folder."""
        assert self.tensors
        with torch.no_grad():
            for name, parameter in trained(policy).items():
                parameter.copy_(self.tensors[name])

    def write(self, folder: Path, earlier: Path | None) -> None:
        """Into a resume point; a link to the file of an `earlier` one where that holds the same weights."""
        if not self.tensors:
            return
        if earlier and _update_of(earlier / FILE) == self.update:
            os.link(earlier / FILE, folder / FILE)
        else:
            save_file(self.tensors, folder / FILE, metadata={"update": str(self.update)})

    @classmethod
    def load(cls, folder: Path | None) -> "BestPolicy":
        """What a resume point holds; none yet without one."""
        if folder is None or not (folder / FILE).exists():
            return cls()
        update = _update_of(folder / FILE)
        assert update is not None
        return cls(update, load_file(folder / FILE))


def _update_of(path: Path) -> int | None:
    if not path.exists():
        return None
    with safe_open(path, "pt") as file:
        return int(file.metadata()["update"])
