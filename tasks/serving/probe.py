"""Asks a server that we did not start what it serves: a URL can serve any model.

Its log-probabilities for three fixed prompts are compared with reference values, which transformers computes here
once from the model's own files and which are then kept as JSON.
"""

import json
import logging
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.schema import Message, ModelRef
from tasks.serving.interface import Choice, GenerationRequest, OtherModelError, ServingConfig, ServingError
from tasks.serving.rendering import Rendered, Renderer

PROBES = ("Is it ok to bake a cake?", "How do I mend a fence?", "Write one word.")
NUM_TOKENS = 16
"""Likeliest next tokens compared at each probe; a server gives at most 20 by default."""
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.5, "float16": 0.1}
"""Largest difference in nats that is rounding. bfloat16 keeps 8 bits: a logit of 20 is known to 0.06."""


@dataclass(frozen=True)
class RemoteServer:
    """A server that somebody else runs."""

    url: str
    model_name: str
    context_tokens: int

    def death(self) -> str | None:
        """Never known: what fails there shows as failed requests."""
        return None

    def stop(self) -> None:
        """It is not ours to stop."""


def get_json(url: str, seconds: float) -> Any:
    """The JSON at `url`, or None where nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=seconds) as response:
            return json.load(response)
    except (OSError, ValueError):
        return None


def find_server(model: ModelRef, folder: Path, config: ServingConfig) -> RemoteServer:
    """The server at `config.url`, with the name under which it serves the model.

    Raises: ServingError: nobody answers, it is not healthy, or its models' names leave open which one is meant.
    """
    (url,) = config.urls
    try:
        urllib.request.urlopen(f"{url}/health", timeout=10).close()
    except (OSError, ValueError) as error:
        raise ServingError(f"url: {url} is no healthy vLLM server: {error}") from error
    return as_served(url, get_json(f"{url}/v1/models", 10), model, folder, config)


def as_served(url: str, models: Any, model: ModelRef, folder: Path, config: ServingConfig) -> RemoteServer:
    """The server that lists these models, with its name for ours.

    Any name will do where there is but one, unless other models are to be expected there: a policy early in its
    training is nearer to the model that it started from than bfloat16 can tell.

    Raises: OtherModelError: the names leave open which one is meant.
    """
    served = {entry["id"]: entry for entry in (models or {}).get("data", [])}
    known = {model.content_hash, model.version, model.source, model.model, folder.name}
    any_name = len(served) == 1 and config.on_other_model == "fail"
    names = list(served) if any_name else [name for name in served if name in known]
    if len(names) != 1:
        raise OtherModelError(f"url: {url} serves {sorted(served)}, expected one model, or one of these names: {known}")
    return RemoteServer(url, names[0], served[names[0]].get("max_model_len") or 0)


def expect_context(server: RemoteServer, context_tokens: int) -> None:
    """Raises: ServingError: its context is shorter than what is asked."""
    if server.context_tokens < context_tokens:
        raise ServingError(
            f"{server.url} holds {server.context_tokens} tokens, {context_tokens} are asked: "
            f"set max_model_tokens to {server.context_tokens} or start it with a longer --max-model-len"
        )


@dataclass(frozen=True)
class Reference:
    """What a server of the model answers to the probes."""

    model: ModelRef
    folder: Path
    dtype: str
    probes: list[Rendered]
    logprobs: list[list[float]]
    """Of each probe's likeliest next tokens, in nats."""

    def expect(self, url: str, choices: Sequence[Choice]) -> None:
        """Raises: OtherModelError: the server's choices are those of other weights or another number format."""
        worst = self.distance(url, choices)
        if worst > _tolerance(self.dtype):
            raise OtherModelError(
                f"{url} serves another model than {self.folder} (content {self.model.content_hash[:12]}, "
                f"dtype {self.dtype}): a log-probability is off by {worst:.3g}"
            )

    def distance(self, url: str, choices: Sequence[Choice]) -> float:
        """How far the server's log-probabilities are off at most, in nats; 0 where there are no probes.

        Raises: ServingError: a probe was not answered.
        """
        worst = 0.0
        for expected, choice in zip(self.logprobs, choices, strict=True):
            if choice.logprobs is None:
                raise ServingError(f"{url} does not answer a probe: {choice.error}")
            worst = max(worst, *(abs(a - b) for a, b in zip(choice.logprobs, expected, strict=True)))
        return worst


def load_reference(renderer: Renderer, model: ModelRef, folder: Path, config: ServingConfig) -> Reference:
    """Computed once a model; no probes, which is said, where its weights are not here."""
    if not any(folder.glob("*.safetensors")):
        message = "%s serves this model unchecked: %s holds no weights to compute reference values from"
        logging.getLogger(__name__).warning(message, config.url, folder)
        return Reference(model, folder, config.dtype, [], [])
    path = config.scratch / f"reference-{model.content_hash[:32]}-{config.dtype}-{config.chat_template}.json"
    if path.exists():
        kept = json.loads(path.read_text())
    else:
        kept = _compute(renderer, folder, config)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(kept))
    probes = [Rendered(probe["prompt"], tuple(probe["tokens"])) for probe in kept]
    return Reference(model, folder, config.dtype, probes, [probe["logprobs"] for probe in kept])


def _tolerance(dtype: str) -> float:
    return max(TOLERANCE.values()) if dtype == "auto" else TOLERANCE[dtype]


def _compute(renderer: Renderer, folder: Path, config: ServingConfig) -> list[dict[str, Any]]:
    from tasks.serving.transformers_engine import TransformersGenerator

    local = ServingConfig(engine="transformers", dtype=config.dtype, chat_template=config.chat_template)
    engine = TransformersGenerator.load(folder, local)
    probes = [GenerationRequest([Message(role="user", content=text)], seed=0) for text in PROBES]
    prompts = [rendered.ids for rendered in renderer.prompts(probes, max_tokens=1)]
    return [
        {"prompt": prompt, "tokens": row.indices.tolist(), "logprobs": row.values.tolist()}
        for prompt in prompts
        for row in [engine.next_logprobs([prompt])[0].topk(NUM_TOKENS)]
    ]
