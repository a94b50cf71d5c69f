"""Framing templates (`*.txt` beside this file) and the one way to fill them."""

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from tasks.schema import Message

SPEAKERS = {"user": "Human", "assistant": "Assistant", "system": "System"}


@cache
def template(name: str) -> str:
    """The text of `<name>.txt`, without the newline at its end."""
    return (Path(__file__).parent / f"{name}.txt").read_text().removesuffix("\n")


def fill(text: str, values: dict[str, str]) -> str:
    """Replace each `{name}` in one pass, so that braces inside a value stay text.

    Raises: KeyError: the template asks for a value that is not given.
    """
    return re.sub(r"\{([a-z_]+)\}", lambda match: values[match[1]], text)


def transcript(messages: Sequence[Message]) -> str:
    """A conversation as the paper shows it to the feedback model: `Human: ...`, a blank line, `Assistant: ...`."""
    return "\n\n".join(f"{SPEAKERS[m.role]}: {m.content}" for m in messages)
