"""What passes take beside weights, in bytes: formulas for a decoder like Llama's, Mistral's, Qwen's or Gemma's.

Widths in the comments are a token's: h hidden, q queries, f inside the feed-forward layer. Attention is torch's
`scaled_dot_product_attention`, which keeps no matrix of tokens by tokens. Keys and values count as wide as queries,
because transformers repeats them where rows are padded. With mixture-of-experts layers all this is a guess.
"""

from typing import NamedTuple

from tasks.training.preflight.shape import ModelShape

FLOAT32 = 4


class Arithmetic(NamedTuple):
    """Bytes a number has, by where it is."""

    inner: int
    """In linear layers and attention: 2 under autocast."""
    stream: int
    """Between layers: 2 only where the whole frozen model was loaded in bfloat16."""
    adapters: bool
    """Whether weights are frozen but for adapters; then a norm keeps less, and a linear layer's input twice."""


def saved_by_layer(shape: ModelShape, numbers: Arithmetic) -> int:
    """A token and decoder layer: what the forward pass keeps for the backward pass."""
    h, q, f = shape.hidden, shape.queries, shape.inner
    norms = FLOAT32 * (2 * h if numbers.adapters else 4 * h)  # input of both; normalised, if a weight learns from it
    if numbers.inner == FLOAT32:
        # both norms' results; queries, keys, values and what attention gives; gate, its activation, up, their product
        return norms + FLOAT32 * (2 * h + 4 * q + 4 * f)
    # autocast casts a norm's result anew for each of the five linear layers that take it
    return norms + numbers.inner * (5 * h + 4 * q + 4 * f + numbers.adapters * q)


def activations(shape: ModelShape, tokens: int, numbers: Arithmetic, checkpointing: bool) -> int:
    """At most alive of one model in a backward pass over so many tokens, padding included."""
    layer = tokens * saved_by_layer(shape, numbers)
    # checkpointing keeps each layer's input, and one layer's whole while that is computed again
    inputs = shape.num_layers * tokens * numbers.stream * shape.hidden
    kept = inputs + layer if checkpointing else shape.num_layers * layer
    around = tokens * FLOAT32 * 3 * shape.hidden  # the last norm: input, normalised, result
    flowing = tokens * FLOAT32 * (2 * shape.hidden + 2 * shape.inner)  # gradients on their way through one layer
    return kept + around + flowing


def forward_only(shape: ModelShape, tokens: int, numbers: Arithmetic) -> int:
    """At most alive of a pass without gradients: one layer's states and the insides of its feed-forward part."""
    return tokens * (FLOAT32 * 3 * shape.hidden + numbers.inner * 3 * shape.inner)


def cache(shape: ModelShape, tokens: int, bytes_a_pair: int) -> int:
    """Keys and values of all layers while sampling, and of one layer once more: it is copied when rows are dropped."""
    return (shape.num_layers + 1) * tokens * shape.keys * bytes_a_pair


def next_token_logits(shape: ModelShape, rows: int) -> int:
    """Of sampling: logits, log-probabilities, probabilities and their product in float32, running sums in float64."""
    return rows * shape.vocabulary * (4 * 4 + 8)


def packed_logits(shape: ModelShape, tokens: int) -> int:
    """Of PPO's passes, over completion tokens alone. Learning: scaled logits, log-probabilities and two gradients;
    measuring: logits, log-probabilities and two for the entropy."""
    return tokens * shape.vocabulary * FLOAT32 * 4


TILE_TOKENS, TILE_VOCABULARY = 4096, 32_768
"""TRL 1.16 computes log-probabilities of SFT, RLOO, GRPO and DPO in tiles of so many logits, never all of them."""


def tiled_logits(shape: ModelShape, tokens: int, numbers: Arithmetic, on_gpu: bool) -> int:
    """Of TRL's output layer: one tile, computed in place, on a GPU, and nine float32 copies of it on a CPU; and float32
    gradients of the layer and of its input."""
    tile = min(tokens, TILE_TOKENS) * min(shape.vocabulary, TILE_VOCABULARY)
    gradients = FLOAT32 * (tokens * shape.hidden + (0 if numbers.adapters else shape.num_head))
    return tile * (numbers.inner if on_gpu else 9 * FLOAT32) + gradients
