"""Another model on a server of ours that runs already: it reads the weights, in seconds where a start takes minutes.

vLLM answers 200 to a reload that went wrong, so the server has to show the new model's log-probabilities before its
first row. One that cannot is stopped, and another is started.
"""

import json
import logging
from pathlib import Path
from typing import Any

from tasks.schema import ModelRef
from tasks.serving.interface import LoadedGenerator, ServingConfig, ServingError, TransientServingError
from tasks.serving.probe import load_reference
from tasks.serving.rendering import Renderer
from tasks.serving.server import VLLMServer, is_cpu_build, reload_weights, vllm_python
from tasks.serving.vllm_engine import VLLMGenerator, over
from tasks.training.folders import TOKENIZER_FILES

log = logging.getLogger(__name__)

READ_ONCE = (*TOKENIZER_FILES, "generation_config.json")
"""What a server has read beside the weights, and does not read again."""
WEIGHTLESS = ("_name_or_path", "transformers_version")
"""Of a model's `config.json`: says where it came from, not what it is."""


def swapped(leaving: LoadedGenerator, model: ModelRef, folder: Path, config: ServingConfig) -> VLLMGenerator | None:
    """`model` on the server of a generator that nobody needs any more; None where it needs a server of its own.

    After None the server may hold any weights: stop it.
    """
    server = leaving.server if isinstance(leaving, VLLMGenerator) else None
    if not isinstance(server, VLLMServer) or server.config != config or not differ_in_weights_alone(server, folder):
        return None
    renderer = Renderer.load(folder, config)
    reference = load_reference(renderer, model, folder, config.model_copy(update={"dtype": dtype_served(config)}))
    generator = over(server, renderer, config)
    try:
        before = reference.distance(server.url, generator.weigh(reference.probes))
        reload_weights(server, folder)
        answers = generator.weigh(reference.probes)
        reference.expect(server.url, answers)
        expect_nearer(reference.distance(server.url, answers), before)
    except (ServingError, TransientServingError) as error:
        log.warning("%s gets a server of its own, since the one that runs did not take its weights: %s", folder, error)
        return None
    return generator


def expect_nearer(after: float, before: float) -> None:
    """Two policies of one training may differ by less than bfloat16 rounds: old weights must not pass for new ones.

    Raises: ServingError: the reload brought the server no nearer to the model's log-probabilities.
    """
    if after >= before:
        raise ServingError(f"log-probabilities were off by {before:.3g} before the reload and by {after:.3g} after it")


def differ_in_weights_alone(server: VLLMServer, folder: Path) -> bool:
    """Whether the server's model and the one in `folder` have one shape and one tokenizer, and vLLM can reload them.

    It keeps a tied output embedding as it was (0.32), which a check in bfloat16 might take for rounding; weights that
    it quantised while loading are not reloaded either.
    """
    ours, theirs = description(server.folder), description(folder)
    arguments = server.config.extra_arguments
    if ours != theirs or "quantization_config" in theirs or any("quantization" in argument for argument in arguments):
        return False
    return not is_tied(folder) and all(_content(server.folder / name) == _content(folder / name) for name in READ_ONCE)


def description(folder: Path) -> dict[str, Any]:
    """What `config.json` says of a model."""
    found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return {name: value for name, value in found.items() if name not in WEIGHTLESS}


def is_tied(folder: Path) -> bool:
    from transformers import AutoConfig

    return bool(AutoConfig.from_pretrained(folder).tie_word_embeddings)


def dtype_served(config: ServingConfig) -> str:
    """As which number format to judge differences: without a GPU, `auto` is known to be float32."""
    return "float32" if config.dtype == "auto" and is_cpu_build(vllm_python()) else config.dtype


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None
