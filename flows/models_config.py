"""The models that a run is given: those it starts from, those that judge, and policies to compare with."""

from collections.abc import Mapping, Sequence

from pydantic import Field, field_validator

from tasks.evaluation.names import JURY, ORACLE, PEOPLE, WITH_PEOPLE
from tasks.schema import Settings
from tasks.serving.interface import URLS

POLICIES = ("base", "sl", "rl")
"""Names of the policies that every run has; those along the way are `sl@` or `rl@` and their steps."""
FEEDBACK = "feedback"
"""Name of the first evaluator; the jury's others have the names that the config gives them."""
TAKEN = dict.fromkeys((ORACLE, JURY, PEOPLE, WITH_PEOPLE), "a name of Solon's own")
"""Names that figures have for judges that are not one model, with whose they are."""


class Juror(Settings):
    """A further model that judges."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")
    """A name of yours for it: its labels are told by this."""
    model: str = Field(min_length=1)
    """Folder, or hub name with an optional `@revision`."""


class Reference(Settings):
    """A policy from elsewhere that this run's policies are measured beside."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")
    """A name of yours for it."""
    model: str = Field(min_length=1)
    """Folder, or hub name with an optional `@revision`."""
    url: str | None = Field(None, pattern=URLS)
    """A running vLLM server that serves it, or several with blanks between them, each checked before it is used.
    Empty: it is served as the others."""


class ModelsConfig(Settings):
    """The models a run starts from: folders, or hub names with an optional `@revision`."""

    helpful_only: str = Field(min_length=1)
    """Answers red-team prompts, criticises and revises (the paper: a helpful-only RLHF model)."""
    pretrained: str = Field(min_length=1)
    """What supervised finetuning starts from (the paper: a pretrained model)."""
    feedback: str = Field(min_length=1)
    """Judges comparisons (the paper: a pretrained model)."""
    jury: tuple[Juror, ...] = ()
    """Further models that judge. Each has labels of its own, so adding one changes none of the others."""
    judges: tuple[Juror, ...] = ()
    """Models that compare the policies at the end, in place of those that labelled: a policy was trained to please
    these, which the report says where they judge."""
    references: tuple[Reference, ...] = ()
    """Policies from elsewhere to compare with."""

    @field_validator("jury")
    @classmethod
    def _jury_has_names_of_its_own(cls, jury: tuple[Juror, ...]) -> tuple[Juror, ...]:
        expect_own_names("evaluators", [juror.name for juror in jury], {FEEDBACK: "models.feedback", **TAKEN})
        return jury

    @field_validator("judges")
    @classmethod
    def _judges_have_names_of_their_own(cls, judges: tuple[Juror, ...]) -> tuple[Juror, ...]:
        expect_own_names("judges", [judge.name for judge in judges], TAKEN)
        return judges

    @field_validator("references")
    @classmethod
    def _references_have_names_of_their_own(cls, references: tuple[Reference, ...]) -> tuple[Reference, ...]:
        made = dict.fromkeys(POLICIES, "a policy of this run")
        expect_own_names("policies", [each.name for each in references], made)
        return references


def expect_own_names(what: str, names: Sequence[str], taken: Mapping[str, str]) -> None:
    """Raises: ValueError: a name comes twice, or is one of those that `taken` says whose they are."""
    for number, name in enumerate(names):
        if name in taken:
            raise ValueError(f"two {what} are named {name!r} ({name!r} is {taken[name]}); rename one")
        if name in names[:number]:
            raise ValueError(f"two {what} are named {name!r}; rename one")
