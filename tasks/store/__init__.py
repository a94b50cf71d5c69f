"""Versioned datasets and models in a folder or in S3: a result exists if and only if its manifest does."""

from tasks.store.errors import Corrupt, InvalidName, NotCommitted, StoreError, StoreUnavailable
from tasks.store.external import resolve_external_model
from tasks.store.manifest import Derivation, InputRef, Manifest, Part
from tasks.store.store import Store

__all__ = [
    "Corrupt",
    "Derivation",
    "InputRef",
    "InvalidName",
    "Manifest",
    "NotCommitted",
    "Part",
    "Store",
    "StoreError",
    "StoreUnavailable",
    "resolve_external_model",
]
