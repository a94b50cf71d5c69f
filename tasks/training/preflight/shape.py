"""The sizes of a model from its config alone: built on torch's meta device, where tensors have shapes and no bytes."""

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tasks.schema import Frozen

if TYPE_CHECKING:
    from transformers import PretrainedConfig

Head = Literal["tokens", "scalar"]
"""What a model ends in: logits over the vocabulary, or one score."""

LLAMA_7B = "llama-7b"
"""Stands for the folder of a 7B Llama of 2023 (6.7 billion parameters), whose sizes are transformers' own defaults."""


class ModelShape(Frozen):
    """What of a model decides how much memory it takes. Widths are numbers of elements a token."""

    num_parameters: int
    """All of them, counted once where they are tied."""
    num_linear: int
    """Of them in linear layers but the head: what bfloat16 arithmetic keeps a copy of."""
    num_head: int
    """Of the head, also where it is tied."""
    num_embedding: int
    """Of the input embeddings, also where they are the head."""
    largest_matrix: int
    """Parameters of the largest single one."""
    largest_layer: int
    """Parameters of one decoder layer, or of the largest embedding where that has more: what sharding gathers."""
    adapter_width: int
    """Inputs and outputs of all linear layers but the head: times the rank, the parameters of adapters."""
    hidden: int
    num_layers: int
    queries: int
    """Width of attention's queries."""
    keys: int
    """Width of attention's keys, which is the values'."""
    inner: int
    """Width inside the feed-forward layer."""
    vocabulary: int
    context: int | None
    """Positions it has, if it says so."""

    def num_adapter(self, rank: int) -> int:
        """Parameters of adapters of this rank on every linear layer."""
        return rank * self.adapter_width


def read_shape(folder: Path, head: Head) -> ModelShape:
    """The sizes of the model whose `config.json` is in `folder`, ending in the given head.

    Raises: ValueError: there is no config that transformers knows.
    """
    return shape_of(read_config(folder), head)


def read_config(folder: Path) -> "PretrainedConfig":
    """Raises: ValueError: there is no config that transformers knows."""
    from transformers import AutoConfig, LlamaConfig

    if str(folder) == LLAMA_7B:
        return LlamaConfig()
    try:
        return AutoConfig.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"preflight: {folder} has no config.json that transformers knows ({error}); expected a model folder"
        ) from error


def shape_of(config: "PretrainedConfig", head: Head) -> ModelShape:
    """The sizes of a model of this config."""
    import torch
    from torch import nn
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    text = config.get_text_config()
    with torch.device("meta"):
        if head == "scalar":
            config = copy.deepcopy(config)
            config.num_labels = 1
            model = AutoModelForSequenceClassification.from_config(config)
        else:
            model = AutoModelForCausalLM.from_config(config)
    last = model.score if head == "scalar" else model.get_output_embeddings()
    linear = [module for module in model.modules() if isinstance(module, nn.Linear) and module is not last]
    lists = [list(module) for module in model.modules() if isinstance(module, nn.ModuleList)]
    decoder = max(lists, key=len, default=[])
    layers = [sum(parameter.numel() for parameter in layer.parameters()) for layer in decoder]
    sizes = [parameter.numel() for parameter in model.parameters()]
    heads = text.num_attention_heads
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // heads
    return ModelShape(
        num_parameters=sum(sizes),
        num_linear=sum(module.weight.numel() for module in linear),
        num_head=last.weight.numel(),
        num_embedding=model.get_input_embeddings().weight.numel(),
        largest_matrix=max(sizes),
        largest_layer=max(layers + sizes),
        adapter_width=sum(module.in_features + module.out_features for module in linear),
        hidden=text.hidden_size,
        num_layers=text.num_hidden_layers,
        queries=heads * head_dim,
        keys=(getattr(text, "num_key_value_heads", None) or heads) * head_dim,
        inner=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
        vocabulary=text.vocab_size,
        context=getattr(text, "max_position_embeddings", None),
    )
