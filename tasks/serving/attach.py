"""Servers that somebody else runs: one URL or several, believed only once they have shown that they serve the model."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.schema import ModelRef
from tasks.serving.addresses import stands_for_several
from tasks.serving.interface import ServingConfig, TransientServingError
from tasks.serving.pool import Pool
from tasks.serving.probe import Reference, as_served, expect_context, find_server, load_reference
from tasks.serving.rendering import Renderer
from tasks.serving.vllm_client import COMPLETIONS, ask
from tasks.serving.vllm_engine import VLLMGenerator, choice_of, choice_payload, over

if TYPE_CHECKING:
    import aiohttp

ANSWER_SECONDS = 10.0
"""How long a server may take to say that it is well, and what it serves."""


def attach(model: ModelRef, folder: Path, config: ServingConfig) -> VLLMGenerator:
    """A generator for the servers at `config.url`, once they have shown that they serve `model`.

    Raises: ServingError: one serves something else, or nobody answers.
    """
    renderer = Renderer.load(folder, config)
    if len(config.urls) > 1 or stands_for_several(config.urls[0]):
        return attach_pool(model, folder, renderer, config)
    server = find_server(model, folder, config)
    expect_context(server, renderer.context_tokens)
    generator = over(server, renderer, config)
    reference = load_reference(renderer, model, folder, config)
    reference.expect(server.url, generator.weigh(reference.probes))
    return generator


def attach_pool(model: ModelRef, folder: Path, renderer: Renderer, config: ServingConfig) -> VLLMGenerator:
    reference = load_reference(renderer, model, folder, config)
    pool = Pool(config, ReplicaCheck(reference, renderer.context_tokens, config))
    pool.open()
    return VLLMGenerator(pool, renderer, partial(pool.post_all, COMPLETIONS))


@dataclass(frozen=True)
class ReplicaCheck:
    """What one URL has to show at its start, asked in a running batch, each time a replica is new or back."""

    reference: Reference
    context_tokens: int
    config: ServingConfig

    async def __call__(self, session: "aiohttp.ClientSession", url: str) -> str:
        """The model's name there.

        Raises: TransientServingError: it is not healthy or does not answer. ServingError: it serves something else.
        """
        models = await get_models(session, url)
        server = as_served(url, models, self.reference.model, self.reference.folder, self.config)
        expect_context(server, self.context_tokens)
        payloads = [choice_payload(server.model_name, probe) for probe in self.reference.probes]
        answers = [await ask(session, url + COMPLETIONS, payload, self.config.num_retries) for payload in payloads]
        choices = [choice_of(*each) for each in zip(self.reference.probes, answers, strict=True)]
        self.reference.expect(url, choices)
        return server.model_name


async def get_models(session: "aiohttp.ClientSession", url: str) -> object:
    """The models that a healthy server lists. Raises: TransientServingError: it is not healthy."""
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
    try:
        async with session.get(f"{url}/health", timeout=timeout) as response:
            response.raise_for_status()
        async with session.get(f"{url}/v1/models", timeout=timeout) as response:
            response.raise_for_status()
            return await response.json(content_type=None)
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise TransientServingError(f"no healthy vLLM server: {type(error).__name__}: {error}") from error
