"""Model folders in and out: loading in float32, saving without anything that depends on where they lie."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.training.config import Precision

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
)


def training_device() -> "torch.device":
    """The first GPU where there is one, else the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def longest_row(folder: Path, max_tokens: int) -> int:
    """`max_tokens`, or the model's context where that is shorter."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return min(max_tokens, config.get("max_position_embeddings", max_tokens))


def load_policy(folder: Path, precision: Precision = "float32") -> "PreTrainedModel":
    """The causal language model of a folder, in `precision` whatever it was saved in."""
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, precision))


def load_scalar_model(folder: Path, precision: Precision = "float32") -> "PreTrainedModel":
    """A model with one scalar head: a reward model, or a policy's body under a new random head.

    Seed torch before: a head that the folder lacks is drawn here.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, dtype=getattr(torch, precision))


def save_model(model: "PreTrainedModel", tokenizer_folder: Path, output: Path, precision: Precision) -> None:
    """Weights, config and the source's tokenizer files, byte for byte, into `output` (made if absent).

    The same weights give the same bytes in any folder: no path is kept in a config.
    """
    import torch

    output.mkdir(parents=True, exist_ok=True)
    model.to(getattr(torch, precision)).save_pretrained(output)
    for name in TOKENIZER_FILES:
        if (tokenizer_folder / name).exists():
            shutil.copyfile(tokenizer_folder / name, output / name)


KEPT = "update-"


def kept_name(update: int) -> str:
    """Of the folder of a policy that is kept along the way, after so many updates."""
    return f"{KEPT}{update:08d}"


def kept_in(folder: Path) -> dict[int, Path]:
    """The policies kept in a folder, by the updates behind them, in order; none where there is no such folder."""
    return {int(path.name.removeprefix(KEPT)): path for path in sorted(folder.glob(f"{KEPT}*"))}


def write_json(path: Path, value: object) -> None:
    """Sorted keys, so that the same value is the same file.

    Raises: ValueError: a float is not finite, which JSON cannot say.
    """
    path.write_text(json.dumps(value, sort_keys=True, indent=2, allow_nan=False) + "\n", encoding="utf-8")
