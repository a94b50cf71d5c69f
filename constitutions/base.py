"""What every part of a constitution is built from: frozen models, names, texts and one hash."""

import hashlib
import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, StringConstraints


class ConstitutionError(ValueError):
    """A constitution that cannot be used; the message says where, what and what was expected."""


class Frozen(BaseModel):
    """Immutable; an unknown key or a value of another type is an error, never coerced."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


Identifier = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]*$")]
# Stripped, so that YAML's `>` and `>-` are one text with one hash.
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


def digest(content: Any) -> str:
    """SHA-256 of canonical JSON (sorted keys, no spaces, UTF-8), 64 hex digits.

    Raises: TypeError or ValueError: a value that JSON has no stable form for.
    """
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
