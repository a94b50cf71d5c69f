"""The state of a transformers Trainer as safetensors and JSON, and back (no pickle outlives the scratch folder).

A Trainer writes a folder in which optimizer, scheduler and random number states are pickles. They are read with
`weights_only`, so nothing in them is run, and become `NAME.json`, their structure, and `NAME.safetensors`, their
tensors. The way back gives the same values, bit for bit. Importing this imports torch.
"""

import json
import math
import shutil
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers.trainer_pt_utils import safe_globals

from tasks.training.folders import TOKENIZER_FILES, write_json

STATES = ("optimizer.pt", "optimizer.bin", "scheduler.pt", "scaler.pt", "rng_state.pth", "rng_state_*.pth",
          "pytorch_model_fsdp.bin")  # fmt: skip
"""Pickles that are converted. The two `.bin` are what FSDP writes under FULL_STATE_DICT."""
COPIED = ("*.safetensors", "trainer_state.json", "config.json", "adapter_config.json", "*.safetensors.index.json")
LEFT_OUT = (*TOKENIZER_FILES, "*.model", "training_args.bin", "README.md", "generation_config.json")
"""Tokenizer, arguments, model card: what a Trainer reads again from elsewhere, or never."""

Tensors = dict[str, torch.Tensor]


def to_plain(trainer_folder: Path, output: Path) -> None:
    """Convert a Trainer's checkpoint folder into plain files in `output`, which exists.

    Raises: ValueError: it holds something that cannot be said without a pickle, such as sharded state.
    """
    for path in sorted(trainer_folder.iterdir()):
        if path.is_file() and _is(path, STATES):
            _state_to_plain(path, output)
        elif path.is_file() and _is(path, COPIED):
            shutil.copyfile(path, output / path.name)
        elif not _is(path, LEFT_OUT):
            raise ValueError(
                f"resume point: {path.name} of the trainer cannot be kept as safetensors and JSON; sharded training "
                "needs FSDP's FULL_STATE_DICT (infra/accelerate/fsdp2.yaml), DeepSpeed has no such form"
            )


def from_plain(plain: Path, trainer_folder: Path) -> None:
    """Write the Trainer's checkpoint folder that `to_plain` read, in `trainer_folder` (made anew)."""
    shutil.rmtree(trainer_folder, ignore_errors=True)
    trainer_folder.mkdir(parents=True)
    states = {path.stem for path in plain.glob("*.json") if "pickle" in json.loads(path.read_text(encoding="utf-8"))}
    for path in sorted(plain.iterdir()):
        if path.stem not in states:
            shutil.copyfile(path, trainer_folder / path.name)
        elif path.suffix == ".json":
            _state_from_plain(path, trainer_folder)


def to_tree(value: Any, name: str, tensors: Tensors) -> Any:
    """A JSON value for nested dicts, lists, tuples, scalars and tensors; the tensors go into `tensors` by path.

    Raises: ValueError: names what it cannot say and where.
    """
    if value is None or isinstance(value, bool | str) or type(value) is int:
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, torch.Tensor):
        tensors[name] = value.detach().cpu().contiguous()
        return {"tensor": name}
    if type(value) is np.ndarray and value.dtype.kind in "iuf":
        tensors[name] = torch.from_numpy(value.copy())
        return {"array": name}
    if type(value) in (list, tuple):
        items = [to_tree(item, f"{name}/{i}", tensors) for i, item in enumerate(value)]
        return {"tuple": items} if type(value) is tuple else items
    if isinstance(value, dict) and all(type(key) in (str, int) for key in value):
        return {"dict": [[key, to_tree(item, f"{name}/{key}", tensors)] for key, item in value.items()]}
    raise ValueError(
        f"resume point: {name} is a {type(value).__name__}, expected numbers, text, tensors or collections"
    )


def from_tree(tree: Any, tensors: Tensors) -> Any:
    """What `to_tree` was given; an OrderedDict comes back as a dict in the same order."""
    if isinstance(tree, list):
        return [from_tree(item, tensors) for item in tree]
    if not isinstance(tree, dict):
        return tree
    ((kind, inner),) = tree.items()
    if kind == "dict":
        return {key: from_tree(item, tensors) for key, item in inner}
    if kind == "tuple":
        return tuple(from_tree(item, tensors) for item in inner)
    if kind == "float":
        return float(inner)
    return tensors[inner] if kind == "tensor" else tensors[inner].numpy()


def _state_to_plain(path: Path, output: Path) -> None:
    with safe_globals():  # mapped, because an optimizer's state is twice the model
        value = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    tensors: Tensors = {}
    tree = to_tree(value, path.stem, tensors)
    write_json(output / f"{path.stem}.json", {"pickle": path.name, "tree": tree})
    if tensors:
        save_file(tensors, output / f"{path.stem}.safetensors")


def _state_from_plain(path: Path, trainer_folder: Path) -> None:
    said = json.loads(path.read_text(encoding="utf-8"))
    tensors = path.with_suffix(".safetensors")
    value = from_tree(said["tree"], load_file(tensors) if tensors.exists() else {})
    torch.save(value, trainer_folder / said["pickle"])


def _is(path: Path, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(path.name, pattern) for pattern in patterns)
