"""Passes over the real tokens of a batch alone: rows lie end to end, and only attention sees them as rows.

Projections, norms and heads are made a token, so that padding costs nothing there, however unlike the rows' lengths.
"""

import logging
from typing import Any, NamedTuple

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

logger = logging.getLogger(__name__)

ATTENTION = "solon_unpadded"
"""A model with this attention takes rows end to end, as well as padded batches."""


class Rows(NamedTuple):
    """Where tokens that lie end to end have their place in a batch padded at the right."""

    batch: int
    width: int
    places: torch.Tensor
    """(tokens,) positions in the flat batch."""

    def pad(self, states: torch.Tensor) -> torch.Tensor:
        """(1, heads, tokens, size) to (batch, heads, width, size), zero where there is no token."""
        tokens = states[0].transpose(0, 1)
        room = tokens.new_zeros(self.batch * self.width, *tokens.shape[1:])
        return room.index_copy_(0, self.places, tokens).unflatten(0, (self.batch, self.width)).transpose(1, 2)

    def unpad(self, states: torch.Tensor) -> torch.Tensor:
        """(batch, width, heads, size) to (1, tokens, heads, size)."""
        return states.flatten(0, 1).index_select(0, self.places)[None]


def take_rows(model: PreTrainedModel) -> None:
    """Let passes of the model leave padding out, if they then say the same; otherwise leave the model as it is."""
    before, config = model.config._attn_implementation, model.config
    if before == ATTENTION:
        return
    if before != "sdpa" or not _sees_whole_rows(model):
        reason = f"its attention is {before}" if before != "sdpa" else "not all of its layers see whole rows"
        logger.info("ppo: %s is run on padded batches: %s", config.model_type, reason)
        return
    model.set_attn_implementation(ATTENTION)
    if not _says_the_same(model):
        model.set_attn_implementation(before)
        logger.warning("ppo: %s is run on padded batches: without padding it would say otherwise", config.model_type)


def last_states(model: PreTrainedModel, ids: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Last hidden states (tokens, hidden) at the real tokens of `ids` (batch, seq), row by row.

    `real` (batch, seq) is True on the first tokens of each row: what a causal model says of them does not depend on
    what follows.
    """
    if model.config._attn_implementation != ATTENTION:
        return model.base_model(input_ids=ids, use_cache=False).last_hidden_state[real]
    position = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    states = model.base_model(
        input_ids=ids[real][None],
        position_ids=position[real][None],
        attention_mask=torch.ones(1, 1, 1, 1, dtype=torch.bool, device=ids.device),  # has transformers make none
        use_cache=False,
        rows=Rows(len(ids), ids.shape[1], real.flatten().nonzero().squeeze(1)),
    )
    return states.last_hidden_state[0]


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    rows: Rows | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """torch's attention; where `rows` are given, each of them by itself: padding is after all that a token may see."""
    if rows is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    padded = (rows.pad(states) for states in (query, key, value))
    seen, _ = sdpa_attention_forward(module, *padded, None, is_causal=True, **kwargs)
    return rows.unpad(seen), None


AttentionInterface.register(ATTENTION, _attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def _sees_whole_rows(model: PreTrainedModel) -> bool:
    """Whether every layer is plain causal attention that others may be put in place of: no window, no chunks."""
    layers = getattr(model.config, "layer_types", None) or ["full_attention"]
    has_window = getattr(model.config, "sliding_window", None) is not None
    return model._can_set_attn_implementation() and {*layers} == {"full_attention"} and not has_window


@torch.no_grad()
def _says_the_same(model: PreTrainedModel) -> bool:
    ids = torch.tensor([[1, 2, 3, 4], [3, 1, 0, 0], [2, 0, 0, 0]], device=model.device)
    real = torch.tensor([[True] * 4, [True, True, False, False], [True, False, False, False]], device=model.device)
    padded = model.base_model(input_ids=ids, use_cache=False).last_hidden_state[real]
    return torch.allclose(last_states(model, ids, real), padded, rtol=1e-3, atol=1e-3)
