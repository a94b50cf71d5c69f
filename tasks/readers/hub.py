"""Rows of a hub dataset, through `datasets`."""

import re
from collections.abc import Iterator
from typing import Any

_URI = re.compile(r"hf://(?P<name>[^/:]+/[^/:]+)(?:/(?P<folder>[^:]+))?(?::(?P<split>[^:]+))?")


def is_hub(uri: str) -> bool:
    return uri.startswith("hf://")


def read_hub(uri: str) -> Iterator[dict[str, Any]]:
    """Rows of `hf://org/name[/folder][:split]`, streamed; folder: the hub's data_dir, split: else `train`.

    Raises: ValueError or OSError: a malformed URI, an unknown dataset or split, no connection.
    """
    parts = _URI.fullmatch(uri)
    if parts is None:
        raise ValueError("malformed, expected hf://org/name[/folder][:split]")
    from datasets import load_dataset

    split = parts["split"] or "train"
    yield from load_dataset(parts["name"], data_dir=parts["folder"], split=split, streaming=True)
