"""A key-value cache with room ahead: a step writes its own token, where transformers' copies all before it."""

from typing import Any

import torch
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer


class RoomyLayer(DynamicLayer):
    """`keys` and `values` are views of the taken part of their room. Rows may be selected, not otherwise changed."""

    def __init__(self, ahead: int) -> None:
        super().__init__()
        self._ahead = ahead

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Take in the states (batch, heads, tokens, size) of new tokens; returns those of all tokens."""
        taken = self.get_seq_length()
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._rooms = [key_states[..., :0, :], value_states[..., :0, :]]
        end = taken + key_states.shape[-2]
        self._rooms = [
            _written(room, new, taken, self._ahead)
            for room, new in zip(self._rooms, (key_states, value_states), strict=True)
        ]
        self.keys, self.values = (room[..., :end, :] for room in self._rooms)
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep these rows."""
        taken = self.get_seq_length()
        self._rooms = [room[indices] for room in self._rooms]
        self.keys, self.values = (room[..., :taken, :] for room in self._rooms)


def roomy_cache(config: PreTrainedConfig, ahead: int) -> DynamicCache:
    """The cache that a model of this config wants, its plain layers with room for so many tokens beyond those that they
    are first given; others, as of a window, stay."""
    cache = DynamicCache(config=config)
    cache.layers = [RoomyLayer(ahead) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def _written(room: torch.Tensor, new: torch.Tensor, start: int, ahead: int) -> torch.Tensor:
    """The room, larger if it must be, with `new` from token `start` on."""
    end = start + new.shape[-2]
    if end > room.shape[-2]:
        larger = new.new_empty(*new.shape[:-2], end + ahead, new.shape[-1])
        larger[..., :start, :] = room[..., :start, :]
        room = larger
    room[..., start:end, :] = new
    return room
