"""What people prefer, where the AI labels were least certain: the slice that labels are calibrated against.

*Reads* a table that `./solon labels export` wrote and people filled in, `prompts`, `comparisons`, the constitution.
*Writes* `human_labels`. A line that is not as it was exported is an error: an answer to another text misleads.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from tasks.constitution import read_constitution
from tasks.preference.sheet import (
    TEXTS,
    Line,
    Problem,
    duplicates,
    expect_as_exported,
    questions_by_id,
    read_sheet,
    same_text,
    sheet_cells,
    unknown_answer,
)
from tasks.prompt_rows import beside_prompts, read_prompts, read_rows
from tasks.schema import Comparison, DatasetRef, Order, Prompt, Row
from tasks.stage import Session, Stage
from tasks.store import Store
from tasks.store.identity import content_hash, digest, rows_to_table

BETTER: dict[tuple[str, Order], Literal["a", "b", "tie"]] = {
    ("a", "ab"): "a", ("b", "ab"): "b", ("tie", "ab"): "tie",
    ("a", "ba"): "b", ("b", "ba"): "a", ("tie", "ba"): "tie",
}  # fmt: skip
"""By what was written and the order that was shown."""


class HumanLabel(Row):
    """`human_labels`: what a person prefers of one comparison under one principle."""

    prompt_id: str
    comparison_id: str
    comparison_hash: str
    """`row_hash` of the comparison: which texts it was."""
    principle_id: str
    principle_hash: str
    order: Order
    """Which completion the person saw first."""
    better: Literal["a", "b", "tie"]
    """Whichever letter it wore."""


class HumanLabelsStage(Stage):
    """The answers of one table, each checked against what was asked."""

    stage: ClassVar[str] = "human_labels"
    dataset: ClassVar[str] = "human_labels"
    code_version: ClassVar[int] = 1
    cheap: ClassVar[bool] = True

    prompts: DatasetRef
    comparisons: DatasetRef
    constitution: DatasetRef
    file: str

    def extra_identity(self, store: Store) -> dict[str, Any]:
        lines = read_sheet(Path(self.file))  # where the file lies and what it is called changes nothing
        return {"answers": content_hash(digest([sorted(line.cells.items())]) for line in lines)}

    def constitution_slice(self, store: Store) -> str:
        return read_constitution(store, self.constitution).questions_slice()

    def make(self, session: Session) -> DatasetRef:
        store, lines = session.store, read_sheet(Path(self.file))
        questions = questions_by_id(read_constitution(store, self.constitution))
        answers = check_answers(Path(self.file).name, lines, self.asked(store, lines), questions)
        metrics = {"lines": len(lines), "answered": len(answers), "empty": len(lines) - len(answers)}
        return store.commit_rows(self.derivation(store), rows_to_table(answers, HumanLabel), metrics=metrics, cost={})

    def asked(self, store: Store, lines: Sequence[Line]) -> dict[str, tuple[Prompt, Comparison]]:
        """The comparisons that the table speaks of, by id."""
        wanted = {line.cells["comparison_id"] for line in lines}
        comparisons = read_rows(store, self.comparisons, Comparison)
        pairs = beside_prompts(read_prompts(store, self.prompts, "train"), comparisons)
        return {comparison.row_id: (prompt, comparison) for prompt, comparison in pairs if comparison.row_id in wanted}


def read_people(store: Store, comparisons: DatasetRef) -> dict[str, list[HumanLabel]]:
    """Everything people said about these comparisons, by comparison; their newest answer to a question counts."""
    name = f"{comparisons.dataset}/{comparisons.version}"
    made = [m for m in store.versions("human_labels") if m.derivation.cites.get("comparisons") == name]
    newest = {row.row_id: row for m in made for row in read_rows(store, m.dataset_ref(), HumanLabel)}
    found: dict[str, list[HumanLabel]] = defaultdict(list)
    for row in newest.values():
        found[row.comparison_id].append(row)
    return found


def check_answers(
    name: str,
    lines: Sequence[Line],
    asked: Mapping[str, tuple[Prompt, Comparison]],
    questions: Mapping[str, tuple[str, str]],
) -> list[HumanLabel]:
    """The answered lines, in order; a line with an empty `better` is not answered. `asked` is by comparison id,
    `questions` has (question, hash) by principle id.

    Raises: SheetError: names line and column of whatever is not as exported, or says that nothing is answered.
    """
    problems = (p for line in lines for p in problems_of(line, asked, questions))
    answered = expect_as_exported(name, lines, [*duplicates(lines, "comparison_id", "principle_id"), *problems])
    return [human_label(line.cells, asked[line.cells["comparison_id"]][1], questions) for line in answered]


def problems_of(
    line: Line, asked: Mapping[str, tuple[Prompt, Comparison]], questions: Mapping[str, tuple[str, str]]
) -> Iterable[Problem]:
    """What is wrong with one line by itself."""
    cells = line.cells
    yield from unknown_answer(line)
    known = {"comparison_id": asked, "principle_id": questions, "order": ("ab", "ba")}
    unknown = [column for column, names in known.items() if cells[column] not in names]
    for column in unknown:
        yield Problem(line.number, column, f"{cells[column]!r} is not one of this export; restore the cell")
    if unknown:
        return
    prompt, comparison = asked[cells["comparison_id"]]
    question, _ = questions[cells["principle_id"]]
    order: Order = "ab" if cells["order"] == "ab" else "ba"
    exported = sheet_cells(prompt, comparison, cells["principle_id"], question, order, cells["labels_version"])
    for column in TEXTS:
        if not same_text(cells[column], exported[column]):
            yield Problem(line.number, column, "the text is not the one that was exported; restore the cell")


def human_label(
    cells: Mapping[str, str], comparison: Comparison, questions: Mapping[str, tuple[str, str]]
) -> HumanLabel:
    principle_id, principle_hash = cells["principle_id"], questions[cells["principle_id"]][1]
    order: Order = "ab" if cells["order"] == "ab" else "ba"
    better = BETTER[cells["better"].strip().lower(), order]
    return HumanLabel(
        row_id=f"{comparison.row_id}/{principle_id}",
        reuse_key=digest([comparison.row_hash, principle_hash, order, better]),
        prompt_id=comparison.prompt_id,
        comparison_id=comparison.row_id,
        comparison_hash=comparison.row_hash,
        principle_id=principle_id,
        principle_hash=principle_hash,
        order=order,
        better=better,
    )
