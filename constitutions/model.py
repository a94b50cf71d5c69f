"""What a constitution is: principles with stable ids, and the texts that the two phases take from them."""

from collections.abc import Sequence
from typing import Any, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator
from pydantic_core import PydanticCustomError

from constitutions.base import ConstitutionError, Frozen, Identifier, Text, digest
from constitutions.demonstrations import ComparisonDemonstration, RevisionDemonstration
from constitutions.sections import Cluster, Section

LISTS = ("clusters", "sections", "revision_demonstrations", "comparison_demonstrations")
"""What a constitution may hold beside its principles."""


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
    """Which principle decides where several that were asked of one comparison disagree, larger first."""
    enabled: bool = True
    """False takes it out of both phases and leaves it in the file."""
    hard_constraint: bool = False
    """Asked beside whatever was drawn, of every critique and comparison; a completion that breaks it loses."""
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
    clusters: tuple[Cluster, ...] = Field(default=(), strict=False)
    """Titles and descriptions of the clusters that principles name; optional."""
    principles: tuple[Principle, ...] = Field(strict=False)
    sections: tuple[Section, ...] = Field(default=(), strict=False)
    """Prose, with the ids of the principles derived from it."""
    revision_demonstrations: tuple[RevisionDemonstration, ...] = Field(default=(), strict=False)
    """Shown in this order before the supervised phase's requests."""
    comparison_demonstrations: tuple[ComparisonDemonstration, ...] = Field(default=(), strict=False)
    """Shown in this order before the preference phase's questions."""

    @model_validator(mode="after")
    def _is_usable(self) -> Self:
        for name in ("principles", *LISTS):
            _expect_unique(name, getattr(self, name))
        if not any(principle.enabled for principle in self.principles):
            message = f"none of {len(self.principles)} is enabled, expected at least one"
            raise PydanticCustomError("no_principle", message, {"where": ("principles",)})
        known = {principle.id for principle in self.principles}
        for index, section in enumerate(self.sections):
            for number, name in enumerate(section.principles):
                if name not in known:
                    message = f"'{name}' is no principle of this constitution, expected the id of one"
                    raise PydanticCustomError("derived", message, {"where": ("sections", index, "principles", number)})
        return self

    @model_serializer(mode="wrap")
    def _without_empty_lists(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As it was before there were such lists, so that a constitution without them keeps its hash and version."""
        return {name: value for name, value in serialize(self).items() if name not in LISTS or value}

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

    def revision_constraints(self) -> tuple[Principle, ...]:
        """The hard constraints that every critique asks beside its principle, by id; often none."""
        return tuple(p for p in self._by_id() if p.enabled and p.hard_constraint and p.critique_request is not None)

    def comparison_constraints(self) -> tuple[Principle, ...]:
        """The hard constraints that every comparison is asked beside its principle, by id; often none."""
        return tuple(p for p in self._by_id() if p.enabled and p.hard_constraint and p.comparison_question is not None)

    def revision_slice(self) -> str:
        """Hash of what the revision phase uses: draws, and demonstrations and hard constraints where there are any."""
        drawn = [[p.id, p.weight, p.revision_hash] for p in self.revision_principles()]
        constraints = _named("hard", self.revision_constraints())
        return digest(["revision", drawn, *_shown(self.revision_demonstrations), *constraints])

    def comparison_slice(self) -> str:
        """Hash of what the comparison phase uses: the same of its own."""
        constraints = _named("hard", self.comparison_constraints())
        return digest(["comparison", self._questions(), *_shown(self.comparison_demonstrations), *constraints])

    def questions_slice(self) -> str:
        """Hash of what draws a comparison question: ids, weights and questions."""
        return digest(["comparison", self._questions()])

    def priorities(self) -> dict[str, int]:
        """Priority by id, of the principles with a comparison question."""
        return {p.id: p.priority for p in self.comparison_principles()}

    def _questions(self) -> list[list[Any]]:
        return [[p.id, p.weight, p.comparison_hash] for p in self.comparison_principles()]

    def _by_id(self) -> list[Principle]:
        return sorted(self.principles, key=lambda principle: principle.id)

    def _expect(self, usable: list[Principle], phase: str, fields: str) -> tuple[Principle, ...]:
        if not usable:
            raise ConstitutionError(
                f"constitution {self.id}: no principle for the {phase} phase among {len(self.principles)}, "
                f"expected at least one that is enabled and has {fields}"
            )
        return tuple(usable)


def _shown(demonstrations: Sequence[RevisionDemonstration | ComparisonDemonstration]) -> list[list[str]]:
    """One element, or none: without demonstrations a slice is what it was before there were any."""
    return [[d.hash for d in demonstrations]] if demonstrations else []


def _named(name: str, principles: Sequence[Principle]) -> list[list[str]]:
    """One element, or none, for the same reason."""
    return [[name, *(p.id for p in principles)]] if principles else []


def _expect_unique(field: str, items: Sequence[Any]) -> None:
    first: dict[str, int] = {}
    for index, item in enumerate(items):
        if first.setdefault(item.id, index) != index:
            message = f"'{item.id}' is also the id of {field}[{first[item.id]}], expected another"
            raise PydanticCustomError("duplicate_id", message, {"where": (field, index, "id")})
