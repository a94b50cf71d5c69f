"""Preference transcripts in the HH format (`chosen` and `rejected`, each a whole conversation as one text).

A turn opens at "Human:" or "Assistant:" after a blank line (or at the very start), and only where the speaker
changes. Anything else is text: blank lines, ": ", "Human:" inside a line, and a marker that repeats its
speaker (in HH, models that go on writing a dialogue within their turn). So turns always alternate and nothing
is lost. What no reader can tell apart is a turn that quotes the *other* speaker's marker after a blank line:
it is read as a turn, as everywhere. One space after a marker belongs to it; the rest is kept exactly.
"""

import re
from collections.abc import Iterable
from itertools import pairwise

from tasks.readers.records import ParsedPreference, ParsedPrompt, Record, read_records, require_column
from tasks.schema import Message

_MARKER = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")


class TranscriptError(ValueError):
    """A text that is no transcript."""


def parse_transcript(text: str) -> list[Message]:
    """The turns of a transcript, alternating from the human's; an empty turn is kept.

    Raises: TranscriptError: no marker, text before the first one, or the assistant speaks first.
    """
    markers = list(_MARKER.finditer(text))
    turns = markers[:1] + [marker for before, marker in pairwise(markers) if marker[1] != before[1]]
    if not turns or turns[0].start() != 0:
        raise TranscriptError(f"starts with {text[:40]!r}, expected 'Human:' or a blank line and 'Human:'")
    if turns[0][1] != "Human":
        raise TranscriptError("the assistant speaks first, expected the human")
    ends = [turn.start() for turn in turns[1:]] + [len(text)]
    return [_message(turn[1], text[turn.end() : end]) for turn, end in zip(turns, ends, strict=True)]


def conversation_prompts(uri: str, limit: int | None = None) -> list[ParsedPrompt]:
    """A red-team prompt of each of the first `limit` conversations: `chosen` up to its last human turn.

    Raises: ReadError: as read_records; no column `chosen`.
    """
    records = read_records(uri, limit)
    require_column(uri, records, ("chosen",))
    return [parse_conversation_prompt(record) for record in records]


def transcript_preferences(uri: str, limit: int | None = None) -> list[ParsedPreference]:
    """The comparison of each of the first `limit` pairs.

    Raises: ReadError: as read_records; no column `chosen`, or none `rejected`.
    """
    records = read_records(uri, limit)
    require_column(uri, records, ("chosen",))
    require_column(uri, records, ("rejected",))
    return [parse_preference(record) for record in records]


def parse_conversation_prompt(record: Record) -> ParsedPrompt:
    """The conversation up to the last human turn of `chosen`, whatever the assistant said to it."""
    try:
        messages = _turns(record, "chosen")
    except TranscriptError as error:
        return ParsedPrompt(messages=[], source=record.source, status="unparsable", reason=str(error), raw=record.raw)
    messages = messages if messages[-1].role == "user" else messages[:-1]
    reason = empty_turn(messages)
    if reason is None:
        return ParsedPrompt(messages=messages, source=record.source, kind="red_team")
    return ParsedPrompt(
        messages=messages,
        source=record.source,
        status="skipped",
        reason=reason,
        raw=record.raw,
        kind="red_team",
    )


def parse_preference(record: Record) -> ParsedPreference:
    """The shared conversation, and the two last turns that complete it.

    Pairs that part before their last turn are `unparsable`: what was preferred there is a conversation, and
    no single turn of it is known to be the better one.
    """
    try:
        chosen, rejected = _turns(record, "chosen"), _turns(record, "rejected")
    except TranscriptError as error:
        return _no_pair(record, [], str(error))
    shared = _shared(chosen, rejected)
    for name, turns in (("chosen", chosen), ("rejected", rejected)):
        if turns[-1].role == "user":
            return _no_pair(record, shared, f"{name}: ends with a human turn, expected a completion")
    if chosen[:-1] != rejected[:-1]:
        return _no_pair(record, shared, _parting(len(shared), len(chosen), len(rejected)))
    reason = _nothing_to_compare(chosen, rejected)
    return ParsedPreference(
        prompt=chosen[:-1],
        chosen=chosen[-1].content,
        rejected=rejected[-1].content,
        source=record.source,
        status="ok" if reason is None else "skipped",
        reason=reason,
        raw=None if reason is None else record.raw,
    )


def empty_turn(messages: Iterable[Message]) -> str | None:
    """Which turn is empty or only space, in words; None where none is."""
    for number, message in enumerate(messages, 1):
        if not message.content.strip():
            return f"turn {number} ({message.role}) is empty"
    return None


def _turns(record: Record, column: str) -> list[Message]:
    if record.fields is None:
        raise TranscriptError(record.reason)
    text = record.fields.get(column)
    if not isinstance(text, str):
        raise TranscriptError(f"{column}: {type(text).__name__}, expected a transcript as text")
    try:
        return parse_transcript(text)
    except TranscriptError as error:
        raise TranscriptError(f"{column}: {error}") from error


def _message(speaker: str, text: str) -> Message:
    return Message(role="user" if speaker == "Human" else "assistant", content=text.removeprefix(" "))


def _shared(chosen: list[Message], rejected: list[Message]) -> list[Message]:
    pairs = enumerate(zip(chosen, rejected, strict=False))
    parting = next((turn for turn, (left, right) in pairs if left != right), min(len(chosen), len(rejected)))
    return chosen[:parting]


def _parting(num_shared: int, num_chosen: int, num_rejected: int) -> str:
    lengths = str(num_chosen) if num_chosen == num_rejected else f"{num_chosen} and {num_rejected}"
    return f"chosen and rejected part at turn {num_shared + 1} of {lengths}, expected only at the last"


def _nothing_to_compare(chosen: list[Message], rejected: list[Message]) -> str | None:
    empty = [name for name, turns in (("chosen", chosen), ("rejected", rejected)) if not turns[-1].content.strip()]
    if empty:
        return f"the completion in {' and in '.join(empty)} is empty"
    return "chosen and rejected are the same" if chosen == rejected else empty_turn(chosen)


def _no_pair(record: Record, shared: list[Message], reason: str) -> ParsedPreference:
    return ParsedPreference(
        prompt=shared,
        chosen=None,
        rejected=None,
        source=record.source,
        status="unparsable",
        reason=reason,
        raw=record.raw,
    )
