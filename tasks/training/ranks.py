"""The processes of one training. Importing this imports torch.

Every process holds the whole model and a share of the rows. What they exchange are tensors: rows are gathered so that
every process sees the whole batch in one order, gradients are added. One process is the same code without exchange.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

import torch
from torch import distributed

from tasks.training.folders import training_device

T = TypeVar("T")

TIMEOUT = timedelta(minutes=30)
"""How long a process waits for the others: longer than they may differ, shorter than nobody would notice."""


@dataclass(frozen=True)
class Ranks:
    """This process among those of its training."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=training_device)

    @classmethod
    def join(cls, timeout: timedelta = TIMEOUT) -> "Ranks":
        """Join the others that torchrun started, or be the only one. The first call's `timeout` holds."""
        size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
        on_gpu = torch.cuda.is_available()
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if on_gpu else torch.device("cpu")
        if on_gpu:
            torch.cuda.set_device(device)
        if size > 1 and not distributed.is_initialized():
            distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=timeout)
        return cls(rank, size, device)

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    def share(self, rows: Sequence[T]) -> list[T]:
        """Every `size`-th row, from the `rank`-th on."""
        return list(rows[self.rank :: self.size])

    def gather(self, rows: torch.Tensor) -> torch.Tensor:
        """(all rows, ...) on the CPU, in the order that `share` cut, from everybody's (rows, ...) of equal shape."""
        if self.size == 1:
            return rows.cpu()
        mine = rows.to(self.device).contiguous()
        parts = [torch.empty_like(mine) for _ in range(self.size)]
        distributed.all_gather(parts, mine)
        return torch.stack(parts, dim=1).flatten(0, 1).cpu()

    def gather_sequences(self, sequences: Sequence[Sequence[int]], longest: int) -> list[list[int]]:
        """As `gather`, of sequences of numbers from 0 up, none longer than `longest`."""
        if self.size == 1:
            return [list(sequence) for sequence in sequences]
        padded = torch.full((len(sequences), longest), -1)
        for row, sequence in zip(padded, sequences, strict=True):
            row[: len(sequence)] = torch.tensor(sequence)
        return [row[row >= 0].tolist() for row in self.gather(padded)]

    def first_of_node(self) -> bool:
        """Whether this is the first process of its machine, which shares no folder with the others."""
        return int(os.environ.get("LOCAL_RANK", "0")) == 0

    def expect_agreement(self, number: int, what: str) -> None:
        """Raises: RuntimeError: some process has another number; `what` it counts, in words."""
        numbers = self.gather(torch.tensor([number])).tolist()
        if len(set(numbers)) > 1:
            raise RuntimeError(f"processes do not agree on {what}: by rank {numbers}, expected one; run it again")

    def gather_bytes(self, data: bytes) -> list[bytes]:
        """Everybody's bytes, by rank."""
        if self.size == 1:
            return [data]
        longest = max(self.gather(torch.tensor([len(data)])).tolist())
        return [bytes(row) for row in self.gather_sequences([list(data)], longest)]

    def add(self, figures: Sequence[float]) -> list[float]:
        """Each figure's sum over everybody."""
        if self.size == 1:
            return list(figures)
        return self.gather(torch.tensor([figures], dtype=torch.float64)).sum(0).tolist()

    def add_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replace each trained parameter's gradient by the sum of everybody's; one that has none counts as zero."""
        if self.size == 1:
            return
        under_way = []
        for parameter in parameters:
            if parameter.requires_grad:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                under_way.append(distributed.all_reduce(parameter.grad, async_op=True))
        for work in under_way:
            work.wait()

    def any(self, flag: bool) -> bool:
        """Whether the flag is set anywhere; everybody must ask."""
        if self.size == 1:
            return flag
        votes = torch.tensor([float(flag)], device=self.device)
        distributed.all_reduce(votes)
        return bool(votes.item() > 0)

    def wait(self) -> None:
        """Until all are here."""
        if self.size > 1:
            distributed.barrier()


ALONE = Ranks()
"""The one process of a training that is not spread."""
