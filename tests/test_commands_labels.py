"""`./solon labels` as typed: a table for people, their answers back, and how far everybody agrees."""

import csv
import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
import typer
from typer.testing import CliRunner, Result

from flows.commands.labels import labels_app
from tasks.human_labels import HumanLabel
from tasks.preference.sheet import SheetError
from tasks.schema import Comparison, DatasetRef, Label, Prompt
from tasks.stage import RunContext, Session, Stage
from tasks.store import StoreError
from tasks.store.identity import rows_to_table
from tests.judged_rows import ASK, both, comparison
from tests.worlds import commit, commit_constitution, constitution_of, open_store, rows_of

app = typer.Typer()
app.add_typer(labels_app, name="labels")

NUM = 20
PAIRS = [comparison(i, completion_a=f"first {i}", completion_b=f"second {i}") for i in range(NUM)]
CONSTITUTION = constitution_of("one", "two")
HASHES = {p.id: p.comparison_hash for p in CONSTITUTION.comparison_principles()}


def labels_by(evaluator: str, probs: list[float]) -> list[Label]:
    rows = []
    for number, p in enumerate(probs):
        name = "one" if number % 2 else "two"
        common = {"principle_id": name, "principle_hash": HASHES[name], "comparison_id": f"p/{number}"}
        rows += both(p, p, evaluator=evaluator, **common)
    return rows


class Judge(Stage):
    """Labels as the label stage would have made them."""

    stage: ClassVar[str] = "label"
    dataset: ClassVar[str] = "labels"
    code_version: ClassVar[int] = 2

    prompts: DatasetRef
    comparisons: DatasetRef
    constitution: DatasetRef
    evaluator: str
    probs: list[float]

    def extra_identity(self, store: Any) -> dict[str, Any]:
        return {"evaluator": self.evaluator, "probs": self.probs}

    def make(self, session: Session) -> DatasetRef:
        table = rows_to_table(labels_by(self.evaluator, self.probs), Label)
        return session.store.commit_rows(self.derivation(session.store), table, metrics={}, cost={})


PROBS = [0.5 + 0.02 * (i + 1) for i in range(NUM)]  # p/0 is the least certain


class World:
    """A store with twenty comparisons and two evaluators, who differ on the first five."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.uri = folder, str(folder / "store")
        self.store = open_store(folder / "store")
        self.given: dict[str, Any] = {
            "prompts": commit(self.store, "prompts", [ASK], Prompt),
            "comparisons": commit(self.store, "comparisons", PAIRS, Comparison),
            "constitution": commit_constitution(self.store, CONSTITUTION),
        }
        self.judge("feedback", PROBS)
        self.judge("strict", [1 - p if i < 5 else p for i, p in enumerate(PROBS)])

    def judge(self, evaluator: str, probs: list[float]) -> DatasetRef:
        stage = Judge(run=RunContext(), evaluator=evaluator, probs=probs, **self.given)
        return stage.make(Session(self.store))

    def result(self, *words: str) -> Result:
        return CliRunner().invoke(app, ["labels", *words, "--store", self.uri])

    def run(self, *words: str) -> str:
        result = self.result(*words)
        assert result.exit_code == 0, (result.output, result.exception)
        return result.output

    def exported(self, name: str, *words: str) -> list[dict[str, str]]:
        self.run("export", "--to", str(self.folder / name), *words)
        return read(self.folder / name)

    def answered(self, name: str, answer: dict[str, str]) -> Path:
        """A file like the exported one, with these answers by comparison, in terms of completion_a and completion_b."""
        lines, path = read(self.folder / name), self.folder / f"answered-{len(list(self.folder.iterdir()))}.csv"
        for line in lines:
            wanted = answer.get(line["comparison_id"], "")
            swapped = {"a": "b", "b": "a"} if line["order"] == "ba" else {}
            line["better"] = swapped.get(wanted, wanted)
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(lines[0]))
            writer.writeheader()
            writer.writerows(lines)
        return path


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_export_writes_the_least_certain_with_an_empty_column_to_fill_in(world):
    lines = world.exported("f.csv", "--uncertain", "7")
    assert {line["comparison_id"] for line in lines[:5]} == {f"p/{i}" for i in range(5)}  # the two differ there
    assert [line["comparison_id"] for line in lines[5:]] == ["p/5", "p/6"]
    assert {line["better"] for line in lines} == {""}
    for line in lines:
        sides = [line["completion_a"], line["completion_b"]]
        number = line["comparison_id"].partition("/")[2]
        assert (sides if line["order"] == "ab" else sides[::-1]) == [f"first {number}", f"second {number}"]
        assert line["question"] == f"Which is better under {'one' if int(number) % 2 else 'two'}?"
        assert line["prompt"] == "Human: ask"


def test_export_never_writes_over_answers(world):
    world.exported("f.csv")
    again = world.result("export", "--to", str(world.folder / "f.csv"))
    assert isinstance(again.exception, SheetError) and "name another file" in str(again.exception)


def test_import_keeps_what_people_said_of_the_completions(world):
    world.exported("f.csv", "--uncertain", "10")
    file = world.answered("f.csv", {"p/0": "a", "p/1": "b", "p/2": "tie"})
    said = world.run("import", str(file))
    assert "3 answers; 7 of 10 lines are not answered" in " ".join(said.split())
    (made,) = world.store.versions("human_labels")
    rows = {row.comparison_id: row.better for row in rows_of(world.store, made.dataset_ref(), HumanLabel)}
    assert rows == {"p/0": "a", "p/1": "b", "p/2": "tie"}
    world.run("import", str(file))
    assert len(world.store.versions("human_labels")) == 1


def test_import_of_a_changed_file_is_an_error_and_keeps_nothing(world):
    world.exported("f.csv", "--uncertain", "10")
    file = world.answered("f.csv", {"p/0": "a"})
    file.write_text(file.read_text().replace("first 0", "first 1"))
    result = world.result("import", str(file))
    assert isinstance(result.exception, SheetError) and ", column completion_" in str(result.exception)
    assert world.store.versions("human_labels") == []


def test_import_of_two_exports_in_one_file_is_refused(world):
    world.exported("f.csv", "--uncertain", "2")
    file = world.answered("f.csv", {"p/0": "a"})
    version = read(file)[0]["labels_version"]
    file.write_text(file.read_text().replace(version, "0" * 64, 1))
    result = world.result("import", str(file))
    assert isinstance(result.exception, SheetError) and "expected one version" in str(result.exception)


def test_agreement_is_by_evaluator_and_principle_and_between_evaluators(world):
    world.exported("f.csv", "--uncertain", "20")
    world.run("import", str(world.answered("f.csv", {f"p/{i}": "a" for i in range(10)})))
    found = json.loads(world.run("agreement", "--json"))
    shares = {(row["evaluator"], row["principle_id"]): (row["num"], row["agreement"]) for row in found["people"]}
    assert shares == {
        ("feedback", "all principles"): (10, 1.0), ("feedback", "one"): (5, 1.0), ("feedback", "two"): (5, 1.0),
        ("strict", "all principles"): (10, 0.5), ("strict", "one"): (5, 0.6), ("strict", "two"): (5, 0.4),
    }  # fmt: skip
    (pair,) = found["jury"]["pairs"]
    assert (pair["first"], pair["second"], pair["num"], pair["agreement"]) == ("feedback", "strict", 20, 0.75)
    assert found["num_human_labels"] == 10


def test_agreement_table_is_readable(world):
    world.exported("f.csv", "--uncertain", "20")
    world.run("import", str(world.answered("f.csv", {f"p/{i}": "ab"[i % 2] for i in range(10)})))
    said = world.run("agreement")
    assert "Evaluators and people" in said and "0.500 [0.00, 1.00]" in said and "Evaluators among themselves" in said
    assert "0.750" in said and "Fleiss" in said


def test_agreement_without_people_says_how_to_ask_them(world):
    assert "0 human labels of these comparisons: `./solon labels export`" in " ".join(world.run("agreement").split())


def test_labels_version_names_its_evaluator_s_set_and_the_newest_of_the_others(world):
    old = world.store.versions("labels")[0]
    world.judge("feedback", [1 - p for p in PROBS])
    shares = {
        name: json.loads(world.run("agreement", "--json", *words))["jury"]["pairs"][0]["agreement"]
        for name, words in {"newest": (), "old": ("--version", old.version)}.items()
    }
    assert shares == {"newest": 0.25, "old": 0.75}


def test_labels_of_other_comparisons_are_not_mixed_in(world):
    world.given["comparisons"] = commit(world.store, "comparisons", PAIRS[:10], Comparison)
    world.judge("third", PROBS[:10])
    found = json.loads(world.run("agreement", "--json"))
    assert found["jury"] == {"num": 10, "kappa": None, "pairs": []}


def test_labels_commands_without_any_labels_say_what_to_run(tmp_path):
    store = open_store(tmp_path / "empty")
    result = CliRunner().invoke(app, ["labels", "agreement", "--store", store.uri])
    assert isinstance(result.exception, StoreError) and "no labels to show" in str(result.exception)
