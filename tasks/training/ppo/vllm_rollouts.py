"""Sampling completions through a vLLM server that holds the policy's weights of this very update.

Weights go to the server as a safetensors file that it reloads: slower than NCCL, but it needs no GPU, hangs nobody and
leaves nothing of a half-done transfer behind. After every push the server's log-probabilities are compared with the
policy's, because a reload can be wrong and answer 200: vLLM 0.32 leaves a tied output embedding stale, for one.
"""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import save_file
from transformers import PreTrainedModel

from tasks.serving.interface import ServingConfig, ServingError
from tasks.serving.probe import TOLERANCE
from tasks.serving.server import VLLMServer, reload_weights, start_server
from tasks.serving.vllm_client import Payload, Rejected, post_all
from tasks.serving.vllm_engine import PLAIN_DECODING
from tasks.training.config import Precision
from tasks.training.folders import TOKENIZER_FILES
from tasks.training.ppo.model import response_logits
from tasks.training.ppo.rollout import Samples

NUM_PROBES = 4
"""Prompts of the batch whose next token is compared after a push."""
NUM_TOKENS = 16
"""Likeliest tokens compared at each."""


class VLLMRollouts:
    """Samples as `sample_completions` does, from a server of its own. Use it as a context: the server ends with it.

    `folder` is the policy's: config and tokenizer are read there. On a GPU the server takes `memory_share` of it, and
    the trainer has the rest.
    """

    def __init__(self, folder: Path, precision: Precision, max_model_tokens: int, memory_share: float) -> None:
        self._folder = folder
        self._precision = precision
        self._scratch = tempfile.TemporaryDirectory()
        self._config = ServingConfig(
            dtype=precision,
            max_model_tokens=max_model_tokens,
            gpu_memory_utilization=memory_share,
            max_concurrency=256,
            reload_weights=True,
            scratch=Path(self._scratch.name),
        )
        self._server: VLLMServer | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._server:
            self._server.stop()
        self._scratch.cleanup()

    def __call__(
        self,
        policy: PreTrainedModel,
        prompts: Sequence[Sequence[int]],
        uniforms: torch.Tensor,
        temperature: float,
        eos_token_id: int,
    ) -> Samples:
        """One completion a prompt, in order. A request's seed is its row's first uniform.

        Raises: ServingError: the server does not start, rejects a prompt, or has other weights than the policy after a
        push. TransientServingError: it died or hung.
        """
        server = self._push(policy)
        self._check_parity(server, policy, prompts[:NUM_PROBES])
        payloads = [
            self._payload(server, prompt, int(first * 2**53), uniforms.shape[1], temperature, eos_token_id)
            for prompt, first in zip(prompts, uniforms[:, 0].tolist(), strict=True)
        ]
        answers = post_all(server, "/v1/completions", payloads, self._config)
        return Samples([_completion(answer, eos_token_id) for answer in answers])

    def _push(self, policy: PreTrainedModel) -> VLLMServer:
        """Bring the policy's weights to the server; the first time by starting it on them."""
        weights = self._write(policy)
        if self._server is None:
            assert self._config.max_model_tokens is not None
            self._server = start_server(weights, self._config.max_model_tokens, self._config)
        else:
            reload_weights(self._server, weights)
        return self._server

    def _write(self, policy: PreTrainedModel) -> Path:
        """A model folder with the policy's weights as they are now, adapters merged."""
        folder = Path(self._scratch.name, "policy")
        folder.mkdir(exist_ok=True)
        for name in ("config.json", *TOKENIZER_FILES):
            if (self._folder / name).exists():
                shutil.copyfile(self._folder / name, folder / name)
        partial = folder / "model.safetensors.partial"
        save_file(plain_weights(policy, getattr(torch, self._precision)), partial, metadata={"format": "pt"})
        partial.replace(folder / "model.safetensors")
        return folder

    @torch.no_grad()
    def _check_parity(self, server: VLLMServer, policy: PreTrainedModel, prompts: Sequence[Sequence[int]]) -> None:
        """Compare the next token's log-probabilities after each prompt.

        Raises: ServingError: one is off by more than rounding.
        """
        tokens, expected = zip(*(_likeliest(policy, prompt) for prompt in prompts), strict=True)
        payloads = [_probe(server, prompt, ids) for prompt, ids in zip(prompts, tokens, strict=True)]
        answers = post_all(server, "/v1/completions", payloads, self._config)
        worst = 0.0
        for answer, ids, logprobs in zip(answers, tokens, expected, strict=True):
            given = _accepted(answer)["choices"][0]["logprobs"]["top_logprobs"][0]
            worst = max(worst, *(abs(given[f"token_id:{i}"] - p) for i, p in zip(ids, logprobs, strict=True)))
        if not worst <= TOLERANCE[self._precision]:
            raise ServingError(
                f"ppo: after a push of weights the vLLM server's log-probabilities are off by {worst:.3g} nats, "
                f"expected at most {TOLERANCE[self._precision]:g} ({self._precision}): it samples from another policy. "
                "Tied embeddings are a known cause (vLLM 0.32 keeps the old output embedding): untie them "
                "(tie_word_embeddings: false), or set rl.ppo.rollouts: in_process"
            )

    def _payload(
        self,
        server: VLLMServer,
        prompt: Sequence[int],
        seed: int,
        max_tokens: int,
        temperature: float,
        eos_token_id: int,
    ) -> Payload:
        return {
            "model": server.model_name,
            "prompt": list(prompt),
            "seed": seed,
            "max_tokens": max_tokens,
            "temperature": temperature,
            "top_p": 1.0,
            "stop_token_ids": [eos_token_id],
            "return_token_ids": True,
            **PLAIN_DECODING,
        }


@torch.no_grad()
def plain_weights(policy: PreTrainedModel, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The policy's tensors by their plain names in `dtype`, on the CPU, adapters added in; `policy` stays as it is."""
    from peft import PeftModel
    from peft.tuners.lora import Linear as AdaptedLinear

    if not isinstance(policy, PeftModel):
        return _tensors(policy, dtype)
    base = policy.get_base_model()
    deltas = {
        f"{name}.base_layer.weight": module.get_delta_weight(policy.active_adapter)
        for name, module in base.named_modules()
        if isinstance(module, AdaptedLinear)
    }
    tensors = {name: t + deltas[name] if name in deltas else t for name, t in base.state_dict().items()}
    plain = {name.replace(".base_layer", ""): t for name, t in tensors.items() if ".lora_" not in name}
    return {name: t.to("cpu", dtype).contiguous().clone() for name, t in plain.items()}


def _tensors(model: PreTrainedModel, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    tied = set(model._tied_weights_keys or ()) if model.config.tie_word_embeddings else set()
    return {
        name: tensor.to("cpu", dtype).contiguous().clone()
        for name, tensor in model.state_dict().items()
        if name not in tied
    }


def _likeliest(policy: PreTrainedModel, prompt: Sequence[int]) -> tuple[list[int], list[float]]:
    """The likeliest tokens after a prompt and their log-probabilities in nats."""
    ids = torch.tensor([[*prompt, prompt[-1]]], device=policy.device)  # the last one stands for what comes next
    response = torch.zeros_like(ids, dtype=torch.bool)
    response[0, -1] = True
    top = response_logits(policy, ids, response, temperature=1.0)[0].log_softmax(-1).topk(NUM_TOKENS)
    return top.indices.tolist(), top.values.tolist()


def _probe(server: VLLMServer, prompt: Sequence[int], ids: Sequence[int]) -> Payload:
    return {
        "model": server.model_name,
        "prompt": list(prompt),
        "seed": 0,
        "max_tokens": 1,
        "temperature": 0,
        "logprobs": 0,  # without it logprob_token_ids is ignored
        "logprob_token_ids": list(ids),
        "return_tokens_as_token_ids": True,
    }


def _completion(answer: Any, eos_token_id: int) -> list[int]:
    ids: list[int] = _accepted(answer)["choices"][0]["token_ids"]
    return ids[: ids.index(eos_token_id) + 1] if eos_token_id in ids else ids


def _accepted(answer: Any) -> dict[str, Any]:
    if isinstance(answer, Rejected):
        raise ServingError(f"ppo: the vLLM server rejected a prompt: {answer.reason}")
    assert isinstance(answer, dict)
    return answer
