"""Demonstrations: worked examples that go before a request, and how their two sides are put in a fair order."""

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from constitutions.base import ConstitutionError, Frozen, Identifier, Text, digest

Side = Literal["A", "B"]

# A side named so that it can be exchanged for the other: (A), option B, Response A.
_NAMED = re.compile(r"(\(|\b(?i:option|response|completion|answer|reply|assistant) )([AB])\b")
_BARE = re.compile(r"\b[AB]\b")
_PLACE = re.compile(
    r"\b(?:first|second|former|latter|last) (?:option|response|completion|answer|reply|one)\b"
    r"|\bthe (?:former|latter)\b",
    re.IGNORECASE,
)


class Turn(Frozen):
    """One turn of a conversation, in the chat format of transformers and vLLM."""

    role: Literal["user", "assistant"]
    content: Text


def _turns(value: Any) -> Any:
    return [{"role": "user", "content": value}] if isinstance(value, str) else value


Conversation = Annotated[
    tuple[Turn, ...],
    Field(strict=False, min_length=1),
    BeforeValidator(_turns, json_schema_input_type=str | list[Turn]),
]
"""Turns that end with the human's; a text is one turn of the human."""


def _expect_turns(field: str, turns: Sequence[Turn]) -> None:
    """Human and assistant in turn, the human first and last."""
    for number, turn in enumerate(turns):
        expected = "assistant" if number % 2 else "user"
        if turn.role != expected:
            message = f"{turn.role}, expected {expected}: the human begins and the two take turns"
            raise PydanticCustomError("turns", message, {"where": (field, number, "role")})
    if len(turns) % 2 == 0:
        raise PydanticCustomError("turns", f"{field} ends with the assistant, expected a turn of the human last")


class RevisionDemonstration(Frozen):
    """A critique and a revision as they should be, shown before the supervised phase asks for one (section 3.1)."""

    id: Identifier
    source: Text | None = None
    prompt: Conversation
    completion: Text
    critique_request: Text
    critique: Text
    revision_request: Text
    revision: Text
    framing: str | None = None
    """The source's own frame where it is not the usual one; only the exporter reads it."""

    @model_validator(mode="after")
    def _is_a_conversation(self) -> "RevisionDemonstration":
        _expect_turns("prompt", self.prompt)
        return self

    @property
    def hash(self) -> str:
        """Hash of what a model is shown: not of id, source and framing."""
        return digest(self.model_dump(exclude={"id", "source", "framing"}))


class ComparisonDemonstration(Frozen):
    """A comparison as it should be answered, shown before the preference phase asks for one (section 4.1)."""

    id: Identifier
    source: Text | None = None
    conversation: Conversation
    question: Text | None = None
    """None: each time it is shown it gets a question of its own draw, as in the paper."""
    completion_a: Text
    completion_b: Text
    answer: Side
    reasoning: Text | None = None
    """What is thought before the answer; names the two as (A) and (B), or as option A and option B."""
    framing: str | None = None
    """The source's own frame where it is not the usual one; only the exporter reads it."""

    @model_validator(mode="after")
    def _is_a_comparison(self) -> "ComparisonDemonstration":
        _expect_turns("conversation", self.conversation)
        if self.completion_a == self.completion_b:
            raise PydanticCustomError("same", "completion_a and completion_b are the same, expected two to compare")
        return self

    @property
    def hash(self) -> str:
        """Hash of what a model is shown: not of id, source and framing."""
        return digest(self.model_dump(exclude={"id", "source", "framing"}))

    @property
    def chosen(self) -> str:
        return self.completion_a if self.answer == "A" else self.completion_b

    @property
    def rejected(self) -> str:
        return self.completion_b if self.answer == "A" else self.completion_a

    @property
    def fixed_because(self) -> str | None:
        """Why the sides cannot be exchanged; None where they can."""
        for field in ("question", "reasoning"):
            text = getattr(self, field) or ""
            place, bare = _PLACE.search(text), _BARE.search(_NAMED.sub(" ", text))
            if place:
                return f"its {field} says '{place[0]}'"
            if bare:
                return f"its {field} has a bare '{bare[0]}'"
        return None

    def swapped(self) -> "ComparisonDemonstration":
        """The same with A and B exchanged: completions, answer, and the names in question and reasoning.

        Raises: ConstitutionError: the text names a side in a way that cannot be exchanged safely.
        """
        if self.fixed_because:
            raise ConstitutionError(
                f"demonstration {self.id}: sides cannot be exchanged, {self.fixed_because}; write (A) and (B)"
            )
        changes = {
            "completion_a": self.completion_b,
            "completion_b": self.completion_a,
            "answer": _other(self.answer),
            "question": _exchanged(self.question),
            "reasoning": _exchanged(self.reasoning),
        }
        return self.model_copy(update=changes)


def in_seeded_order(
    demonstrations: Sequence[ComparisonDemonstration], seed: int, *key: str | int
) -> tuple[ComparisonDemonstration, ...]:
    """The demonstrations in their order, with sides drawn so that A and B are answered equally often.

    Where the number is odd, one side is answered once more, drawn too. What cannot be exchanged stays, and the others
    make up for it. The same seed and key give the same sides, whatever the order of the list.
    """
    free = [d for d in demonstrations if d.fixed_because is None]
    fixed_a = sum(d.answer == "A" for d in demonstrations) - sum(d.answer == "A" for d in free)
    half, odd = divmod(len(demonstrations), 2)
    more = odd and int(digest([seed, list(key), "odd"])[0], 16) % 2
    ranked = sorted(free, key=lambda d: (digest([seed, list(key), d.hash]), d.id))
    num_a = max(0, half + more - fixed_a)
    sides = {d.id: "A" if rank < num_a else "B" for rank, d in enumerate(ranked)}
    return tuple(d if d.answer == sides.get(d.id, d.answer) else d.swapped() for d in demonstrations)


def _other(side: str) -> Side:
    return "B" if side == "A" else "A"


def _exchanged(text: str | None) -> str | None:
    return text and _NAMED.sub(lambda match: match[1] + _other(match[2]), text)
