"""Another model on a server of ours that runs already: it reads the weights, which is less than a start.

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
UNREAD = ("_name_or_path", "transformers_version", "use_cache")
"""Of a model's `config.json`: what a server makes nothing of. A trainer leaves `use_cache` as it was for training."""


def swapped(leaving: LoadedGenerator, model: ModelRef, folder: Path, config: ServingConfig) -> VLLMGenerator | None:
    """`model` on the server of a generator that nobody needs any more; None where it needs a server of its own.

    After None the server may hold any weights: stop it.
    """
    server = leaving.server if isinstance(leaving, VLLMGenerator) else None
    if not isinstance(server, VLLMServer) or server.config != config:
        return None
    if reason := obstacle(server, folder):
        log.warning("%s gets a server of its own: %s", folder, reason)
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


def obstacle(server: VLLMServer, folder: Path) -> str | None:
    """Why the server cannot take the weights in `folder`; None where the two models differ in weights alone.

    vLLM keeps a tied output embedding as it was (0.32), which a check in bfloat16 might take for rounding; weights that
    it quantised while loading are not reloaded either.
    """
    ours, theirs = description(server.folder), description(folder)
    if changed := sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)):
        return f"its config.json has another {', '.join(changed)} than the model that is served"
    if "quantization_config" in theirs or any("quantization" in each for each in server.config.extra_arguments):
        return "its weights are quantised"
    if is_tied(folder):
        return "its output embedding is tied, which vLLM does not reload"
    other = [name for name in READ_ONCE if _content(server.folder / name) != _content(folder / name)]
    return f"it has another {', '.join(other)} than the model that is served" if other else None


def description(folder: Path) -> dict[str, Any]:
    """What `config.json` says that a server reads."""
    found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return {name: value for name, value in found.items() if name not in UNREAD}


def is_tied(folder: Path) -> bool:
    from transformers import AutoConfig

    return bool(AutoConfig.from_pretrained(folder).tie_word_embeddings)


def dtype_served(config: ServingConfig) -> str:
    """As which number format to judge differences: without a GPU, `auto` is known to be float32."""
    return "float32" if config.dtype == "auto" and is_cpu_build(vllm_python()) else config.dtype


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None
