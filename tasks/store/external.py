"""Models from outside the store: a local folder pinned by its content, a hub model pinned by its commit."""

import re
from collections.abc import Sequence
from pathlib import Path

from tasks.schema import ModelRef
from tasks.store.errors import Corrupt, NotCommitted, StoreError, StoreUnavailable
from tasks.store.identity import digest
from tasks.store.models import MODEL_SUFFIXES, file_sha256, model_hash

EXTERNAL = "external"
"""The `model` of a reference to such a model."""

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?(@[\w.-]+)?", re.ASCII)


def resolve_external_model(name_or_path: str) -> ModelRef:
    """Pin a folder by its content, or a hub name (`org/name` or `org/name@revision`) by its commit.

    Raises: StoreError: neither a folder nor a hub name, or a folder without safetensors.
    StoreUnavailable: the hub does not give it.
    """
    folder = Path(name_or_path).expanduser()
    if name_or_path and folder.is_dir():
        source = folder.resolve()
        content = _folder_hash(source)
        return ModelRef(model=EXTERNAL, version=content[:32], content_hash=content, source=str(source))
    name, revision = _hub_name(name_or_path)
    commit = _hub_snapshot(name, revision, ["config.json"]).name  # the hub names it after the commit
    return ModelRef(model=EXTERNAL, version=commit, content_hash=digest(["hub", commit]), source=name)


def fetch_external(ref: ModelRef) -> Path:
    """The folder of a model from outside; a hub model is downloaded at its commit, without pickles.

    Raises: Corrupt: a folder's content changed since it was pinned. NotCommitted: the folder is gone.
    StoreUnavailable: the hub does not give it.
    """
    source = ref.source or ""
    if not Path(source).is_absolute():
        return _hub_snapshot(source, ref.version, [f"*{suffix}" for suffix in MODEL_SUFFIXES])
    if not Path(source).is_dir():
        raise NotCommitted(f"model {source}: the folder is gone; restore it, or configure another model")
    if _folder_hash(Path(source)) != ref.content_hash:
        raise Corrupt(f"model {source}: its files changed since this run pinned them; start another run")
    return Path(source)


def fetch_external_files(ref: ModelRef, suffixes: Sequence[str]) -> Path:
    """A folder with the files of a model from outside that end so; what else a local one holds is not read.

    Raises: NotCommitted: the folder is gone. StoreUnavailable: the hub does not give it.
    """
    source = ref.source or ""
    if not Path(source).is_absolute():
        return _hub_snapshot(source, ref.version, [f"*{suffix}" for suffix in suffixes])
    if not Path(source).is_dir():
        raise NotCommitted(f"model {source}: the folder is gone; restore it, or configure another model")
    return Path(source)


def outside_files(name_or_path: str, suffixes: Sequence[str]) -> Path:
    """A folder with the files that end so of a model that no run has pinned yet; no weights are looked at.

    Raises: StoreError: neither a folder nor a hub name. StoreUnavailable: the hub does not give it.
    """
    folder = Path(name_or_path).expanduser()
    if name_or_path and folder.is_dir():
        return folder.resolve()
    name, revision = _hub_name(name_or_path)
    return _hub_snapshot(name, revision, [f"*{suffix}" for suffix in suffixes])


def _hub_name(name: str) -> tuple[str, str | None]:
    if name.startswith((".", "/", "~")) or not _HUB_NAME.fullmatch(name):
        raise StoreError(f"model {name!r}: no such folder; expected a folder or a hub name (org/name)")
    name, _, revision = name.partition("@")
    return name, revision or None


def _folder_hash(folder: Path) -> str:
    """Content hash of the files that count; a README or an unused pickle beside the weights does not."""
    found = [path for path in folder.rglob("*") if path.suffix in MODEL_SUFFIXES and path.is_file()]
    files = {path.relative_to(folder).as_posix(): path for path in found}
    files = {name: path for name, path in files.items() if "/." not in f"/{name}"}  # nothing hidden
    if not any(name.endswith(".safetensors") for name in files):
        raise StoreError(f"model {folder}: no .safetensors file in it; pickled weights are never loaded")
    return model_hash({name: file_sha256(path) for name, path in files.items()})


def _hub_snapshot(name: str, revision: str | None, patterns: list[str]) -> Path:
    """The hub's local snapshot; without a network, the one that is cached."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except (OSError, ValueError) as error:
        raise StoreUnavailable(
            f"model {name!r}: no such folder, and the hub does not give it ({type(error).__name__}); "
            "check the name, the network and HF_TOKEN, or give a model folder"
        ) from error
