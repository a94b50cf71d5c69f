"""Real input: prompts and preferences from files, S3 and the hub. Nothing read is lost; see `records`."""

from typing import Literal

from tasks.readers.plain import parse_prompt, plain_prompts
from tasks.readers.records import ParsedPreference, ParsedPrompt, ReadError, pinned, read_records, require_column
from tasks.readers.transcripts import conversation_prompts, parse_conversation_prompt, transcript_preferences

Format = Literal["auto", "hh", "plain"]

__all__ = ["Format", "ParsedPreference", "ParsedPrompt", "ReadError", "pinned", "read_preferences", "read_prompts"]


def read_prompts(uri: str, format: Format = "auto", limit: int | None = None) -> list[ParsedPrompt]:
    """One prompt for each of the first `limit` lines or rows, in order.

    `hh`: conversations of a preference file; `plain`: `prompt` or `messages`; `auto`: `plain` where there is
    such a column, else `hh`.

    Raises: ReadError: the input cannot be read, is empty, or has none of the columns.
    """
    if format == "hh":
        return conversation_prompts(uri, limit)
    if format == "plain":
        return plain_prompts(uri, limit)
    records = read_records(uri, limit)
    require_column(uri, records, ("prompt", "messages", "chosen"))
    columns = {name for record in records for name in record.fields or ()}
    transcripts = not columns & {"prompt", "messages"}
    return [(parse_conversation_prompt if transcripts else parse_prompt)(record) for record in records]


def read_preferences(uri: str, limit: int | None = None) -> list[ParsedPreference]:
    """One comparison for each of the first `limit` pairs of an HH-format file, in order.

    Raises: ReadError: the input cannot be read, is empty, or lacks `chosen` or `rejected`.
    """
    return transcript_preferences(uri, limit)
