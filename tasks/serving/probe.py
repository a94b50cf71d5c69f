"""Asks a server that we did not start what it serves: a URL can serve any model.

Its log-probabilities for three fixed prompts are compared with reference values, which transformers computes here
once from the model's own files and which are then kept as JSON.
"""

import json
import logging
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.schema import Message, ModelRef
from tasks.serving.interface import Choice, GenerationRequest, ServingConfig, ServingError
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
    assert config.url is not None
    url = config.url.rstrip("/").removesuffix("/v1")
    try:
        urllib.request.urlopen(f"{url}/health", timeout=10).close()
    except (OSError, ValueError) as error:
        raise ServingError(f"url: {url} is no healthy vLLM server: {error}") from error
    served = {entry["id"]: entry for entry in (get_json(f"{url}/v1/models", 10) or {}).get("data", [])}
    known = {model.content_hash, model.version, model.source, model.model, folder.name}
    names = list(served) if len(served) == 1 else [name for name in served if name in known]
    if len(names) != 1:
        raise ServingError(f"url: {url} serves {sorted(served)}, expected one model, or one of these names: {known}")
    return RemoteServer(url, names[0], served[names[0]].get("max_model_len") or 0)


def check_is_served(
    weigh: Callable[[Sequence[Rendered]], list[Choice]],
    renderer: Renderer,
    model: ModelRef,
    folder: Path,
    config: ServingConfig,
) -> None:
    """Compare the server's log-probabilities with the reference; say so where there is none to compare with.

    Raises: ServingError: it serves other weights or another number format.
    """
    if not any(folder.glob("*.safetensors")):
        message = "%s serves this model unchecked: %s holds no weights to compute reference values from"
        logging.getLogger(__name__).warning(message, config.url, folder)
        return
    tokens, reference = _reference(renderer, model, folder, config)
    for rendered, expected, choice in zip(tokens, reference, weigh(tokens), strict=True):
        if choice.logprobs is None:
            raise ServingError(f"{config.url} does not answer a probe: {choice.error}")
        worst = max(abs(a - b) for a, b in zip(choice.logprobs, expected, strict=True))
        if worst > _tolerance(config):
            raise ServingError(
                f"{config.url} serves another model than {folder} (content {model.content_hash[:12]}, "
                f"dtype {config.dtype}): after {len(rendered.ids)} tokens a log-probability is off by {worst:.3g}"
            )


def _tolerance(config: ServingConfig) -> float:
    return max(TOLERANCE.values()) if config.dtype == "auto" else TOLERANCE[config.dtype]


def _reference(
    renderer: Renderer, model: ModelRef, folder: Path, config: ServingConfig
) -> tuple[list[Rendered], list[list[float]]]:
    """Probes with their likeliest tokens and those tokens' log-probabilities; computed once a model."""
    path = config.scratch / f"reference-{model.content_hash[:32]}-{config.dtype}-{config.chat_template}.json"
    if path.exists():
        kept = json.loads(path.read_text())
    else:
        kept = _compute(renderer, folder, config)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(kept))
    return [Rendered(probe["prompt"], tuple(probe["tokens"])) for probe in kept], [p["logprobs"] for p in kept]


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
