"""Passes over rows end to end say what passes over padded rows say, and are made where they do."""

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from tasks.training.folders import save_model
from tasks.training.ppo.unpadded import ATTENTION, last_states, take_rows

SIZES = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
GROUPED = SIZES | {"num_key_value_heads": 2}
LENGTHS = [5, 2, 9, 1]


def make(config: PreTrainedConfig) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    real = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    return torch.randint(1, 32, real.shape, generator=torch.Generator().manual_seed(1)) * real, real


def states_and_gradients(model: PreTrainedModel) -> tuple[torch.Tensor, list[torch.Tensor]]:
    model.zero_grad()
    states = last_states(model, *batch())
    (states * torch.linspace(-1, 1, states.numel()).view_as(states)).sum().backward()
    return states.detach(), [p.grad.clone() for p in model.base_model.parameters() if p.grad is not None]


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(**SIZES),
        LlamaConfig(**GROUPED),
        Qwen2Config(**GROUPED),
        Qwen3Config(**GROUPED, head_dim=8),
        MistralConfig(**GROUPED, sliding_window=None),
        GPTNeoXConfig(**SIZES),
    ],
    ids=lambda config: f"{config.model_type}-{getattr(config, 'num_key_value_heads', 4)}",
)
def test_states_and_gradients_are_those_of_padded_rows(config):
    model = make(config)
    padded = states_and_gradients(model)
    take_rows(model)
    assert model.config._attn_implementation == ATTENTION
    states, gradients = states_and_gradients(model)
    assert states.shape == (sum(LENGTHS), 16)
    torch.testing.assert_close(states, padded[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradients, padded[1], rtol=1e-4, atol=1e-5)


def test_gradient_checkpointing_changes_nothing():
    model = make(LlamaConfig(**GROUPED))
    take_rows(model)
    plain = states_and_gradients(model)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    torch.testing.assert_close(states_and_gradients(model), plain, rtol=0, atol=0)


@pytest.mark.parametrize(
    "config",
    [
        MistralConfig(**GROUPED, sliding_window=4),
        Gemma3TextConfig(**GROUPED, head_dim=8, layer_types=["sliding_attention", "full_attention"], sliding_window=4),
    ],
    ids=lambda config: config.model_type,
)
def test_windows_keep_padded_batches(config):
    model = make(config)
    padded = states_and_gradients(model)
    take_rows(model)
    assert model.config._attn_implementation == "sdpa"
    torch.testing.assert_close(states_and_gradients(model), padded, rtol=0, atol=0)


def test_eager_attention_stays():
    model = make(LlamaConfig(**SIZES, attn_implementation="eager"))
    take_rows(model)
    assert model.config._attn_implementation == "eager"


def test_model_that_would_say_otherwise_keeps_padded_batches(monkeypatch, caplog):
    """As one whose layers look at their neighbours by other means than attention."""
    model = make(LlamaConfig(**SIZES))
    first = model.base_model.layers[0].mlp
    plain = first.forward
    monkeypatch.setattr(first, "forward", lambda states: plain(states + states.cumsum(1)))
    take_rows(model)
    assert model.config._attn_implementation == "sdpa"
    assert "without padding it would say otherwise" in caplog.text


def test_padded_passes_with_a_cache_stay_those_of_torch_attention():
    ids, real = batch()
    model = make(LlamaConfig(**GROUPED))
    before = model(input_ids=ids.flip(1), attention_mask=real.flip(1).long(), use_cache=True)
    take_rows(model)
    after = model(input_ids=ids.flip(1), attention_mask=real.flip(1).long(), use_cache=True)
    assert torch.equal(before.logits, after.logits)


def test_saved_config_says_nothing_of_it(tmp_path):
    model = make(LlamaConfig(**SIZES))
    take_rows(model)
    save_model(model, tmp_path, tmp_path / "out", "float32")
    assert ATTENTION not in (tmp_path / "out" / "config.json").read_text()
