"""Which question sets a run asks, and how."""

from typing import Literal

from pydantic import Field, field_validator

from tasks.schema import AnswerForm, Settings


class QuestionSet(Settings):
    """Questions whose right answers are known."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")
    """A name of yours for it: its figures are told by this."""
    source: str = Field(min_length=1)
    """A path, `s3://` or `hf://org/name[@revision][/folder][:split]` address, with columns `prompt`, `corrects` and
    `incorrects`, or `input` and `targets`."""
    limit: int | None = Field(None, ge=1)
    """Take only the first so many. Empty: all."""


class QuestionsConfig(Settings):
    """Question sets for every policy and for the feedback models."""

    sets: tuple[QuestionSet, ...] = ()
    """Each is asked of every policy and of every model that labels. Empty: nothing is asked."""
    asks: Literal["soft", "reasoned"] = "soft"
    """How models that label are asked. `reasoned`: also after reasoning, so that labels of either form can be
    compared. Policies are not asked to reason."""

    @property
    def forms(self) -> tuple[AnswerForm, ...]:
        """In which models that label are asked."""
        return ("soft",) if self.asks == "soft" else ("soft", "reasoned")

    @field_validator("sets")
    @classmethod
    def _sets_have_names_of_their_own(cls, sets: tuple[QuestionSet, ...]) -> tuple[QuestionSet, ...]:
        names = [each.name for each in sets]
        twice = next((name for number, name in enumerate(names) if name in names[:number]), None)
        if twice is not None:
            raise ValueError(f"two question sets are named {twice!r}; rename one")
        return sets
