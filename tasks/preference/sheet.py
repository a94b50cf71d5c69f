"""The table that people fill in: a CSV file with one comparison a line, and an empty cell for what they prefer.

A cell that a spreadsheet would run as a formula gets an apostrophe in front, which is taken off again on import.
"""

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from constitutions import Constitution
from tasks.labelling.questions import Questionnaire
from tasks.prompts import transcript
from tasks.schema import Comparison, Order, Prompt
from tasks.store.identity import digest

COLUMNS = (
    "better", "question", "prompt", "completion_a", "completion_b", "comparison_id", "principle_id", "order",
    "labels_version",
)  # fmt: skip
TEXTS = ("question", "prompt", "completion_a", "completion_b")
"""The columns that must come back as they were."""
MAX_SHOWN = 10
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_GUARDED = re.compile(r"'+[=+\-@\t\r]")


class SheetError(ValueError):
    """A file that does not hold what was exported; names the line and column."""


class Line(NamedTuple):
    """One line of the table as read; `number` is where it begins in the file."""

    number: int
    cells: dict[str, str]


class Problem(NamedTuple):
    """What is wrong with a line, and in which column."""

    line: int
    column: str
    said: str


def expect_as_exported(name: str, lines: Sequence[Line], problems: Iterable[Problem]) -> list[Line]:
    """The lines that are answered; an empty `better` is no answer.

    Raises: SheetError: names line and column of the problems, or says that nothing is answered.
    """
    found = sorted(problems)
    if found:
        shown = [f"{name}:{p.line}, column {p.column}: {p.said}" for p in found[:MAX_SHOWN]]
        more = len(found) - len(shown)
        raise SheetError("\n".join([*shown, f"and {more} more"] if more else shown))
    answered = [line for line in lines if given(line)]
    if not answered:
        raise SheetError(f"{name}: none of {len(lines)} lines is answered; write a, b or tie into the column better")
    return answered


def duplicates(lines: Sequence[Line], *columns: str) -> Iterable[Problem]:
    """Lines that say the same in these columns as one before."""
    first: dict[tuple[str, ...], int] = {}
    for line in lines:
        key = tuple(line.cells[column] for column in columns)
        earlier = first.setdefault(key, line.number)
        if earlier != line.number:
            yield Problem(line.number, columns[0], f"{key[0]!r} is on line {earlier} too; leave one of them")


def given(line: Line) -> str:
    """What was written into `better`."""
    return line.cells["better"].strip().lower()


def unknown_answer(line: Line) -> Iterable[Problem]:
    if given(line) not in ("", "a", "b", "tie"):
        yield Problem(line.number, "better", f"{line.cells['better']!r}, expected a, b, tie or nothing")


def sheet_cells(
    prompt: Prompt, comparison: Comparison, principle_id: str, question: str, order: Order, labels_version: str
) -> dict[str, str]:
    """What a line says, with an empty `better`; order `ba` shows the second completion as `a`."""
    sides = [comparison.completion_a or "", comparison.completion_b or ""]
    first, second = sides if order == "ab" else sides[::-1]
    cells = ("", question, transcript(prompt.messages), first, second, comparison.row_id, principle_id, order)
    return dict(zip(COLUMNS, (*cells, labels_version), strict=True))


def order_for(comparison_id: str, seed: int) -> Order:
    """Which completion people see first: by chance, so that a habit of theirs does not count for one side."""
    return "ab" if int(digest(["order", seed, comparison_id])[:8], 16) % 2 == 0 else "ba"


def questions_by_id(constitution: Constitution) -> dict[str, tuple[str, str]]:
    """(question, its hash) by principle id, `all` for the whole constitution at once."""
    principles = constitution.comparison_principles()
    everything = Questionnaire(principles, (), "soft", None, 1, False, 0).slots("")[0]
    asked = {p.id: (p.comparison_question or "", p.comparison_hash) for p in principles}
    return {everything.principle_id: (everything.text, everything.principle_hash)} | asked


def write_sheet(path: Path, lines: Sequence[Mapping[str, str]], columns: Sequence[str] = COLUMNS) -> None:
    """Raises: SheetError: the file is there; it may hold answers."""
    if path.exists():
        raise SheetError(f"{path}: is there already and may hold answers; name another file")
    with path.open("x", encoding="utf-8-sig", newline="") as file:  # the mark tells spreadsheets that it is UTF-8
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows({name: guarded(cell) for name, cell in line.items()} for line in lines)


def read_sheet(path: Path, columns: Sequence[str] = COLUMNS) -> list[Line]:
    """The lines of a table, in order, empty ones left out.

    Raises: SheetError: not UTF-8, a column is missing or named twice, a line has too many or too few cells.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return read_lines(path.name, file, columns)
    except UnicodeDecodeError as error:
        raise SheetError(f"{path.name}: {error}; save it as CSV in UTF-8") from error


def read_lines(name: str, file: Iterable[str], columns: Sequence[str]) -> list[Line]:
    reader = csv.reader(file, strict=True)
    lines: list[Line] = []
    try:
        header = next(reader, [])
        check_header(name, header, columns)
        number = reader.line_num + 1
        for cells in reader:
            if any(cells) and len(cells) != len(header):
                raise SheetError(f"{name}:{number}: {len(cells)} cells under {len(header)} columns")
            if any(cells):
                lines.append(Line(number, {key: bare(cell) for key, cell in zip(header, cells, strict=True)}))
            number = reader.line_num + 1
    except csv.Error as error:
        raise SheetError(f"{name}:{reader.line_num}: {error}") from error
    return lines


def check_header(name: str, header: Sequence[str], columns: Sequence[str]) -> None:
    missing = [column for column in columns if column not in header]
    if missing or len(set(header)) < len(header):
        raise SheetError(
            f"{name}:1: the columns are {', '.join(header) or 'none'}; expected {', '.join(columns)} once each, "
            "separated by commas (some spreadsheets save with semicolons: choose commas)"
        )


def guarded(cell: str) -> str:
    return f"'{cell}" if _FORMULA.match(cell) else cell


def bare(cell: str) -> str:
    return cell[1:] if _GUARDED.match(cell) else cell


def same_text(cell: str, text: str) -> bool:
    """Up to line ends, which spreadsheets rewrite."""
    return re.sub(r"\r\n?", "\n", cell) == re.sub(r"\r\n?", "\n", text)
