"""The policy and the value model: two networks of one architecture, no weights shared, one optimizer."""

import torch
from torch import nn
from transformers import PreTrainedModel


class PolicyAndValue(nn.Module):
    """One module, so that one wrapper (DDP, FSDP) and one backward pass serve both."""

    def __init__(self, policy: PreTrainedModel, value: PreTrainedModel) -> None:
        super().__init__()
        self.policy = policy
        self.value = value

    def forward(
        self, ids: torch.Tensor, response: torch.Tensor, temperature: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (tokens, vocabulary) and values (tokens,) of the response tokens, packed row by row.

        `ids` (batch, seq) are padded at the right; `response` (batch, seq) is True on completion tokens. The
        value of a token is the one of the state before it is drawn.
        """
        logits = response_logits(self.policy, ids, response, temperature)
        return logits, response_values(self.value, ids, response)


def response_logits(
    policy: PreTrainedModel, ids: torch.Tensor, response: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Float32 logits / temperature (tokens, vocabulary): the head runs on response positions alone."""
    states = _states_before(policy, ids, response)
    return policy.get_output_embeddings()(states).float() / temperature


def response_values(value: PreTrainedModel, ids: torch.Tensor, response: torch.Tensor) -> torch.Tensor:
    """Float32 values (tokens,)."""
    return value.score(_states_before(value, ids, response)).squeeze(-1).float()


def token_logprobs(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Log-probability (tokens,) of each token under its row of logits (tokens, vocabulary)."""
    return -nn.functional.cross_entropy(logits, tokens, reduction="none")


def token_entropies(logits: torch.Tensor) -> torch.Tensor:
    """Entropy in nats (tokens,) of each row's distribution."""
    logprobs = logits.log_softmax(-1)
    return -(logprobs.exp() * logprobs).sum(-1)


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


def _states_before(model: PreTrainedModel, ids: torch.Tensor, response: torch.Tensor) -> torch.Tensor:
    """Last hidden states (tokens, hidden) at the positions that predict the response tokens."""
    states = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    return states[:, :-1][response[:, 1:]]
