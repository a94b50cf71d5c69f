"""Policies along the way, each written out as a model of its own while the training goes on."""

import copy
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.training.adapters import merged
from tasks.training.config import PolicyTrainerConfig, Precision
from tasks.training.folders import kept_name, save_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def keeping(folder: Path | None, source: Path, config: PolicyTrainerConfig) -> "KeptPolicies | None":
    """Where a training keeps policies; None where it keeps none."""
    if folder is None or not config.keep_every:
        return None
    return KeptPolicies(folder, source, config.precision, config.keep_every)


@dataclass(frozen=True)
class KeptPolicies:
    """A folder that policies are written to."""

    folder: Path
    source: Path
    """Folder of the model that the training started from, whose tokenizer they have."""
    precision: Precision
    every: int
    """Steps between them; an update of PPO is one."""

    def is_due(self, step: int) -> bool:
        return step % self.every == 0

    def write(self, policy: "PreTrainedModel", step: int, use_cache: bool) -> Path:
        """The policy as it is now; it goes on as it was. The folder has its name once it is whole.

        `use_cache` is what its config says of generating: a trainer may have turned that off.
        """
        folder, unfinished = self.folder / kept_name(step), self.folder / ".unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        plain = merged(on_cpu(policy))
        plain.config.use_cache = use_cache
        save_model(plain, self.source, unfinished, self.precision)
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed before anybody took it
        return unfinished.rename(folder)


def on_cpu(model: "PreTrainedModel") -> "PreTrainedModel":
    """A copy whose weights are on the CPU: the device has no room for a second one."""
    from torch import nn

    tensors = [*model.parameters(), *model.buffers()]
    memo = {
        id(t): nn.Parameter(t.detach().to("cpu", copy=True), t.requires_grad)
        if isinstance(t, nn.Parameter)
        else t.detach().to("cpu", copy=True)
        for t in tensors
    }
    return copy.deepcopy(model, memo)
