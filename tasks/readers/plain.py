"""Plain prompts: a line of text, or a column `prompt` (text) or `messages` (a conversation).

Columns `kind` and `group` are taken along where the file has them; others are left.
"""

from typing import Any, cast, get_args

from pydantic import TypeAdapter, ValidationError

from tasks.readers.records import ParsedPrompt, Record, read_records, require_column
from tasks.readers.transcripts import empty_turn
from tasks.schema import Kind, Message, Status

_MESSAGES = TypeAdapter(list[Message])


class PromptError(ValueError):
    """A record that holds no prompt."""


def plain_prompts(uri: str, limit: int | None = None) -> list[ParsedPrompt]:
    """The prompt of each of the first `limit` lines or rows; of an empty one too, as `skipped`.

    Raises: ReadError: as read_records; neither a column `prompt` nor `messages`.
    """
    records = read_records(uri, limit)
    require_column(uri, records, ("prompt", "messages"))
    return [parse_prompt(record) for record in records]


def parse_prompt(record: Record) -> ParsedPrompt:
    """A conversation that ends with a human turn, and what the record says of its kind and group."""
    try:
        messages, fields = _messages(record), record.fields or {}
        kind, group = _kind(fields.get("kind")), _group(fields.get("group"))
    except PromptError as error:
        return _parsed(record, [], "unparsable", str(error))
    if not messages or messages[-1].role != "user":
        last = f"ends with a turn of the {messages[-1].role}" if messages else "no turns"
        return _parsed(record, messages, "unparsable", f"{last}, expected one that ends with the user's")
    reason = empty_turn(messages)
    return _parsed(record, messages, "ok" if reason is None else "skipped", reason, kind, group)


def _messages(record: Record) -> list[Message]:
    if record.fields is None:
        raise PromptError(record.reason)
    found = record.fields.get("messages")
    name, found = ("prompt", record.fields.get("prompt")) if found is None else ("messages", found)
    if isinstance(found, str) and name == "prompt":
        return [Message(role="user", content=found)]
    if isinstance(found, list):
        return _conversation(name, found)
    if found is None and "prompt" in record.fields:
        return [Message(role="user", content="")]  # a null cell is an empty prompt
    expected = "text or a list of messages" if name == "prompt" else "a list of messages"
    raise PromptError(f"{name}: {type(found).__name__}, expected {expected}")


def _conversation(name: str, turns: list[Any]) -> list[Message]:
    try:
        return _MESSAGES.validate_python(turns)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise PromptError(f"{name}.{where}: {first['msg']}, expected role and content") from error


def _kind(value: Any) -> Kind | None:
    if value in (None, ""):
        return None
    if value not in get_args(Kind):
        raise PromptError(f"kind: {value!r}, expected one of {', '.join(get_args(Kind))}")
    return cast(Kind, value)


def _group(value: Any) -> str | None:
    if value in (None, ""):
        return None
    if not isinstance(value, str):
        raise PromptError(f"group: {type(value).__name__}, expected text")
    return value


def _parsed(
    record: Record,
    messages: list[Message],
    status: Status,
    reason: str | None,
    kind: Kind | None = None,
    group: str | None = None,
) -> ParsedPrompt:
    raw = None if status == "ok" else record.raw
    return ParsedPrompt(
        messages=messages, source=record.source, status=status, reason=reason, raw=raw, kind=kind, group=group
    )
