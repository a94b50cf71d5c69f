"""The policy and the value model: two networks of one architecture, no weights shared, one optimizer."""

import torch
from peft import PeftModel, get_peft_model
from torch import nn
from transformers import PreTrainedModel

from tasks.training.adapters import TaskType, lora_config
from tasks.training.config import Precision, TrainerConfig
from tasks.training.ppo.unpadded import last_states


class PolicyAndValue(nn.Module):
    """One module, so that one backward pass and one optimizer serve both. Either may be wrapped in adapters.

    `value_offset` is taken off what the value head says, which has no bias: no parameter, so not in resume points.
    """

    def __init__(self, policy: PreTrainedModel, value: PreTrainedModel, value_offset: float = 0.0) -> None:
        super().__init__()
        self.policy = policy
        self.value = value
        self.value_offset = value_offset

    def forward(
        self, ids: torch.Tensor, response: torch.Tensor, temperature: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (tokens, vocabulary) and values (tokens,) of the response tokens, packed row by row.

        `ids` (batch, seq) are padded at the right; `response` (batch, seq) is True on completion tokens. The
        value of a token is the one of the state before it is drawn.
        """
        return response_logits(self.policy, ids, response, temperature), self.values(ids, response)

    def values(self, ids: torch.Tensor, response: torch.Tensor) -> torch.Tensor:
        """Values (tokens,) alone."""
        return response_values(self.value, ids, response) - self.value_offset


def response_logits(
    policy: PreTrainedModel, ids: torch.Tensor, response: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Float32 logits / temperature (tokens, vocabulary): the head runs on response positions alone."""
    states = _states_before(policy, ids, response)
    return tempered(policy.get_output_embeddings()(states), temperature)


def tempered(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """Float32 logits / temperature: at 1, the default, without another pass over them."""
    return _full(logits) if temperature == 1 else _full(logits) / temperature


def response_values(value: PreTrainedModel, ids: torch.Tensor, response: torch.Tensor) -> torch.Tensor:
    """Float32 values (tokens,)."""
    return _full(plain(value).score(_states_before(value, ids, response)).squeeze(-1))


def final_scores(reward: PreTrainedModel, ids: torch.Tensor, response: torch.Tensor) -> torch.Tensor:
    """Float32 raw scores (batch,) at the last response token of each row."""
    read = _up_to_its_end(response)
    states = last_states(reward, ids, read)[read.sum(1).cumsum(0) - 1]
    return _full(reward.score(states).squeeze(-1))


def token_logprobs(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Log-probability (tokens,) of each token under its row of logits (tokens, vocabulary)."""
    return -nn.functional.cross_entropy(logits, tokens, reduction="none")


def token_logprobs_and_entropies(logits: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`token_logprobs`, and the entropy in nats (tokens,) of each row's distribution."""
    logprobs = logits.log_softmax(-1)
    chosen = logprobs.gather(-1, tokens[:, None]).squeeze(-1)
    return chosen, -(logprobs.exp() * logprobs).sum(-1)


def with_adapters(model: PreTrainedModel, config: TrainerConfig, task_type: TaskType) -> PreTrainedModel | PeftModel:
    """The model in a wrapper whose adapters alone are trained; as it is where the config wants none."""
    adapters = lora_config(config, task_type)
    return get_peft_model(model, adapters) if adapters else model


def plain(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """The model under a wrapper of adapters; these are within its layers and take part in its passes."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def keep_frozen_in(precision: Precision, model: nn.Module) -> None:
    """Keep the frozen linear layers of a model in `precision`.

    It is what autocast makes of them in every pass, so that no figure changes; all else stays float32, because
    autocast leaves it so. A weight that is an embedding too is left as it is.
    """
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    for layer in model.modules():
        is_frozen = isinstance(layer, nn.Linear) and not any(p.requires_grad for p in layer.parameters())
        if is_frozen and id(layer.weight) not in embeddings:
            layer.to(getattr(torch, precision))


def disable_dropout(model: nn.Module) -> None:
    """PPO compares probabilities across passes: chance must come from sampling alone."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if "attention_dropout" in vars(module):
            vars(module)["attention_dropout"] = 0.0


@torch.no_grad()
def check_plain_head(policy: PreTrainedModel) -> None:
    """Make sure that logits are the output embedding of the last state, which `response_logits` relies on.

    Raises: ValueError: the architecture does more (soft-capping, scaling).
    """
    ids = torch.tensor([[1, 2]], device=policy.device)
    response = torch.tensor([[False, True]], device=policy.device)
    ours = response_logits(policy, ids, response, temperature=1.0)
    theirs = policy(input_ids=ids, use_cache=False).logits[0, :1].float()
    if not torch.allclose(ours, theirs, rtol=1e-3, atol=1e-3):
        raise ValueError(
            f"ppo: {policy.config.model_type} changes its logits after the output embedding "
            f"(by up to {(ours - theirs).abs().max():.3g}), "
            "which this trainer would miss; use another architecture"
        )


def _states_before(model: PreTrainedModel | PeftModel, ids: torch.Tensor, response: torch.Tensor) -> torch.Tensor:
    """Last hidden states (tokens, hidden) at the positions that predict the response tokens."""
    read, predicts = _up_to_its_end(response)[:, 1:], response[:, 1:]
    return last_states(plain(model), ids[:, :-1], read)[predicts[read]]


def _up_to_its_end(response: torch.Tensor) -> torch.Tensor:
    """(batch, seq) bool: True up to the last response token of each row."""
    return response.flip(1).cumsum(1).flip(1) > 0


def _full(x: torch.Tensor) -> torch.Tensor:
    """In float32; what is finer stays so."""
    return x if x.dtype == torch.float64 else x.float()
