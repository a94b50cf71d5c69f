"""The text of a question with lettered options: its two options in each other's place, its end, and how it is built."""

import re
from collections.abc import Sequence

from tasks.prompts import fill, template

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
TAIL = r"(?:\s*\n\s*(?:Assistant:\s*)?(?:(?:The|So the|The best) (?:answer|option|choice) is|Answer|Assistant):?)?\s*"
"""What asks for the letter at the end of a question, if anything does."""
OPTIONS = re.compile(rf"(?P<head>.*\n[ \t]*\(A\))(?P<a>.*?)(?P<mid>\n[ \t]*\(B\))(?P<b>.*?)(?P<tail>{TAIL})", re.S)


def swap_options(prompt: str) -> str | None:
    """The question with the texts of (A) and (B) changed places; None where it has not just these two at its end."""
    match = OPTIONS.fullmatch(prompt)
    if match is None or not match["a"].strip() or not match["b"].strip():
        return None
    return f"{match['head']}{match['b']}{match['mid']}{match['a']}{match['tail']}"


def without_tail(prompt: str) -> str:
    """The question up to its last option, where reasons are to be given before the letter."""
    match = re.fullmatch(rf"(?P<question>.*?){TAIL}", prompt, re.S)
    assert match is not None, "every text matches"
    return match["question"]


def with_options(asked: str, choices: Sequence[str]) -> str:
    """A question about responses to what a human says, as labels are asked for it."""
    options = "\n".join(f"({letter}) {choice}" for letter, choice in zip(LETTERS, choices, strict=False))
    return fill(template("options"), {"conversation": f"Human: {asked}", "options": options})
