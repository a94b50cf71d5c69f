"""Where everything stands in a store. Names are checked here, so that no unchecked one becomes part of a key.

    v1/datasets/<dataset>/data/<version>/<attempt>/part-00000.parquet
    v1/datasets/<dataset>/versions/<version>.json             the commit
    v1/datasets/<dataset>/versions/<version>.<g>.json         made again after gc had removed generation g - 1
    v1/datasets/<dataset>/fates/<version>/<g>.<n>.condemned.json    gc's n-th intent to remove generation g
    v1/datasets/<dataset>/fates/<version>/<g>.<n>.decided.json      what came of it: the tombstone, or "kept"
    v1/datasets/<dataset>/tags/<tag>/<10**12 - seq>.json      append-only; the newest lists first
    v1/datasets/<dataset>/chunks/<version>/<key>.parquet      resume points
    v1/datasets/<dataset>/checkpoints/<version>/<name>/...    resume points of a training (`checkpoint_files.py`)
    v1/datasets/<dataset>/blobs/<version>/<name>              logs and reports, for people
    v1/pins/<id>.json                                         what a live process needs
    v1/claims/<dataset>/<version>/<n>.json                    who makes a version now: advice
    v1/attempts/<attempt>.json                                whether an attempt may still publish

No key of a manifest is ever used for another one, so a delete that arrives late can never hit a newer version.
"""

import re
from typing import Literal

from tasks.store.backend import Backend
from tasks.store.errors import InvalidName
from tasks.store.identity import check_dataset, check_name

ROOT = "v1/datasets"
PINS = "v1/pins/"
ATTEMPTS = "v1/attempts/"
CLAIMS = "v1/claims/"
CHECKPOINT_COMPLETE = "complete.json"
"""Of a resume point's files the one that is written last and removed first."""

_MANIFEST = re.compile(r"([a-z0-9][a-z0-9_-]*)(?:\.([0-9]+))?\.json")

Kind = Literal["data", "versions", "fates", "tags", "chunks", "checkpoints", "blobs"]


def check_version(version: str) -> str:
    """The version itself. Raises: InvalidName: it has a dot, behind which a manifest's key has its generation."""
    if "." in check_name(version, "version"):
        raise InvalidName(f"version {version!r}: expected no dot")
    return version


def folder(dataset: str, kind: Kind) -> str:
    """The prefix of one kind of thing of a dataset."""
    return f"{ROOT}/{check_dataset(dataset)}/{kind}/"


def manifest_key(dataset: str, version: str, generation: int) -> str:
    """The commit of a version that was removed `generation` times before."""
    suffix = f".{generation}" if generation else ""
    return f"{folder(dataset, 'versions')}{check_version(version)}{suffix}.json"


def split_manifest_key(key: str) -> tuple[str, int] | None:
    """Version and generation; None for a file that is no manifest."""
    match = _MANIFEST.fullmatch(key.rpartition("/")[2])
    return (match[1], int(match[2] or 0)) if match else None


def side_key(dataset: str, kind: Kind, version: str, name: str) -> str:
    """Something that stands beside a version, under a checked name."""
    return f"{folder(dataset, kind)}{check_version(version)}/{check_name(name, kind)}"


def data_key(dataset: str, version: str) -> str:
    """The folder of a version's attempts, without the `/`."""
    return f"{folder(dataset, 'data')}{check_version(version)}"


def get_or_none(backend: Backend, key: str) -> bytes | None:
    try:
        return backend.get(key)
    except FileNotFoundError:
        return None


def register(backend: Backend, key: str, data: bytes) -> bytes:
    """Write a register once: what stands there, whether these bytes or those of whoever was first."""
    while not backend.put_if_absent(key, data):
        found = get_or_none(backend, key)
        if found is not None:  # else it was removed meanwhile
            return found
    return data


def dataset_names(backend: Backend) -> list[str]:
    """Every dataset below which anything stands, sorted."""
    names = [name for name in backend.folders(f"{ROOT}/") if name != "models"]
    return sorted([*names, *(f"models/{name}" for name in backend.folders(f"{ROOT}/models/"))])
