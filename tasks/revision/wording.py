"""What one round asks: the drawn principle's requests, with those of the hard constraints beside it."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from constitutions import Principle
from tasks.prompts import fill, template
from tasks.schema import Message

CritiqueForm = Literal["plain", "reasoned", "none"]


class Requests(NamedTuple):
    """The two turns of the human in one round."""

    critique: str
    """Empty where no critique is asked for."""
    revision: str


def requests_of(principle: Principle, constraints: Sequence[Principle], form: CritiqueForm) -> Requests:
    """The principle's requests, then those of the other hard constraints, a blank line between them."""
    asked = [principle, *(p for p in constraints if p.id != principle.id)]
    critique = "\n\n".join(p.critique_request or "" for p in asked)
    revision = "\n\n".join(p.revision_request or "" for p in asked)
    if form == "none":
        return Requests("", revision)
    if form == "reasoned":
        critique = fill(template("four_checks"), {"critique_request": critique})
    return Requests(critique, revision)


def critique_turns(
    before: Sequence[Message], prompt: Sequence[Message], text: str, requests: Requests
) -> list[Message]:
    """Demonstrations, the conversation with its completion, then the critique request."""
    return [*conversation(before, prompt, text), Message(role="user", content=requests.critique)]


def revision_turns(
    before: Sequence[Message], prompt: Sequence[Message], text: str, requests: Requests, critique: str | None
) -> list[Message]:
    """The same with the critique and the revision request; only the latter where there is no critique (figure 7)."""
    asked = Message(role="user", content=requests.revision)
    if critique is None:
        return [*conversation(before, prompt, text), asked]
    return [*critique_turns(before, prompt, text, requests), Message(role="assistant", content=critique), asked]


def conversation(before: Sequence[Message], prompt: Sequence[Message], text: str) -> list[Message]:
    return [*before, *prompt, Message(role="assistant", content=text)]
