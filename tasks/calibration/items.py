"""Evaluation files in the HHH format: one question a line with lettered options, of which one is right.

The shape is the one the paper's evaluations were published in: JSON lines with `prompt`, `corrects` such as
`[" (B)"]` and `incorrects` such as `[" (A)"]`. A text in `category` groups questions; other fields are not read.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

LETTER = re.compile(r"\s*\(([A-Z])\)\s*")
TAIL = r"(?:\s*\n\s*(?:Assistant:\s*)?(?:(?:The|So the|The best) (?:answer|option|choice) is|Answer|Assistant):?)?\s*"
"""What asks for the letter at the end of a question, if anything does."""
OPTIONS = re.compile(rf"(?P<head>.*\n[ \t]*\(A\))(?P<a>.*?)(?P<mid>\n[ \t]*\(B\))(?P<b>.*?)(?P<tail>{TAIL})", re.S)


class Item(NamedTuple):
    """One question whose right option is known."""

    line: int
    """Of its file, from 1."""
    prompt: str
    """The question as the file puts it, with its options."""
    letters: tuple[str, ...]
    """Of the options, sorted."""
    correct: int
    """Which of the letters is right."""
    swapped: str | None
    """The question with its two options in each other's place; None where they cannot be told apart."""
    category: str = ""
    """What the file says the question is about; empty where it does not."""


def read_items(path: Path, limit: int | None = None) -> list[Item]:
    """The questions of a file in its order, the first `limit` of them.

    Raises: ValueError: a line is not in the format (names file and line), or the file has none.
    """
    items: list[Item] = []
    for number, line in numbered(path):
        if limit is not None and len(items) == limit:
            break
        items.append(parse_item(line, number, f"{path}: line {number}"))
    if not items:
        raise ValueError(f"{path}: no question in it, expected one JSON object a line")
    return items


def numbered(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that are not empty, from 1. A file that is not UTF-8 is an error that names it."""
    with path.open(encoding="utf-8") as file:
        try:
            yield from ((number, line) for number, line in enumerate(file, 1) if line.strip())
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not UTF-8 text ({error.reason}), expected JSON lines") from error


def parse_item(line: str, number: int, where: str) -> Item:
    """One line as a question."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: not JSON: {error.msg} at column {error.colno}") from error
    if not isinstance(row, dict) or not isinstance(row.get("prompt"), str) or not row["prompt"].strip():
        raise ValueError(f"{where}: expected an object with a prompt, got {line.strip()[:80]}")
    right, wrong = (option_letters(row.get(name), f"{where}: {name}") for name in ("corrects", "incorrects"))
    if len(right) != 1 or not wrong or len({*right, *wrong}) != 1 + len(wrong):
        raise ValueError(f"{where}: expected one right option and other wrong ones, got {right} and {wrong}")
    letters, prompt = tuple(sorted([*right, *wrong])), row["prompt"].strip()
    category = row.get("category") or ""
    if not isinstance(category, str):
        raise ValueError(f"{where}: category: expected a text, got {json.dumps(category)[:80]}")
    swapped = swap_options(prompt) if len(letters) == 2 else None
    return Item(number, prompt, letters, letters.index(right[0]), swapped, category)


def option_letters(value: Any, where: str) -> list[str]:
    """The letters of options written as ` (B)`."""
    options = value if isinstance(value, list) else [value]
    found = [match[1] for each in options if isinstance(each, str) and (match := LETTER.fullmatch(each))]
    if not found or len(found) < len(options):
        raise ValueError(f'{where}: expected options such as [" (B)"], got {json.dumps(value)[:80]}')
    return found


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
