"""Models as sets of files: what may be in them, their content hash, and the local copies that are loaded."""

import functools
import hashlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from tasks.store.backend import BLOCK_BYTES, Backend
from tasks.store.errors import PartDamaged, PartMissing, PartTruncated, StoreError, StoreUnavailable
from tasks.store.identity import check_file_path, content_hash, digest
from tasks.store.manifest import Part

MODEL_SUFFIXES = (".safetensors", ".json", ".jinja", ".txt", ".model")
"""What a model may consist of. None of these can run code when it is loaded, as a pickle (.bin, .pt) can."""

SMALL_SUFFIXES = tuple(suffix for suffix in MODEL_SUFFIXES if suffix != ".safetensors")
"""What of a model is not weights: config, tokenizer, chat template."""

_RANGE_NOT_SATISFIABLE = 416
"""What an object server answers where a block would begin behind the object's end."""


def model_files(folder: Path) -> dict[str, Path]:
    """Every file of a model folder by its relative path, sorted.

    Raises: StoreError: the folder is missing or empty, or holds a file that is not weights, JSON or text.
    """
    if not folder.is_dir():
        raise StoreError(f"model {folder}: no such folder")
    found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    files = {path.relative_to(folder).as_posix(): path for path in found}
    refused = [name for name in files if not name.endswith(MODEL_SUFFIXES)]
    if refused:
        raise StoreError(
            f"model {folder}: {refused[:5]} may not be kept; expected only {' '.join(MODEL_SUFFIXES)} files "
            "(weights as safetensors: a pickle can run code)"
        )
    if not files:
        raise StoreError(f"model {folder}: the folder is empty")
    return {check_file_path(name): path for name, path in files.items()}


def model_hash(sha256_by_file: dict[str, str]) -> str:
    """Content hash of a model over (relative path, sha256), in no order."""
    return content_hash(digest([name, sha256]) for name, sha256 in sha256_by_file.items())


def file_sha256(path: Path) -> str:
    """sha256 of a file. A process reads a file again only when its size or time of change is another."""
    stat = path.stat()
    return _file_sha256(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _file_sha256(path: Path, size: int, changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_blocks(path: Path) -> Iterator[bytes]:
    """A file in blocks of BLOCK_BYTES; an empty file is one empty block."""
    with path.open("rb") as file:
        yield file.read(BLOCK_BYTES)
        while block := file.read(BLOCK_BYTES):
            yield block


def fetch_files(backend: Backend, base: str, parts: tuple[Part, ...], folder: Path) -> Path:
    """Bring the files of a model below `folder` and return it; files that are there and whole are kept.

    Each file is verified before it gets its name, so that another process never loads half of one. What the
    manifest does not list is removed: a loader might prefer it.

    Raises: Corrupt: a stored file is missing or is not what the manifest says.
    """
    wanted = {part.path.partition("/")[2]: part for part in parts}
    for name, part in wanted.items():
        path = folder / name
        if not path.is_file() or file_sha256(path) != part.sha256:
            _fetch(backend, f"{base}/{part.path}", part, path, folder.with_name(f"{uuid.uuid4().hex}.tmp"))
    for path in list(folder.rglob("*")):
        if path.is_file() and path.relative_to(folder).as_posix() not in wanted:
            path.unlink()
    return folder


def _fetch(backend: Backend, key: str, part: Part, path: Path, temporary: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with temporary.open("xb") as file:
            file.writelines(checked_blocks(backend, key, part))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def checked_blocks(backend: Backend, key: str, part: Part) -> Iterator[bytes]:
    """A stored file in blocks. What was yielded may be used once the iterator has ended without an error.

    Raises: PartMissing. PartTruncated. PartDamaged: each names the file.
    """
    sha256, size, where = hashlib.sha256(), 0, backend.location(key)
    try:
        for block in backend.stream(key, part.bytes):
            sha256.update(block)
            size += len(block)
            yield block
    except FileNotFoundError:
        raise PartMissing(f"{where}: the file is missing though the manifest lists it") from None
    except StoreUnavailable as error:
        if error.status != _RANGE_NOT_SATISFIABLE:
            raise
    if size < part.bytes:
        raise PartTruncated(f"{where}: it ends after {size} of the {part.bytes} bytes that the manifest says")
    if sha256.hexdigest() != part.sha256:
        raise PartDamaged(f"{where}: sha256 is {sha256.hexdigest()}, the manifest says {part.sha256}")
