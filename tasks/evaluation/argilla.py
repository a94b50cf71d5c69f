"""Bouts as records of Argilla 2, and people's answers from the file that its `dataset.records.to_json` writes."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from tasks.preference.sheet import TEXTS, Line, SheetError

QUESTION = "better"
"""Name of the dataset's question, whose answers are a, b and tie."""


class Answer(BaseModel):
    """What one person chose."""

    value: str


class Record(BaseModel):
    """The parts of a record that are read; others are Argilla's own."""

    id: str
    fields: dict[str, str]
    metadata: dict[str, str]
    responses: dict[str, list[Answer]] = {}


def argilla_record(cells: Mapping[str, str]) -> dict[str, Any]:
    """A line of the table for people as a record: fields to show, metadata; the question is `better`."""
    fields = {name: cells[name] for name in TEXTS}
    return {"id": cells["match_id"], "fields": fields, "metadata": {name: cells[name] for name in ("why", "order")}}


def read_argilla(path: Path) -> list[Line]:
    """The records as lines of the table for people; `number` is a record's place in the file.

    Raises: SheetError: not JSON, or a record is not as it was exported; names the record and the field.
    """
    try:
        records = TypeAdapter(list[Record]).validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part + 1 if isinstance(part, int) else part) for part in first["loc"])
        raise SheetError(
            f"{path.name}: {f'record {where}: ' if where else ''}{first['msg']}; expected the records that "
            "`dataset.records.to_json` of Argilla 2 writes"
        ) from error
    return [Line(number, cells_of(path.name, number, record)) for number, record in enumerate(records, start=1)]


def cells_of(name: str, number: int, record: Record) -> dict[str, str]:
    expected = {"fields": TEXTS, "metadata": ("why", "order")}
    missing = [f"{part}.{key}" for part, keys in expected.items() for key in keys if key not in getattr(record, part)]
    if missing:
        raise SheetError(f"{name}: record {number} ({record.id}) has no {', '.join(missing)}; export the bouts anew")
    answers = [answer.value for answer in record.responses.get(QUESTION, [])]
    texts = {key: record.fields[key] for key in TEXTS}
    metadata = {key: record.metadata[key] for key in ("why", "order")}
    return {QUESTION: agreed(answers), **texts, **metadata, "match_id": record.id}


def agreed(answers: Sequence[str]) -> str:
    """What most people chose of one record, a tie where as many chose otherwise; nothing where nobody did."""
    counts = Counter(answers).most_common(2)
    if not counts:
        return ""
    return "tie" if len(counts) == 2 and counts[0][1] == counts[1][1] else counts[0][0]


def dump_records(lines: Sequence[Mapping[str, str]]) -> str:
    """JSON lines, a record each."""
    return "".join(json.dumps(argilla_record(line), ensure_ascii=False) + "\n" for line in lines)
