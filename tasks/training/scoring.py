"""Scores of whole conversations by a reward model, in units of its own spread."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.schema import Message
from tasks.training.batching import batches_by_length, pad_right
from tasks.training.encode import encode_conversation, load_tokenizer
from tasks.training.folders import load_scalar_model, training_device

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SCALE_FILE = "reward_scale.json"
TOKENS_PER_BATCH = 16_384  # bounds memory, not results


def score(reward: Path, conversations: Sequence[Sequence[Message]]) -> list[float]:
    """Standardised scores, in order, of conversations that end with an assistant turn.

    0 is the mean over the completions the reward model was trained on, 1 one standard deviation above.

    Raises: ValueError: a conversation ends otherwise, or the folder holds no reward model.
    """
    mean, std = load_scale(reward)
    tokenizer = load_tokenizer(reward)
    model = load_scalar_model(reward).to(training_device()).eval()
    ids = [encode_conversation(tokenizer, conversation) for conversation in conversations]
    return [(raw - mean) / std for raw in raw_scores(model, ids)]


def load_scale(reward: Path) -> tuple[float, float]:
    """Mean and standard deviation by which raw scores are standardised.

    Raises: ValueError: the folder has none, so it was not made by `train_reward`.
    """
    path = reward / SCALE_FILE
    if not path.exists():
        raise ValueError(f"{reward} has no {SCALE_FILE}, expected a reward model made by the stage `reward`")
    scale = json.loads(path.read_text(encoding="utf-8"))
    return scale["mean"], scale["std"]


def raw_scores(model: "PreTrainedModel", sequences: Sequence[Sequence[int]]) -> list[float]:
    """The scalar at each sequence's last token, in order; batched by length, so that little is padding."""
    import torch

    scores = [0.0] * len(sequences)
    pad = model.config.pad_token_id
    with torch.no_grad():
        for batch in batches_by_length([len(ids) for ids in sequences], TOKENS_PER_BATCH):
            ids = pad_right([sequences[i] for i in batch], pad).to(model.device)
            logits = model(input_ids=ids, use_cache=False).logits.squeeze(-1)
            for i, value in zip(batch, logits.float().tolist(), strict=True):
                scores[i] = value
    return scores
