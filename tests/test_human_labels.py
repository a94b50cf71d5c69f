"""The table that people fill in: what is written, what is read back, and what is refused."""

import csv
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.human_labels import HumanLabel, HumanLabelsStage, check_answers, read_people
from tasks.labelling.questions import Questionnaire
from tasks.preference.sheet import (
    COLUMNS,
    Line,
    SheetError,
    bare,
    guarded,
    order_for,
    questions_by_id,
    read_sheet,
    sheet_cells,
    write_sheet,
)
from tasks.preference.uncertain import least_certain
from tasks.schema import Comparison, Prompt
from tasks.stage import RunContext, Session
from tests.judged_rows import ASK, both, comparison, label
from tests.worlds import commit, commit_constitution, constitution_of, open_store, rows_of

CONSTITUTION = constitution_of("one", "two")
QUESTIONS = questions_by_id(CONSTITUTION)
PAIRS = [
    comparison(0),
    comparison(1, completion_a="=1+1", completion_b='a "b",\r\n;c'),
    comparison(2, completion_b="@x"),
]
ASKED = {made.row_id: (ASK, made) for made in PAIRS}


def cells(number: int, order: str = "ab", better: str = "", **fields: str) -> dict[str, str]:
    made = PAIRS[number]
    line = sheet_cells(ASK, made, "one", QUESTIONS["one"][0], order, "v1")  # type: ignore[arg-type]
    return line | {"better": better} | fields


def lines_of(*rows: dict[str, str]) -> list[Line]:
    return [Line(number, row) for number, row in enumerate(rows, start=2)]


def answers(*rows: dict[str, str]) -> list[HumanLabel]:
    return check_answers("f.csv", lines_of(*rows), ASKED, QUESTIONS)


def refused(*rows: dict[str, str]) -> str:
    with pytest.raises(SheetError) as error:
        answers(*rows)
    return str(error.value)


# --- the file -----------------------------------------------------------------------------------------------------


def test_sheet_is_read_as_it_was_written(tmp_path):
    rows = [cells(0), cells(1, "ba"), cells(2)]
    write_sheet(tmp_path / "f.csv", rows)
    found = read_sheet(tmp_path / "f.csv")
    assert [line.cells for line in found] == rows
    assert [line.number for line in found] == [2, 3, 5]  # the second comparison holds a line end


@given(st.text(st.sampled_from("=+-@\t\r'x"), max_size=5))
def test_sheet_formulas_are_guarded_and_come_back(text):
    assert bare(guarded(text)) == text
    assert guarded(text)[:1] not in ("=", "+", "-", "@", "\t", "\r")


def test_sheet_holds_no_cell_that_a_spreadsheet_would_run(tmp_path):
    write_sheet(tmp_path / "f.csv", [cells(1), cells(2)])
    with (tmp_path / "f.csv").open(encoding="utf-8-sig", newline="") as file:
        found = [cell for row in csv.reader(file) for cell in row]
    assert "'=1+1" in found and "'@x" in found
    assert not [cell for cell in found if cell.startswith(("=", "+", "-", "@"))]


def test_sheet_is_never_written_over(tmp_path):
    write_sheet(tmp_path / "f.csv", [cells(0)])
    with pytest.raises(SheetError, match="is there already and may hold answers"):
        write_sheet(tmp_path / "f.csv", [])
    assert len(read_sheet(tmp_path / "f.csv")) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (";".join(COLUMNS), "choose commas"),
        (",".join(COLUMNS[1:]), "the columns are question"),
        (",".join([*COLUMNS, "better"]), "once each"),
        ("", "the columns are none"),
        (",".join(COLUMNS) + "\na,b", "f.csv:2: 2 cells under 9 columns"),
        (",".join(COLUMNS) + '\n"a', "f.csv:2: unexpected end of data"),
    ],
)
def test_sheet_that_is_no_such_table_is_refused(tmp_path, text, said):
    (tmp_path / "f.csv").write_text(text)
    with pytest.raises(SheetError, match=said):
        read_sheet(tmp_path / "f.csv")


def test_sheet_in_another_encoding_is_refused(tmp_path):
    (tmp_path / "f.csv").write_bytes(",".join(COLUMNS).encode() + b"\n\xe4")
    with pytest.raises(SheetError, match="save it as CSV in UTF-8"):
        read_sheet(tmp_path / "f.csv")


def test_sheet_may_have_more_columns_and_empty_lines(tmp_path):
    row = cells(0, better="a")
    header = ",".join([*COLUMNS, "note"])
    text = ",".join(f'"{row[name]}"' for name in COLUMNS)
    (tmp_path / "f.csv").write_text(f"{header}\n\n{text},mine\n")
    (line,) = read_sheet(tmp_path / "f.csv")
    assert line.number == 3 and line.cells["note"] == "mine" and line.cells["better"] == "a"


def test_sides_are_shown_in_an_order_drawn_by_the_seed():
    orders = [order_for(f"p/{i}", 0) for i in range(400)]
    assert 150 < orders.count("ab") < 250
    assert orders == [order_for(f"p/{i}", 0) for i in range(400)] != [order_for(f"p/{i}", 1) for i in range(400)]
    assert cells(0, "ba")["completion_a"] == "text B"


def test_question_of_the_whole_constitution_is_the_one_that_was_asked():
    principles = CONSTITUTION.comparison_principles()
    (slot,) = Questionnaire(principles, (), "soft", None, 1, False, 7).slots("p/0")
    assert QUESTIONS["all"] == (slot.text, slot.principle_hash)
    assert QUESTIONS["one"] == ("Which is better under one?", principles[0].comparison_hash)


# --- answers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "better", "expected"),
    [("ab", "a", "a"), ("ab", "b", "b"), ("ba", "a", "b"), ("ba", "B ", "a"), ("ba", "tie", "tie")],
)
def test_answer_names_the_completion_whichever_letter_it_wore(order, better, expected):
    (row,) = answers(cells(0, order, better))
    assert (row.better, row.order, row.comparison_id, row.principle_id) == (expected, order, "p/0", "one")
    assert (row.comparison_hash, row.principle_hash) == ("h0", QUESTIONS["one"][1])


def test_answer_line_without_one_is_left_out():
    assert [row.comparison_id for row in answers(cells(0), cells(1, better="b"), cells(2))] == ["p/1"]
    assert "none of 2 lines is answered" in refused(cells(0), cells(1, better="  "))


def test_answer_line_ends_that_a_spreadsheet_rewrote_are_no_change():
    row = cells(1, better="a")
    assert answers(row | {"completion_b": row["completion_b"].replace("\r\n", "\n")})


@pytest.mark.parametrize("column", ["question", "prompt", "completion_a", "completion_b"])
def test_answer_to_a_changed_text_is_refused_by_line_and_column(column):
    row = cells(1, better="a")
    said = refused(cells(0, better="a"), row | {column: row[column] + "!"})
    assert said == f"f.csv:3, column {column}: the text is not the one that was exported; restore the cell"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"better": "c"}, "f.csv:3, column better: 'c', expected a, b, tie or nothing"),
        ({"comparison_id": "p/9"}, "f.csv:3, column comparison_id: 'p/9' is not one of this export"),
        ({"principle_id": "three"}, "f.csv:3, column principle_id: 'three' is not one of this export"),
        ({"principle_id": "two"}, "f.csv:3, column question: the text is not"),
        ({"order": "ba"}, "f.csv:3, column completion_a: the text is not"),
        ({"order": ""}, "f.csv:3, column order: '' is not one of this export"),
    ],
)
def test_answer_line_that_is_not_as_exported_is_refused(fields, said):
    assert said in refused(cells(0, better="a"), cells(1, better="a") | fields)


def test_answer_twice_to_one_question_is_refused():
    assert "f.csv:3, column comparison_id: 'p/0' is on line 2 too" in refused(
        cells(0, better="a"), cells(0, better="b")
    )


def test_answer_unanswered_line_is_checked_too():
    assert "column prompt" in refused(cells(0, better="a"), cells(1, prompt="another"))


def test_answers_all_problems_are_told_up_to_ten():
    said = refused(*[cells(0, better="?", comparison_id=f"x/{i}") for i in range(8)])
    assert len(said.splitlines()) == 11 and said.endswith("and 6 more")


# --- which comparisons --------------------------------------------------------------------------------------------


def labelled(*label_sets: list) -> list[tuple[Prompt, Comparison, list]]:
    return [
        (ASK, comparison(i), [row.model_copy(update={"comparison_id": f"p/{i}"}) for row in rows])
        for i, rows in enumerate(label_sets)
    ]


def ids(found: list) -> list[str]:
    return [item.comparison.row_id for item in found]


def test_least_certain_come_first_and_failed_ones_not_at_all():
    failed = [label(o, None, status="failed", reason="x") for o in ("ab", "ba")]
    found = least_certain(labelled(both(0.9, 0.9), both(0.4, 0.5), failed, both(0.99, 0.11)), 3, 0)
    assert ids(found) == ["p/1", "p/3", "p/0"] or ids(found) == ["p/3", "p/1", "p/0"]
    assert [item.margin for item in found] == pytest.approx([0.05, 0.05, 0.4])


def test_least_certain_a_contradiction_or_a_split_jury_is_uncertain():
    contradicts = [*both(0.9, 0.9, form="reasoned", contradicts=True)]
    split = [*both(0.95, 0.95), *both(0.05, 0.05, evaluator="strict")]
    assert set(ids(least_certain(labelled(both(0.55, 0.55), contradicts, split), 2, 0))) == {"p/1", "p/2"}


def test_least_certain_equals_are_drawn_by_the_seed():
    same = labelled(*[both(0.6, 0.6)] * 30)
    assert ids(least_certain(same, 5, 0)) == ids(least_certain(same, 5, 0)) != ids(least_certain(same, 5, 1))


# --- the stage ----------------------------------------------------------------------------------------------------


class World:
    def __init__(self, folder: Path) -> None:
        self.folder, self.store = folder, open_store(folder / "store")
        self.given: dict[str, Any] = {
            "prompts": commit(self.store, "prompts", [ASK], Prompt),
            "comparisons": commit(self.store, "comparisons", PAIRS, Comparison),
            "constitution": commit_constitution(self.store, CONSTITUTION),
        }
        read = rows_of(self.store, self.given["comparisons"], Comparison)
        assert [row.row_id for row in read] == list(ASKED)

    def stage(self, name: str, *rows: dict[str, str]) -> HumanLabelsStage:
        write_sheet(self.folder / name, rows)
        return HumanLabelsStage(run=RunContext(), file=str(self.folder / name), **self.given)


def test_stage_keeps_answers_and_counts_what_was_not_answered(tmp_path):
    world = World(tmp_path)
    ref = world.stage("f.csv", cells(0, better="a"), cells(1), cells(2, "ba", "a")).make(Session(world.store))
    rows = rows_of(world.store, ref, HumanLabel)
    assert [(row.row_id, row.better) for row in rows] == [("p/0/one", "a"), ("p/2/one", "b")]
    assert world.store.manifest_of(ref).metrics == {"lines": 3, "answered": 2, "empty": 1}
    stored = {row.row_id: row.row_hash for row in rows_of(world.store, world.given["comparisons"], Comparison)}
    assert [row.comparison_hash for row in rows] == [stored["p/0"], stored["p/2"]]


def test_stage_content_is_the_identity_and_the_name_is_not(tmp_path):
    world = World(tmp_path)
    one = world.stage("f.csv", cells(0, better="a"), cells(1)).derivation(world.store).version
    moved = world.stage("g.csv", cells(1), cells(0, better="a")).derivation(world.store).version
    other = world.stage("h.csv", cells(0, better="b"), cells(1)).derivation(world.store).version
    assert one == moved != other


def test_people_s_newest_answer_to_a_question_counts(tmp_path):
    world = World(tmp_path)
    world.stage("f.csv", cells(0, better="a"), cells(1, better="b")).make(Session(world.store))
    world.stage("g.csv", cells(0, better="tie")).make(Session(world.store))
    found = read_people(world.store, world.given["comparisons"])
    assert {name: [row.better for row in rows] for name, rows in found.items()} == {"p/0": ["tie"], "p/1": ["b"]}
    others = commit(world.store, "comparisons", PAIRS[:1], Comparison)
    assert read_people(world.store, others) == {}
