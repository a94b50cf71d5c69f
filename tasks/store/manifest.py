"""What is committed about a version: where it came from, what it holds, and how to tell that it is whole."""

import functools
import hashlib
import importlib.metadata
import json
import re
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field

from tasks.schema import DatasetRef, Frozen, ModelRef
from tasks.store.errors import Corrupt, InvalidName, ManifestEdited, PartOutside
from tasks.store.identity import canonical_json, check_file_path, digest

_SHA256 = re.compile(r"[0-9a-f]{64}")
_LIBRARIES = ("accelerate", "datasets", "prefect", "pyarrow", "torch", "transformers", "trl")


class InputRef(Frozen):
    """An input of a derivation."""

    version: str
    """For lineage; it does not enter the identity."""
    content_hash: str
    """What was read. An input that is made anew with the same content changes nothing (early cutoff)."""


class Derivation(Frozen):
    """Everything that determines a result (design idea 2); where and how it was made is not here."""

    stage: str
    dataset: str
    code_version: int
    """Raised when a stage's code changes its results."""
    config: dict[str, Any]
    inputs: dict[str, InputRef]
    constitution: str | None
    """Hash of the slice of the constitution that this phase uses."""
    models: dict[str, str]
    """Role -> content hash of the weights."""
    seed: int
    force: str | None
    """Salt that makes a result anew."""
    cites: dict[str, str] = Field(default_factory=dict)
    """For lineage alone: role -> `dataset/version` of what enters the identity only by its content."""

    def identity(self) -> dict[str, Any]:
        """What enters the version: everything but citations, inputs by content."""
        body = {name: getattr(self, name) for name in type(self).model_fields if name != "cites"}
        return body | {"inputs": {role: ref.content_hash for role, ref in self.inputs.items()}}

    def canonical(self) -> bytes:
        """The identity as canonical JSON.

        Raises: TypeError: names the path of a value without a stable form.
        """
        return canonical_json(self.identity())

    @property
    def version(self) -> str:
        """The version id: 32 hex digits of the sha256 of `canonical()`."""
        return hashlib.sha256(self.canonical()).hexdigest()[:32]


class Column(Frozen):
    """One column of a dataset."""

    name: str
    type: str
    """Arrow's name of the type."""


class Part(Frozen):
    """One file of a version."""

    path: str
    """Below the version's data folder: the attempt that wrote it, then the file."""
    sha256: str
    bytes: int
    rows: int | None = None
    """None for a file of a model."""


class Manifest(Frozen):
    """The record whose existence makes a version exist."""

    format: Literal[1] = 1
    dataset: str
    version: str
    kind: Literal["rows", "model"]
    content_hash: str
    """Of rows: over (row_id, row_hash); of a model: over (file, sha256). In no order."""
    rows: int
    """0 for a model."""
    parts: tuple[Part, ...]
    columns: tuple[Column, ...] = ()
    statuses: dict[str, int] = Field(default_factory=dict)
    """The ledger: how many rows ended with each status."""
    derivation: Derivation
    """Lineage: every input by version and content hash, config, constitution slice, models, seed."""
    code_commit: str | None
    """Commit of the checkout, `-dirty` where it had changes; None outside git."""
    libraries: dict[str, str]
    cost: dict[str, float]
    """What making it took: seconds, chunks, tokens."""
    reuse: str | None = None
    """Digest of the recipe that all its rows share, where a rerun may take rows from it; None where it may not."""
    sources: dict[str, int] = Field(default_factory=dict)
    """Rows that were not made but taken: version they came from (`chunks/<version>` if it never committed) -> rows."""
    generation: int = 0
    """How often this version had been removed before it was made again."""
    metrics: dict[str, Any]
    created_at: str
    """For people: UTC by the writer's clock. Nothing is decided by it."""

    def ref(self) -> DatasetRef | ModelRef:
        """The reference that flows pass around."""
        return self.model_ref() if self.kind == "model" else self.dataset_ref()

    def dataset_ref(self) -> DatasetRef:
        return DatasetRef(dataset=self.dataset, version=self.version, content_hash=self.content_hash, rows=self.rows)

    def model_ref(self) -> ModelRef:
        return ModelRef(model=self.dataset, version=self.version, content_hash=self.content_hash)

    def to_bytes(self) -> bytes:
        """Canonical JSON with `sha256`, the digest of the rest. A metric that is not finite becomes null."""
        body = json.loads(self.model_dump_json())
        return canonical_json(body | {"sha256": digest(body)})


def parse_manifest(data: bytes, dataset: str, version: str, where: str) -> Manifest:
    """The manifest in `data`, which must be the one of this dataset and version.

    Raises: ManifestEdited: it is not as it was written, or stands under another version's key. PartOutside: it
    lists a file outside its version's data folder. Corrupt: it is of another format. Each names `where`.
    """
    try:
        body = json.loads(data)
        claimed, actual = body.pop("sha256"), digest(body)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ManifestEdited(f"{where}: not a manifest ({type(error).__name__}: {error})") from None
    if claimed != actual:
        raise ManifestEdited(f"{where}: the manifest was changed after it was written (its own sha256 does not fit)")
    try:
        manifest = Manifest.model_validate(body)
    except ValueError as error:
        raise Corrupt(f"{where}: not a manifest of format 1 ({error})") from None
    if (manifest.dataset, manifest.version) != (dataset, version):
        raise ManifestEdited(f"{where}: the manifest is of {manifest.dataset} {manifest.version}")
    if not _SHA256.fullmatch(manifest.content_hash):  # it becomes the name of a folder
        raise ManifestEdited(f"{where}: content_hash {manifest.content_hash!r:.80}, expected 64 hex digits")
    try:
        for part in manifest.parts:
            check_file_path(part.path)
    except InvalidName as error:
        raise PartOutside(f"{where}: lists a part outside the data folder of its version ({error})") from None
    return manifest


def new_manifest(
    derivation: Derivation,
    kind: Literal["rows", "model"],
    content_hash: str,
    parts: tuple[Part, ...],
    metrics: Mapping[str, Any],
    cost: Mapping[str, float],
    **held: Any,
) -> Manifest:
    """The manifest of a finished attempt; `held` are its fields about rows."""
    return Manifest(
        dataset=derivation.dataset,
        version=derivation.version,
        kind=kind,
        content_hash=content_hash,
        parts=parts,
        derivation=derivation,
        code_commit=code_commit(),
        libraries=library_versions(),
        cost=dict(cost),
        metrics=dict(metrics),
        created_at=datetime.now(UTC).isoformat(timespec="microseconds"),
        **held,
    )


def columns_of(schema: pa.Schema) -> tuple[Column, ...]:
    return tuple(Column(name=field.name, type=str(field.type)) for field in schema)


def count_statuses(table: pa.Table) -> dict[str, int]:
    """How many rows ended with each status."""
    return {entry["values"]: entry["counts"] for entry in table.column("status").value_counts().to_pylist()}


@functools.cache
def code_commit() -> str | None:
    """Commit of the checkout that runs, `-dirty` where tracked files differ; None where git cannot say."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        found = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None


@functools.cache
def library_versions() -> dict[str, str]:
    """Versions of the installed libraries that can change a result."""
    found = {dist.name.lower(): dist.version for dist in importlib.metadata.distributions() if dist.name}
    return {name: found[name] for name in _LIBRARIES if name in found}
