"""Policies along the way, each written out as a model of its own while the training goes on."""

import copy
import shutil
from dataclasses import dataclass
from pathlib import Path

from torch import nn
from transformers import PreTrainedModel

from tasks.training.adapters import merged
from tasks.training.config import Precision
from tasks.training.folders import kept_name, save_model


@dataclass(frozen=True)
class KeptPolicies:
    """A folder that policies are written to."""

    folder: Path
    source: Path
    """Folder of the SL policy, whose tokenizer they have."""
    precision: Precision

    def write(self, policy: PreTrainedModel, update: int) -> Path:
        """The policy as it is now; it goes on as it was. The folder has its name once it is whole."""
        folder, unfinished = self.folder / kept_name(update), self.folder / ".unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        save_model(merged(on_cpu(policy)), self.source, unfinished, self.precision)
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed before anybody took it
        return unfinished.rename(folder)


def on_cpu(model: PreTrainedModel) -> PreTrainedModel:
    """A copy whose weights are on the CPU: the device has no room for a second one."""
    tensors = [*model.parameters(), *model.buffers()]
    memo = {
        id(t): nn.Parameter(t.detach().to("cpu", copy=True), t.requires_grad)
        if isinstance(t, nn.Parameter)
        else t.detach().to("cpu", copy=True)
        for t in tensors
    }
    return copy.deepcopy(model, memo)
