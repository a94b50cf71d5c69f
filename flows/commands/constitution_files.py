"""`./solon constitution check`, `import` and `export`: what a file says, what is wrong with it, and other formats."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from flows.commands.console import JsonOption, console, print_json

if TYPE_CHECKING:
    from constitutions import Constitution
    from constitutions.lint import Finding

FEW = 4  # ids in one line
STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}

StrictOption = Annotated[bool, typer.Option("--strict", help="End with 1 on warnings too.")]
RowsOption = Annotated[
    int, typer.Option("--rows", min=1, help="Draws of a phase, by which principles count as reachable.")
]
FormatOption = Annotated[str, typer.Option("--format", help="auto, anthropic, llm-swarm or lines.")]
OutputOption = Annotated[Path, typer.Option("--output", "-o", help="The new file; one that is there is left alone.")]
FolderOption = Annotated[Path, typer.Option("--output", "-o", help="Folder for the paper's files; none is replaced.")]
NameOption = Annotated[str | None, typer.Option("--id", help="Id of the new constitution; else from the file's name.")]


def check(path: str, rows: RowsOption = 1000, strict: StrictOption = False, as_json: JsonOption = False) -> None:
    """Read a constitution; print its principles and findings. Ends with 1 on errors, with --strict on warnings."""
    from constitutions import load_constitution
    from constitutions.lint import lint

    constitution = load_constitution(path)
    findings = lint(constitution, rows)
    if as_json:
        print_json(as_document(constitution, findings))
    else:
        console.print(principles_table(constitution))
        show_findings(findings)
    if any(f.level == "error" or (strict and f.level == "warning") for f in findings):
        raise typer.Exit(1)


def as_document(constitution: "Constitution", findings: "tuple[Finding, ...]") -> dict[str, Any]:
    levels = [finding.level for finding in findings]
    return {
        "id": constitution.id,
        "hash": constitution.hash,
        "principles": {p.id: p.hash for p in constitution.principles},
        "errors": levels.count("error"),
        "warnings": levels.count("warning"),
        "notes": levels.count("note"),
        "findings": [finding.model_dump(mode="json") for finding in findings],
    }


def principles_table(constitution: "Constitution") -> Table:
    table = Table(title=f"{constitution.id}  {constitution.hash[:12]}")
    for column in ("principle", "cluster", "weight", "critique", "comparison", "hash"):
        table.add_column(column)
    for p in constitution.principles:
        phases = ["yes" if text else "" for text in (p.critique_request, p.comparison_question)]
        table.add_row(p.id, Text(p.cluster), f"{p.weight:g}", *phases, p.hash[:12])
    return table


def show_findings(findings: "tuple[Finding, ...]") -> None:
    """Each finding with what to do, then how many of each level."""
    for finding in findings:
        line = Text(f"{finding.level}: ", style=STYLES[finding.level])
        line.append(f"{finding.code}: ", style="bold")
        line.append(some(finding.principles), style="default")
        line.append(f"{finding.message}; {finding.advice}", style="default")
        console.print(line)
    levels: list[str] = [finding.level for finding in findings]
    counts = [f"{levels.count(level)} {level}{'' if levels.count(level) == 1 else 's'}" for level in STYLES]
    console.print(", ".join(counts), highlight=False)


def some(ids: tuple[str, ...]) -> str:
    """The first few, and how many more; --json has them all."""
    more = f" and {len(ids) - FEW} more" if len(ids) > FEW else ""
    return f"{', '.join(ids[:FEW])}{more}: " if ids else ""


def import_files(
    paths: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="A file; or the paper's files, or their folder.")
    ],
    output: OutputOption,
    format: FormatOption = "auto",
    name: NameOption = None,
) -> None:
    """Write a constitution out of the paper's files, llm-swarm's JSON or plain lines; nothing is dropped unsaid."""
    from constitutions import ConstitutionError, load_constitution
    from constitutions.importers import import_constitution, yaml_text
    from constitutions.importers.naming import slug
    from constitutions.lint import lint

    expect_free(output)
    found = import_constitution(paths, format, name or slug(output.stem))
    comments = (f"Imported by ./solon constitution import --format {found.format}.", *found.notes)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(yaml_text(found.constitution, output.parent.resolve(), comments), encoding="utf-8")
    if load_constitution(output) != found.constitution:
        raise ConstitutionError(f"{output}: reads back as another constitution than was imported; please report this")
    console.print(Text(f"{output}: format {found.format}, {len(found.constitution.principles)} principles"))
    for note in found.notes:
        console.print(Text(f"  {note}"))
    show_findings(lint(found.constitution))


def export_files(path: str, output: FolderOption) -> None:
    """Write a constitution that came from the paper's files back as those files."""
    from constitutions import load_constitution
    from constitutions.importers import export_anthropic

    files = export_anthropic(load_constitution(path))
    for name in files:
        expect_free(output / name)
    output.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (output / name).write_bytes(data)
        console.print(Text(f"{output / name}: {len(data)} bytes"))


def expect_free(path: Path) -> None:
    from constitutions import ConstitutionError

    if path.exists():
        raise ConstitutionError(f"{path}: is there already, expected a new name; remove it first if it may go")
