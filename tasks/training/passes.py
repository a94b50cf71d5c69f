"""Which rows a Trainer takes when: pass after pass, the same for one process as for several.

Importing this imports torch.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import Sampler


class PassOrder(Sampler[int]):
    """Positions 0 to `num_rows` - 1 in an order that depends on seed and pass alone, then the blank row's some times.

    `passes_done` tells the pass, so that a training that resumes in its third goes on in the third's order.
    """

    def __init__(self, num_rows: int, num_blanks: int, seed: int, passes_done: Callable[[], int]) -> None:
        self._num_rows, self._num_blanks = num_rows, num_blanks
        self._seed, self._passes_done = seed, passes_done

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed + self._passes_done())
        yield from torch.randperm(self._num_rows, generator=generator).tolist()
        yield from [self._num_rows] * self._num_blanks

    def __len__(self) -> int:
        return self._num_rows + self._num_blanks


class InPasses:
    """For a Trainer whose dataset ends with a blank row, one that adds nothing to the loss.

    Processes take micro-batches in turn, and must get equally many: the last ones of a pass are filled with blanks.
    accelerate would fill them with rows of the pass's start, which would then count twice.
    """

    args: Any
    state: Any
    train_dataset: Any

    def _get_train_sampler(self, train_dataset: Any = None) -> PassOrder:
        num_rows = len(self.train_dataset) - 1
        size = self.args.world_size
        num_blanks = -num_rows % (self.args.per_device_train_batch_size * size) if size > 1 else 0
        return PassOrder(num_rows, num_blanks, self.args.seed, lambda: int(self.state.epoch or 0))
