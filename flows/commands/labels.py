"""`./solon labels`: what people make of the labels. Export the least certain ones, import answers, compare."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from flows.commands.console import JsonOption, StoreOption, console, open_store, print_json

if TYPE_CHECKING:
    from tasks.preference.agreement import HumanAgreement, Judged, PairAgreement
    from tasks.preference.label_sets import LabelSets
    from tasks.store import Store

labels_app = typer.Typer(
    help="Send uncertain labels to people, read their answers, see how far evaluators agree.", no_args_is_help=True
)

VersionOption = Annotated[str | None, typer.Option("--version", help="A version or tag of labels; else the newest.")]
UncertainOption = Annotated[int, typer.Option("--uncertain", min=1, help="How many of the least certain comparisons.")]
ToOption = Annotated[Path, typer.Option("--to", help="The CSV file to write; it must not be there yet.")]
SeedOption = Annotated[int, typer.Option("--seed", help="Decides which completion people see first.")]
FileArgument = Annotated[Path, typer.Argument(help="A file that `export` wrote, with the column `better` filled in.")]


@labels_app.command()
def export(
    to: ToOption,
    uncertain: UncertainOption = 100,
    version: VersionOption = None,
    seed: SeedOption = 0,
    store: StoreOption = None,
) -> None:
    """Write the least certain comparisons as a table for people, the nearest to 0.5 first."""
    from tasks.constitution import read_constitution
    from tasks.preference.label_sets import label_sets
    from tasks.preference.sheet import order_for, questions_by_id, sheet_cells, write_sheet
    from tasks.preference.uncertain import least_certain

    opened = open_store(store)
    sets = label_sets(opened, version)
    questions = questions_by_id(read_constitution(opened, sets.constitution))
    found = least_certain(sets.read(opened), uncertain, seed)
    lines = [
        sheet_cells(
            item.prompt,
            item.comparison,
            item.principle_id,
            questions[item.principle_id][0],
            order_for(item.comparison.row_id, seed),
            sets.version,
        )
        for item in found
    ]
    write_sheet(to, lines)
    console.print(f"{to}: {len(lines)} of {sets.comparisons.rows} comparisons, judged by {', '.join(sets.labels)}")
    console.print("write a, b or tie into the column `better`, then: ./solon labels import FILE")


@labels_app.command("import")
def import_answers(file: FileArgument, store: StoreOption = None) -> None:
    """Check every line of a filled-in table and keep the answers as a version of human_labels."""
    from tasks.human_labels import HumanLabelsStage
    from tasks.preference.label_sets import label_sets
    from tasks.preference.sheet import SheetError, read_sheet
    from tasks.schema import DatasetRef
    from tasks.stage import RunContext, Session

    lines = read_sheet(file)
    versions = sorted({line.cells["labels_version"] for line in lines})
    if len(versions) != 1:
        raise SheetError(
            f"{file.name}, column labels_version: {', '.join(versions) or 'no line'}; expected one version"
        )
    opened = open_store(store)
    sets = label_sets(opened, versions[0])
    stage = HumanLabelsStage(
        run=RunContext(store=opened.uri),
        prompts=sets.prompts,
        comparisons=sets.comparisons,
        constitution=sets.constitution,
        file=str(file),
    )
    ref = stage.result(opened) or stage.make(Session(opened))
    assert isinstance(ref, DatasetRef)
    counts = opened.manifest_of(ref).metrics
    console.print(
        f"human_labels {ref.version[:12]}: {counts['answered']} answers; {counts['empty']} of {counts['lines']} lines "
        "are not answered"
    )


@labels_app.command()
def agreement(version: VersionOption = None, as_json: JsonOption = False, store: StoreOption = None) -> None:
    """Say how far evaluators agree with people, under each principle, and with each other."""
    from tasks.preference.agreement import human_agreement, jury_agreement, jury_kappa
    from tasks.preference.label_sets import label_sets

    opened = open_store(store)
    sets = label_sets(opened, version)
    answers, judged, num_people = gather(opened, sets)
    people, pairs = human_agreement(judged), jury_agreement(answers)
    num_all, kappa = jury_kappa(answers)
    if as_json:
        jury = {"num": num_all, "kappa": kappa, "pairs": [pair._asdict() for pair in pairs]}
        print_json({"num_human_labels": num_people, "people": [row._asdict() for row in people], "jury": jury})
        return
    console.print(people_table(people))
    if not people:
        console.print(
            f"{num_people} human labels of these comparisons: `./solon labels export` makes a table for people"
        )
    console.print(pairs_table(pairs))
    if kappa is not None:
        console.print(f"Fleiss' kappa of all {len(sets.labels)} evaluators, {num_all} comparisons: {kappa:.3f}")


def gather(store: "Store", sets: "LabelSets") -> "tuple[dict[str, dict[str, float]], list[Judged], int]":
    """The answers of each evaluator, those that people gave an answer to as well, and how many people gave."""
    from tasks.human_labels import read_people
    from tasks.preference.agreement import answers_of, judged_by_people

    people = read_people(store, sets.comparisons)
    answers: dict[str, dict[str, float]] = {}
    judged: list[Judged] = []
    for _, comparison, labels in sets.read(store):
        answers |= answers_of(labels)
        judged += judged_by_people(labels, people.get(comparison.row_id, []))
    return answers, judged, sum(len(rows) for rows in people.values())


def people_table(rows: "Sequence[HumanAgreement]") -> Table:
    """A line for each evaluator and principle."""
    table = Table("evaluator", "principle", "n", "agreement [95 %]", "kappa", title="Evaluators and people")
    for row in rows:
        share = f"{row.agreement:.3f} [{row.low:.2f}, {row.high:.2f}]"
        table.add_row(Text(row.evaluator), Text(row.principle_id), str(row.num), share, shown(row.kappa))
    return table


def pairs_table(rows: "Sequence[PairAgreement]") -> Table:
    table = Table("evaluator", "evaluator", "n", "agreement", "Cohen's kappa", title="Evaluators among themselves")
    for row in rows:
        table.add_row(Text(row.first), Text(row.second), str(row.num), f"{row.agreement:.3f}", shown(row.kappa))
    return table


def shown(kappa: float | None) -> str:
    return "" if kappa is None else f"{kappa:.3f}"
