"""Rows of a hub dataset, through `datasets`."""

import re
from collections.abc import Iterator
from typing import Any

_URI = re.compile(
    r"hf://(?P<name>[^/:@]+/[^/:@]+)(?:@(?P<revision>refs/(?:convert|pr)/[^/:@]+|[^/:@]+))?"
    r"(?:/(?P<folder>[^:@]+))?(?::(?P<split>[^:@]+))?"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")


def is_hub(uri: str) -> bool:
    return uri.startswith("hf://")


def read_hub(uri: str) -> Iterator[dict[str, Any]]:
    """Rows of `hf://org/name[@revision][/folder][:split]`, streamed; folder: the hub's data_dir, split: else `train`.

    A revision is a branch, a tag, a commit, or the hub's own `refs/convert/parquet`, which has the data of sets that
    are published as a program.

    Raises: ValueError or OSError: a malformed URI, an unknown dataset or split, no connection.
    """
    parts = _parts(uri)
    from datasets import load_dataset

    split, revision = parts["split"] or "train", parts["revision"]
    yield from load_dataset(parts["name"], data_dir=parts["folder"], split=split, revision=revision, streaming=True)


def at_commit(uri: str) -> str:
    """The same address at the commit that its revision is now.

    Raises: ValueError or OSError: a malformed URI, an unknown dataset or revision, no connection.
    """
    parts = _parts(uri)
    name, revision = parts["name"], parts["revision"]
    if revision is None or not _COMMIT.fullmatch(revision):
        revision = _commit(name, revision)
    folder, split = (f"{sign}{parts[part]}" if parts[part] else "" for sign, part in (("/", "folder"), (":", "split")))
    return f"hf://{name}@{revision}{folder}{split}"


def _commit(name: str, revision: str | None) -> str:
    import httpx
    from huggingface_hub import HfApi

    try:
        found = HfApi().dataset_info(name, revision=revision)
    except httpx.HTTPError as error:  # no connection; the hub's own refusals are OSErrors already
        raise OSError(str(error) or type(error).__name__) from error
    if found.sha is None:
        raise ValueError("the hub names no commit")
    return found.sha


def _parts(uri: str) -> dict[str, Any]:
    parts = _URI.fullmatch(uri)
    if parts is None:
        raise ValueError("malformed, expected hf://org/name[@revision][/folder][:split]")
    return parts.groupdict()
