"""The weights that a vLLM server is given; the server itself is in tests/integration/test_vllm_rollouts.py."""

import torch

from tasks.training.adapters import merged
from tasks.training.config import SFTConfig
from tasks.training.folders import load_policy
from tasks.training.ppo.model import with_adapters
from tasks.training.ppo.vllm_rollouts import plain_weights
from tests.tiny_model import make_tiny_model


def test_plain_weights_are_the_models_with_adapters_added_in_and_leave_it_as_it_is(tmp_path):
    model = load_policy(make_tiny_model(tmp_path))
    base = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert all(torch.equal(base[name], tensor) for name, tensor in plain_weights(model, torch.float32).items())
    adapted = with_adapters(model, SFTConfig(lora_rank=4), "CAUSAL_LM")
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.normal_()
    ids = torch.tensor([[5, 6, 7]])
    before = adapted(input_ids=ids).logits
    given = plain_weights(adapted, torch.float32)
    assert torch.equal(adapted(input_ids=ids).logits, before)
    whole = merged(adapted).state_dict()
    assert given.keys() == whole.keys() == base.keys()
    assert all(torch.allclose(given[name], whole[name], atol=1e-6) for name in given)
    assert sum(not torch.equal(given[name], base[name]) for name in given) >= 7
