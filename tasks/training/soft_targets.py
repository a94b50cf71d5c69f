"""What a Trainer of comparisons needs for soft targets, whatever its loss. Importing this imports torch.

A row carries `target_prob` and `weight` beside its tokens; one of weight 0 is blank (`InPasses`).
"""

from collections.abc import Sequence
from typing import Any

import torch

from tasks.training.passes import InPasses

SOFT_COLUMNS = ("target_prob", "weight")
"""What a row has beside the tokens that TRL knows of."""


def with_soft_columns(batch: dict[str, Any], examples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A collator's batch and the examples' soft columns, each (batch,)."""
    return batch | {name: torch.tensor([example[name] for example in examples]) for name in SOFT_COLUMNS}


class SoftTargets(InPasses):
    """For a Trainer whose loss is a mean over comparisons: each row counts the same, in a short micro-batch too."""

    accelerator: Any
    loss_is_scaled_for_ga = True
    _metrics: Any
    _signature_columns: Any

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()  # type: ignore[misc]  # the Trainer's
        self._signature_columns += [name for name in SOFT_COLUMNS if name not in self._signature_columns]

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Any]], device: torch.device) -> torch.Tensor:
        """Rows of the optimizer step, over all processes; blank ones are none."""
        weights = torch.cat([batch["weight"] for batch in batch_samples]).to(device)
        rows: torch.Tensor = self.accelerator.gather((weights > 0).sum()).sum()
        return rows

    def _as_share(self, loss: torch.Tensor, num_rows: int, num_items_in_batch: Any) -> torch.Tensor:
        """A micro-batch's mean loss as its share of the step's; gradients are averaged over the processes."""
        share: torch.Tensor = loss * num_rows / num_items_in_batch * self.accelerator.num_processes
        return share

    def _note(
        self, margins: torch.Tensor, target_prob: torch.Tensor, weight: torch.Tensor, **figures: torch.Tensor
    ) -> None:
        """Keep a micro-batch's figures a row, over all processes; TRL's `log` averages those of a step.

        Beside those given: `margin`, and `accuracy`, the share of decided labels whose side has it.
        """
        columns = torch.stack([margins, target_prob, weight, *figures.values()], dim=1).detach()
        margins, target_prob, weight, *others = self.accelerator.gather(columns).unbind(1)
        real, decided = weight > 0, target_prob != 0.5
        noted = {"margin": margins[real]} | {n: v[real] for n, v in zip(figures, others, strict=True)}
        if (real & decided).any():
            noted["accuracy"] = ((margins > 0) == (target_prob > 0.5))[real & decided].float()
        for name, values in noted.items():
            self._metrics["train"][name].append(values.mean().item())
