"""The vLLM engine: token ids out, token ids back, so that text is made of tokens here and in one way."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from tasks.serving.interface import (
    Choice,
    ChoiceRequest,
    Generation,
    GenerationRequest,
    Sampling,
    ServingConfig,
    ServingError,
    TransientServingError,
)
from tasks.serving.rendering import Rendered, Renderer
from tasks.serving.vllm_client import COMPLETIONS, ENDS, Answer, Endpoint, Payload, Rejected, post_all

PLAIN_DECODING = {
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
"""Said in every request: a server's defaults may come from the model's folder."""


Post = Callable[[Sequence[Payload]], list[Answer]]
"""Sends payloads and gives their answers, in order."""


class Server(Endpoint, Protocol):
    @property
    def model_name(self) -> str: ...

    def stop(self) -> None: ...


class VLLMGenerator:
    """A `TextGenerator` over HTTP; it owns its server where we started it. `post` sends a batch to `server`."""

    def __init__(self, server: Server, renderer: Renderer, post: Post) -> None:
        self.server = server
        self._renderer = renderer
        self._post_all = post

    def generate(self, requests: Sequence[GenerationRequest], sampling: Sampling) -> list[Generation]:
        rendered = self._renderer.prompts(requests, sampling.max_tokens)
        payloads = [self._generation_payload(r, q.seed, sampling) for r, q in zip(rendered, requests, strict=True)]
        answers = self._post(rendered, payloads)
        return [self._generation(r, answer) for r, answer in zip(rendered, answers, strict=True)]

    def choose(self, requests: Sequence[ChoiceRequest], answers: tuple[str, ...]) -> list[Choice]:
        return self.weigh(self._renderer.choices(requests, answers))

    def weigh(self, rendered: Sequence[Rendered]) -> list[Choice]:
        """The log-probability of each of `answer_ids` as the next token."""
        answers = self._post(rendered, [choice_payload(self.server.model_name, r) for r in rendered])
        return [choice_of(r, answer) for r, answer in zip(rendered, answers, strict=True)]

    def alive(self) -> bool:
        return self.server.death() is None

    def stop(self) -> None:
        self.server.stop()

    def _post(self, rendered: Sequence[Rendered], payloads: Sequence[Payload]) -> list[Answer]:
        """Ask for the rows that could be rendered; the error of each other one stands in its place."""
        sent = [payload for r, payload in zip(rendered, payloads, strict=True) if r.error is None]
        answers = iter(self._post_all(sent))
        return [next(answers) if r.error is None else Rejected(r.error) for r in rendered]

    def _generation_payload(self, rendered: Rendered, seed: int, sampling: Sampling) -> Payload:
        return {
            "model": self.server.model_name,
            "prompt": rendered.ids,
            "seed": seed,  # every request has one: next to one without, vLLM 0.26 on a CPU ignored it
            "stop": list(self._renderer.stop),
            "stop_token_ids": sorted(self._renderer.stop_ids),
            "return_token_ids": True,
            **sampling.model_dump(),
            **PLAIN_DECODING,
        }

    def _generation(self, rendered: Rendered, answer: Answer) -> Generation:
        num_prompt_tokens = len(rendered.ids)
        if isinstance(answer, Rejected):
            return Generation(None, num_prompt_tokens=num_prompt_tokens, error=answer.reason)
        choice = _field(answer, "choices", 0)
        ids, reason = _field(choice, "token_ids"), _field(choice, "finish_reason")
        if reason not in ENDS:
            raise TransientServingError(f"{self.server.url}: the server ended a completion with {reason!r}")
        return Generation(self._renderer.completion(ids), reason, num_prompt_tokens, len(ids))


def choice_payload(model_name: str, rendered: Rendered) -> Payload:
    return {
        "model": model_name,
        "prompt": rendered.ids,
        "seed": 0,
        "max_tokens": 1,
        "temperature": 0,
        "logprobs": 0,  # without it logprob_token_ids is ignored
        "logprob_token_ids": list(rendered.answer_ids),
        "return_tokens_as_token_ids": True,
    }


def choice_of(rendered: Rendered, answer: Answer) -> Choice:
    if isinstance(answer, Rejected):
        return Choice(None, len(rendered.ids), answer.reason)
    given = _field(answer, "choices", 0, "logprobs", "top_logprobs", 0)
    return Choice(tuple(float(_field(given, f"token_id:{i}")) for i in rendered.answer_ids), len(rendered.ids))


def _field(answer: Any, *path: str | int) -> Any:
    """What lies at `path` in a server's answer. Raises: ServingError: it is not there, so it is no vLLM of ours."""
    found = answer
    for key in path:
        try:
            found = found[key]
        except (KeyError, IndexError, TypeError) as error:
            raise ServingError(
                f"the server's answer has no {'.'.join(map(str, path))}: {str(answer)[:300]}; vLLM 0.32 is needed"
            ) from error
    return found


def start(folder: Path, config: ServingConfig) -> VLLMGenerator:
    """A generator with a server of its own."""
    from tasks.serving.server import start_server

    renderer = Renderer.load(folder, config)
    return over(start_server(folder, renderer.context_tokens, config), renderer, config)


def over(server: Server, renderer: Renderer, config: ServingConfig) -> VLLMGenerator:
    """A generator for one server."""
    return VLLMGenerator(server, renderer, partial(post_all, server, COMPLETIONS, config=config))
