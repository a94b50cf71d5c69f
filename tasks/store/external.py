"""Models from outside the store: a local folder pinned by its content, or a hub model pinned by its commit."""

import re
from pathlib import Path

from tasks.schema import ModelRef
from tasks.store.errors import Corrupt, NotCommitted, StoreError, StoreUnavailable
from tasks.store.identity import digest
from tasks.store.models import MODEL_SUFFIXES, file_sha256, model_hash

EXTERNAL = "external"
"""The `model` of a reference to such a model."""

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?(@[\w.-]+)?", re.ASCII)


def resolve_external_model(name_or_path: str) -> ModelRef:
    """Pin a model from outside: a folder by its content, a hub name (`name` or `name@revision`) by its commit.

    Raises: StoreError: neither a folder nor a hub name, or a model without safetensors.
    StoreUnavailable: the hub does not answer.
    """
    folder = Path(name_or_path).expanduser()
    if folder.is_dir():
        content = _folder_hash(folder.resolve())
        return ModelRef(
            model=EXTERNAL, version=content[:32], content_hash=content, source=str(folder.resolve())
        )
    if name_or_path.startswith((".", "/", "~")) or not _HUB_NAME.fullmatch(name_or_path):
        raise StoreError(
            f"model {name_or_path!r}: no such folder; expected a model folder or a hub name like org/name"
        )
    name, _, revision = name_or_path.partition("@")
    commit = _hub_snapshot(
        name, revision or None, ["config.json"]
    ).name  # the folder is named after the commit
    return ModelRef(model=EXTERNAL, version=commit, content_hash=digest(["hub", commit]), source=name)


def fetch_external(ref: ModelRef) -> Path:
    """The folder of a model from outside; a hub model is downloaded at its commit, without pickles.

    Raises: Corrupt: a folder's content changed since it was pinned. NotCommitted: the folder is gone.
    StoreUnavailable: the hub does not answer.
    """
    source = ref.source or ""
    if not Path(source).is_absolute():
        return _hub_snapshot(source, ref.version, [f"*{suffix}" for suffix in MODEL_SUFFIXES])
    if not Path(source).is_dir():
        raise NotCommitted(f"model {source}: the folder is gone; restore it, or configure another model")
    if _folder_hash(Path(source)) != ref.content_hash:
        raise Corrupt(
            f"model {source}: its files changed since the run pinned them; start a new run to use them"
        )
    return Path(source)


def _folder_hash(folder: Path) -> str:
    """Content hash of the files that count; a README or an unused pickle beside the weights does not."""
    visible = [p for p in folder.rglob("*") if p.is_file() and p.suffix in MODEL_SUFFIXES]
    files = {p.relative_to(folder).as_posix(): p for p in visible}
    files = {
        name: p for name, p in files.items() if not any(part.startswith(".") for part in name.split("/"))
    }
    if not any(name.endswith(".safetensors") for name in files):
        raise StoreError(
            f"model {folder}: no .safetensors file in it; convert the weights, pickles are never loaded"
        )
    return model_hash({name: file_sha256(path) for name, path in files.items()})


def _hub_snapshot(name: str, revision: str | None, patterns: list[str]) -> Path:
    """The hub's local snapshot; without a network, the one that is cached."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except (OSError, ValueError) as error:
        raise StoreUnavailable(
            f"model {name!r}: no such folder, and the hub did not give it ({type(error).__name__}); "
            "check the name, the network and HF_TOKEN, or give a model folder"
        ) from error
