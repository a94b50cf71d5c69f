"""What a constitution is: principles with stable ids, and the texts that the two phases take from them."""

import hashlib
import json
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError


class ConstitutionError(ValueError):
    """A constitution that cannot be used; the message says where, what and what was expected."""


class Frozen(BaseModel):
    """Immutable; an unknown key or a value of another type is an error, never coerced."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


Identifier = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]*$")]
# Stripped, so that YAML's `>` and `>-` are one text with one hash.
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Principle(Frozen):
    """One rule of conduct, worded for either phase or both."""

    id: Identifier
    """Stable name: draws and lineage cite it, so a reworded principle keeps it."""
    cluster: Text = "general"
    """What it is about; reports group by it."""
    source: Text | None = None
    """Where it comes from."""
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """How often it is drawn, relative to the others."""
    priority: int = 0
    """Which principle prevails where two disagree, larger first. Recorded only: no stage acts on it yet."""
    enabled: bool = True
    """False takes it out of both phases and leaves it in the file."""
    hard_constraint: bool = False
    """Must hold whatever was drawn. Recorded only: no stage acts on it yet."""
    critique_request: Text | None = None
    """Supervised phase: asks for a critique of the assistant's last turn (section 3.1)."""
    revision_request: Text | None = None
    """Supervised phase: asks for the turn to be rewritten after the critique (section 3.1)."""
    comparison_question: Text | None = None
    """Preference phase: asks which of two completions is better (section 4.1)."""

    @model_validator(mode="after")
    def _has_a_phase(self) -> Self:
        if (self.critique_request is None) != (self.revision_request is None):
            given, absent = "critique_request", "revision_request"
            if self.critique_request is None:
                given, absent = absent, given
            raise PydanticCustomError("phase", f"{given} without {absent}, expected both or neither")
        if self.critique_request is None and self.comparison_question is None:
            expected = "critique_request and revision_request, or comparison_question, or all three"
            raise PydanticCustomError("phase", f"serves no phase, expected {expected}")
        return self

    @property
    def revision_hash(self) -> str:
        """Hash of the text that the supervised phase uses, 64 hex digits."""
        return digest([self.critique_request, self.revision_request])

    @property
    def comparison_hash(self) -> str:
        """Hash of the text that the preference phase uses, 64 hex digits."""
        return digest([self.comparison_question])

    @property
    def hash(self) -> str:
        """Hash of the text of both phases: not of id, weight, cluster or source."""
        return digest([self.critique_request, self.revision_request, self.comparison_question])


class Constitution(Frozen):
    """A named set of principles. Their order means nothing."""

    id: Identifier
    title: Text | None = None
    description: Text | None = None
    bias_note: Text | None = None
    """Whose values these are and what they are likely to miss."""
    principles: tuple[Principle, ...] = Field(strict=False)

    @model_validator(mode="after")
    def _is_usable(self) -> Self:
        first: dict[str, int] = {}
        for index, principle in enumerate(self.principles):
            if first.setdefault(principle.id, index) != index:
                where = {"where": ("principles", index, "id")}
                message = f"'{principle.id}' is also the id of principles[{first[principle.id]}], expected another"
                raise PydanticCustomError("duplicate_id", message, where)
        if not any(principle.enabled for principle in self.principles):
            message = f"none of {len(self.principles)} is enabled, expected at least one"
            raise PydanticCustomError("no_principle", message, {"where": ("principles",)})
        return self

    @property
    def hash(self) -> str:
        """Hash of the whole content, 64 hex digits; the order of principles does not enter."""
        return digest(self.model_dump() | {"principles": [p.model_dump() for p in self._by_id()]})

    def revision_principles(self) -> tuple[Principle, ...]:
        """The enabled principles with a critique and revision request, by id.

        Raises: ConstitutionError: there is none.
        """
        usable = [p for p in self._by_id() if p.enabled and p.critique_request is not None]
        return self._expect(usable, "revision", "critique_request and revision_request")

    def comparison_principles(self) -> tuple[Principle, ...]:
        """The enabled principles with a comparison question, by id.

        Raises: ConstitutionError: there is none.
        """
        usable = [p for p in self._by_id() if p.enabled and p.comparison_question is not None]
        return self._expect(usable, "comparison", "comparison_question")

    def revision_slice(self) -> str:
        """Hash of what the revision phase uses: ids, weights, requests."""
        return digest(["revision", [[p.id, p.weight, p.revision_hash] for p in self.revision_principles()]])

    def comparison_slice(self) -> str:
        """Hash of what the comparison phase uses: ids, weights, questions."""
        return digest(["comparison", [[p.id, p.weight, p.comparison_hash] for p in self.comparison_principles()]])

    def _by_id(self) -> list[Principle]:
        return sorted(self.principles, key=lambda principle: principle.id)

    def _expect(self, usable: list[Principle], phase: str, fields: str) -> tuple[Principle, ...]:
        if not usable:
            raise ConstitutionError(
                f"constitution {self.id}: no principle for the {phase} phase among {len(self.principles)}, "
                f"expected at least one that is enabled and has {fields}"
            )
        return tuple(usable)


def digest(content: Any) -> str:
    """SHA-256 of canonical JSON (sorted keys, no spaces, UTF-8), 64 hex digits.

    Raises: TypeError or ValueError: a value that JSON has no stable form for.
    """
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
