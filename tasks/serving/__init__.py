"""Serving: one way to make a model write and weigh answers, whichever engine runs it.

`open_generator` gives a `TextGenerator`: vLLM over HTTP (a server started here, or a URL), or transformers in
this process. Neither torch nor aiohttp is imported before one is opened.
"""

from tasks.serving.fake import FakeGenerator
from tasks.serving.interface import (
    Choice,
    ChoiceRequest,
    Generation,
    GenerationRequest,
    Sampling,
    ServingConfig,
    ServingError,
    TextGenerator,
    TransientServingError,
)
from tasks.serving.kept import close_all, open_generator

__all__ = [
    "Choice",
    "ChoiceRequest",
    "FakeGenerator",
    "Generation",
    "GenerationRequest",
    "Sampling",
    "ServingConfig",
    "ServingError",
    "TextGenerator",
    "TransientServingError",
    "close_all",
    "open_generator",
]
