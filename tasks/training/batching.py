"""Sequences of unequal length as rectangular batches with little padding."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def batches_by_length(lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """Positions in groups of like length, each of at most `max_tokens` tokens when padded.

    Shortest first, ties in order; a sequence longer than `max_tokens` is a group of its own.
    """
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and lengths[i] * (len(batch) + 1) > max_tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def chunks_by_length(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Positions in groups of `size`, neighbours of like length, shortest first; the last may be smaller."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    return [order[start : start + size] for start in range(0, len(order), size)]


def pad_right(sequences: Sequence[Sequence[int]], pad: int) -> "torch.Tensor":
    """(batch, longest) int64. In a causal model what follows cannot reach a token: no mask is needed."""
    import torch

    return torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(sequence) for sequence in sequences], batch_first=True, padding_value=pad
    )


def pad_left(sequences: Sequence[Sequence[int]], pad: int) -> tuple["torch.Tensor", "torch.Tensor"]:
    """Ids and attention mask, both (batch, longest) int64: for sampling, which goes on at the right edge."""
    import torch

    width = max(map(len, sequences))
    ids = torch.full((len(sequences), width), pad)
    mask = torch.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, width - len(sequence) :] = torch.tensor(sequence)
        mask[row, width - len(sequence) :] = 1
    return ids, mask


def spans_mask(starts: Sequence[int], ends: Sequence[int], width: int) -> "torch.Tensor":
    """(batch, width) bool, True at positions start <= i < end of each row."""
    import torch

    position = torch.arange(width)
    return (position >= torch.tensor(starts)[:, None]) & (position < torch.tensor(ends)[:, None])
