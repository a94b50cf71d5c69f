"""Question sets in the HHH format, from a file or the hub: lettered options of which one is right.

Two shapes are read. The paper's evaluations: `prompt` with its options in it, `corrects` such as `[" (B)"]` and
`incorrects` such as `[" (A)"]`. And `input` with `targets` of `choices` and `labels`, 1 for the right one: there the
right choice often comes first, so the options' places are drawn by their hashes. A text in `category` groups
questions. What cannot be used stays, with its reason.
"""

import json
import re
from collections import Counter
from typing import Any, NamedTuple

from tasks.calibration.wording import LETTERS, swap_options, with_options
from tasks.readers.records import ReadError, Record, read_records, require_column
from tasks.schema import Question
from tasks.store.identity import digest

LETTER = re.compile(r"\s*\(([A-Z])\)\s*")
NO_SWAP = "its two options could not be told apart, so the other order could not be asked"


class QuestionError(ValueError):
    """A record that is no question."""


class Put(NamedTuple):
    """A question as it is put."""

    prompt: str
    swapped: str | None
    """None where it has more than two options, or where the two cannot be told apart."""
    letters: list[str]
    correct: int


def read_questions(uri: str, limit: int | None = None) -> list[Question]:
    """A row for each of the first `limit` lines or rows, in order; empty lines are none.

    With more than two options anywhere every question is put in one order only, since it would be one of many.

    Raises: ReadError: the input cannot be read, is empty, or has neither `corrects` nor `targets`.
    """
    records = read_records(uri, limit)
    require_column(uri, records, ("corrects", "targets"))
    seen = Counter[str]()
    rows = [question_row(record, seen) for record in records if record.line is None or record.line.strip()]
    if not rows:
        raise ReadError(f"{uri}: no question in it, expected one a line")
    if any(len(row.letters) > 2 for row in rows):
        return [row.model_copy(update={"swapped": None}) for row in rows]
    return [row.model_copy(update=NO_ORDER) if row.status == "ok" and row.swapped is None else row for row in rows]


NO_ORDER = {"status": "skipped", "reason": NO_SWAP}


def question_row(record: Record, seen: Counter[str]) -> Question:
    """One record as a row; a question that comes again is named with `-1`, `-2`, ..."""
    source = record.source.rpartition(":")[2]
    try:
        category, put = category_of(record), put_of(record)
    except QuestionError as error:
        ended = {"status": "unparsable", "reason": str(error), "raw": record.raw}
        return row_of(digest(record.raw), seen, source, category="", letters=[], **ended)
    return row_of(digest([put.prompt, put.letters, put.correct]), seen, source, category=category, **put._asdict())


def row_of(hashed: str, seen: Counter[str], source: str, **columns: Any) -> Question:
    name = hashed[:20]
    question_id = f"{name}-{seen[name]}" if seen[name] else name
    seen[name] += 1
    key = digest([question_id, columns["category"], columns.get("status")])
    named = {"row_id": question_id, "question_id": question_id, "reuse_key": key, "source": source}
    return Question(**named, **{"prompt": None, "swapped": None, "correct": None, **columns})


def category_of(record: Record) -> str:
    category = (record.fields or {}).get("category") or ""
    if not isinstance(category, str):
        raise QuestionError(f"category: expected a text, got {shown(category)}")
    return category


def put_of(record: Record) -> Put:
    """Raises: QuestionError: it is in neither shape, or has not one right option and other wrong ones."""
    if record.fields is None:
        raise QuestionError(record.reason)
    if record.fields.get("targets") is not None:
        return from_choices(record.fields)
    return from_letters(record.fields)


def from_letters(fields: dict[str, Any]) -> Put:
    """The paper's shape: the options stand in the prompt."""
    prompt = text_in(fields, "prompt")
    right, wrong = (option_letters(fields.get(name), name) for name in ("corrects", "incorrects"))
    if len(right) != 1 or not wrong or len({*right, *wrong}) != 1 + len(wrong):
        raise QuestionError(f"expected one right option and other wrong ones, got {right} and {wrong}")
    letters = sorted([*right, *wrong])
    return Put(prompt, swap_options(prompt) if len(letters) == 2 else None, letters, letters.index(right[0]))


def option_letters(value: Any, name: str) -> list[str]:
    """The letters of options written as ` (B)`."""
    options = value if isinstance(value, list) else [value]
    found = [match[1] for each in options if isinstance(each, str) and (match := LETTER.fullmatch(each))]
    if not found or len(found) < len(options):
        raise QuestionError(f'{name}: expected options such as [" (B)"], got {shown(value)}')
    return found


def from_choices(fields: dict[str, Any]) -> Put:
    """The other shape: the options are texts, and are put under letters here."""
    asked, (choices, labels) = text_in(fields, "input"), choices_in(fields["targets"])
    if sum(label == 1 for label in labels) != 1 or len(set(choices)) < max(len(choices), 2):
        raise QuestionError(f"targets: expected one right choice and other wrong ones, got labels {shown(labels)}")
    if len(choices) > len(LETTERS):
        raise QuestionError(f"targets: {len(choices)} choices, expected at most {len(LETTERS)}, which have letters")
    right = choices[labels.index(1)]
    placed = sorted(choices, key=lambda choice: digest([asked, choice]))
    swapped = with_options(asked, placed[::-1]) if len(placed) == 2 else None
    return Put(with_options(asked, placed), swapped, list(LETTERS[: len(placed)]), placed.index(right))


def choices_in(targets: Any) -> tuple[list[str], list[Any]]:
    """The texts and their labels."""
    found = targets if isinstance(targets, dict) else {}
    choices, labels = found.get("choices"), found.get("labels")
    if isinstance(choices, list) and isinstance(labels, list) and len(choices) == len(labels):
        texts = [choice.strip() for choice in choices if isinstance(choice, str) and choice.strip()]
        if len(texts) == len(choices):
            return texts, labels
    raise QuestionError(f"targets: expected choices that are texts and as many labels, got {shown(targets)}")


def text_in(fields: dict[str, Any], name: str) -> str:
    text = fields.get(name)
    if not isinstance(text, str) or not text.strip():
        raise QuestionError(f"expected a text in {name}, got {shown(text)}")
    return text.strip()


def shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)[:80]
