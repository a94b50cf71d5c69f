"""Opens a file or hub dataset as records, one for every line or row, and what the readers make of them.

Reads .txt, .jsonl and .csv (each also .gz) and .parquet, from a local path or s3://, and `hf://` datasets.
A line that cannot be decoded is a record with its reason; a file that cannot be read is an error.
"""

import csv
import io
import json
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from tasks.readers.hub import at_commit, is_hub, read_hub
from tasks.schema import Frozen, Kind, Message, Status

SUFFIXES = (".txt", ".jsonl", ".csv", ".parquet", ".txt.gz", ".jsonl.gz", ".csv.gz")


class ReadError(ValueError):
    """An input that cannot be read at all; the message names it and says what was expected."""


class ParsedPrompt(Frozen):
    """One prompt as read. Everything read is kept: what cannot be used has a reason.

    `unparsable`: no conversation could be made of it. `skipped`: it has nothing to work on (an empty turn).
    """

    messages: list[Message]
    """The conversation; as far as it could be read where the status is not `ok`."""
    source: str
    """File or dataset, and line or row from 1. Only the name of a file, so that moving it changes no row."""
    status: Status = "ok"
    reason: str | None = None
    raw: str | None = None
    """The text as read, where the status is not `ok`."""
    kind: Kind | None = None
    """As the file says; None where it does not."""
    group: str | None = None


class ParsedPreference(Frozen):
    """One comparison as read: a shared conversation and two completions of it. Status as in ParsedPrompt."""

    prompt: list[Message]
    chosen: str | None
    """None where the pair does not compare two completions of one conversation."""
    rejected: str | None
    source: str
    status: Status = "ok"
    reason: str | None = None
    raw: str | None = None


@dataclass(frozen=True)
class Record:
    """One line or row: its columns, or the reason why there are none."""

    source: str
    fields: dict[str, Any] | None
    line: str | None = None
    reason: str | None = None

    @property
    def raw(self) -> str:
        """The text as read; of a row of a table, its columns as JSON."""
        return self.line if self.line is not None else json.dumps(self.fields, ensure_ascii=False, default=str)


def read_records(uri: str, limit: int | None = None) -> list[Record]:
    """Every line or row of `uri`, in order; the first `limit` of them.

    Raises: ReadError: missing, unreadable, damaged or empty; a suffix or scheme that is not read; limit < 1.
    """
    if limit is not None and limit < 1:
        raise ReadError(f"{uri}: limit {limit}, expected at least 1")
    try:
        records = list(islice(_hub_records(uri) if is_hub(uri) else _file_records(uri), limit))
    except ReadError:
        raise
    except (OSError, EOFError, zlib.error, csv.Error, ValueError) as error:
        raise ReadError(f"{uri}: cannot be read: {str(error) or type(error).__name__}") from error
    if not records:
        raise ReadError(f"{uri}: is empty, expected at least one line or row")
    return records


def pinned(uri: str) -> str:
    """A hub address at the commit that it names now, so that it is read the same later; any other as it is.

    Raises: ReadError: the hub does not say.
    """
    try:
        return at_commit(uri) if is_hub(uri) else uri
    except (OSError, ValueError) as error:
        raise ReadError(f"{uri}: cannot be read: {str(error) or type(error).__name__}") from error


def require_column(uri: str, records: Iterable[Record], names: tuple[str, ...]) -> None:
    """Raises: ReadError: there are readable records, and none of them has one of these columns."""
    found = {name for record in records for name in record.fields or ()}
    if found and not found.intersection(names):
        raise ReadError(f"{uri}: no column {' or '.join(names)}; found {', '.join(sorted(found))}")


def _hub_records(uri: str) -> Iterator[Record]:
    for row, fields in enumerate(read_hub(uri), 1):
        yield Record(f"{uri.removeprefix('hf://')}:{row}", fields)


def _file_records(uri: str) -> Iterator[Record]:
    name = uri.rstrip("/").rpartition("/")[2]
    suffix = next((s for s in SUFFIXES if name.lower().endswith(s)), None)
    if suffix is None:
        raise ReadError(f"{uri}: unknown suffix, expected one of {', '.join(SUFFIXES)}")
    with _open(uri) as file:
        if suffix == ".parquet":
            yield from _parquet_rows(name, file)
            return
        text = _decoded(uri, file, compressed=suffix.endswith(".gz"))
        yield from {".txt": _txt_lines, ".csv": _csv_rows, ".jsonl": _json_lines}[suffix.removesuffix(".gz")](
            name, text
        )


@contextmanager
def _open(uri: str) -> Iterator[BinaryIO]:
    scheme, separator, _ = uri.partition("://")
    if not separator:
        with Path(uri).open("rb") as file:
            yield file
    elif scheme == "s3":
        import fsspec
        from botocore.exceptions import BotoCoreError

        try:
            # an instance of its own: a cached one keeps the endpoint and credentials it was made with
            with fsspec.open(uri, "rb", skip_instance_cache=True) as file:
                yield file
        except BotoCoreError as error:  # no credentials, no connection: not an OSError
            raise ReadError(f"{uri}: cannot be read: {error}") from error
    else:
        raise ReadError(f"{uri}: unknown scheme {scheme}://, expected a local path, s3:// or hf://")


def _decoded(uri: str, file: BinaryIO, compressed: bool) -> io.TextIOWrapper:
    import gzip

    raw: Any = gzip.GzipFile(fileobj=file) if compressed else file
    stream = io.BufferedReader(raw)
    if stream.peek(2)[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise ReadError(f"{uri}: is UTF-16, expected UTF-8")
    # Undecodable bytes become surrogates, to be found line by line; nothing but "\n" ends a line.
    return io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="\n")


def _txt_lines(name: str, text: Iterable[str]) -> Iterator[Record]:
    for number, line in enumerate(text, 1):
        line = line.removesuffix("\n").removesuffix("\r")
        yield _undecodable(f"{name}:{number}", line) or Record(f"{name}:{number}", {"prompt": line}, line)


def _json_lines(name: str, text: Iterable[str]) -> Iterator[Record]:
    for number, line in enumerate(text, 1):
        line = line.removesuffix("\n").removesuffix("\r")
        yield _undecodable(f"{name}:{number}", line) or _json_record(f"{name}:{number}", line)


def _json_record(source: str, line: str) -> Record:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Record(source, None, line, f"not JSON: {error}")
    if not isinstance(fields, dict):
        return Record(source, None, line, f"a JSON {type(fields).__name__}, expected an object")
    if "\\ud" in line.lower() and not _encodable(json.dumps(fields, ensure_ascii=False)):
        return Record(source, None, line, "an escape of half a character (a lone surrogate), which is no text")
    return Record(source, fields, line)


def _csv_rows(name: str, text: Iterable[str]) -> Iterator[Record]:
    rows = csv.reader(text, strict=True)
    header = next(rows, [])
    if len(set(header)) < len(header):
        raise ReadError(f"{name}: two columns of one name in {', '.join(header)}")
    start = rows.line_num + 1
    for cells in rows:
        cells = cells or [""]  # an empty line is a row of one empty cell
        source, fields = f"{name}:{start}", dict(zip(header, cells, strict=False))
        line = json.dumps(cells, ensure_ascii=False)
        wrong = Record(source, None, line, f"{len(cells)} cells under {len(header)} columns (a comma without quotes?)")
        yield _undecodable(source, line) or (Record(source, fields) if len(cells) == len(header) else wrong)
        start = rows.line_num + 1


def _parquet_rows(name: str, file: BinaryIO) -> Iterator[Record]:
    import pyarrow.parquet as pq

    batches = pq.ParquetFile(file).iter_batches(batch_size=1024)
    rows = (fields for batch in batches for fields in batch.to_pylist())
    yield from (Record(f"{name}:{row}", fields) for row, fields in enumerate(rows, 1))


def _undecodable(source: str, line: str) -> Record | None:
    if _encodable(line):
        return None
    shown = line.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return Record(source, None, shown, "bytes that are not UTF-8")


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
