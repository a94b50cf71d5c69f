"""`./solon datasets` and `./solon doctor`: what the store holds, whether it is whole, whether its place is fit."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from flows.commands.console import JsonOption, StoreOption, console, open_store, print_json
from flows.commands.garbage import gc, tag
from flows.commands.tables import (
    bytes_text,
    checks_table,
    diff_tables,
    facts_table,
    files_table,
    findings_table,
    problems_table,
    rows_table,
    summaries_table,
    summary,
)

if TYPE_CHECKING:
    from tasks.schema import DatasetRef
    from tasks.store import Manifest, Store
    from tasks.store.verify import Progress, VersionCheck

datasets_app = typer.Typer(
    help="What the store holds. NAME is a tag, a version, or the first characters of one.", no_args_is_help=True
)
datasets_app.command("gc")(gc)
datasets_app.command("tag")(tag)

MaybeDataset = Annotated[str | None, typer.Argument(help="A dataset, or `models/<name>`; all where it is left out.")]
MaybeName = Annotated[str | None, typer.Argument(metavar="[NAME]", help="All versions where it is left out.")]
RowsOption = Annotated[int, typer.Option("--rows", "-n", min=0, help="Rows to show.")]
WidthOption = Annotated[int, typer.Option("--width", "-w", min=10, help="Characters of a text to show.")]
ExamplesOption = Annotated[int, typer.Option("--examples", "-n", min=0, help="Rows of each kind to show.")]
ExitCodeOption = Annotated[bool, typer.Option("--exit-code", help="End with 1 if the versions differ.")]


@datasets_app.command("ls")
def list_versions(dataset: MaybeDataset = None, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """List every committed version with its tags, rows and how they ended, bytes and seconds."""
    opened = open_store(store)
    listed = []
    for name in [dataset] if dataset else opened.datasets():
        tags = tags_of(opened, name)
        listed += [summary(manifest, tags) for manifest in opened.versions(name)]
    if as_json:
        print_json(listed)
    else:
        console.print(summaries_table(listed))


@datasets_app.command()
def show(
    dataset: str,
    name: str,
    store: StoreOption = None,
    rows: RowsOption = 2,
    width: WidthOption = 200,
    as_json: JsonOption = False,
) -> None:
    """Show one version: how it was made, of what and at what cost, its columns and its first rows."""
    opened = open_store(store)
    manifest = opened.resolve(dataset, name)
    tags = tags_of(opened, dataset).get(manifest.version, [])
    if as_json:
        print_json(json.loads(manifest.to_bytes()) | {"tags": tags})
        return
    console.print(facts_table(manifest, tags))
    if manifest.kind == "model":
        console.print(files_table(manifest))
    else:
        tables = opened.read_tables(manifest.dataset_ref()) if rows else []
        console.print(rows_table(manifest, tables, rows, width))


@datasets_app.command()
def diff(
    dataset: str,
    old: str,
    new: str,
    store: StoreOption = None,
    examples: ExamplesOption = 3,
    width: WidthOption = 300,
    as_json: JsonOption = False,
    exit_code: ExitCodeOption = False,
) -> None:
    """Compare two versions row by row, joined on row_id: how many were added, removed and changed, and how."""
    from tasks.store.diff import diff_versions

    opened = open_store(store)
    before, after = (rows_ref(opened.resolve(dataset, name)) for name in (old, new))
    found = diff_versions(opened, before, after, num_examples=examples)
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        console.print(*diff_tables(found, width))
    if exit_code and found.added + found.removed + found.changed:
        raise typer.Exit(1)


@datasets_app.command()
def verify(
    dataset: MaybeDataset = None, name: MaybeName = None, store: StoreOption = None, as_json: JsonOption = False
) -> None:
    """Read every byte again and compare it with what was committed; end with 1 if anything is wrong."""
    opened = open_store(store)
    with Console(stderr=True).status("listing") as status:

        def progress(what: str, done: int, total: int) -> None:
            status.update(f"{what}: {bytes_text(done)} of {bytes_text(total)}")

        checks = list(run_checks(opened, dataset, name, progress))
    if as_json:
        print_json([check.model_dump(mode="json") for check in checks])
    else:
        console.print(checks_table(checks))
    broken = [check for check in checks if not check.intact]
    if broken and not as_json:
        console.print(problems_table(broken))
    if broken:
        raise typer.Exit(1)


def doctor(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Try out whether a place can be a store: access, create-if-absent, races, clock, checksums.

    Ends with 1 if a promise that the store rests on is broken.
    """
    from tasks.stage import RunContext
    from tasks.store.doctor import examine

    findings = examine(store or RunContext().store)
    if as_json:
        print_json([finding.model_dump() for finding in findings])
    else:
        console.print(findings_table(findings))
    if any(finding.outcome == "broken" for finding in findings):
        raise typer.Exit(1)


def tags_of(store: "Store", dataset: str) -> dict[str, list[str]]:
    """The tags of a dataset, by the version that each stands at."""
    found: dict[str, list[str]] = {}
    for name, found_tag in sorted(store.tags(dataset).items()):
        found.setdefault(found_tag.version, []).append(name)
    return found


def rows_ref(manifest: "Manifest") -> "DatasetRef":
    """Raises: ValueError: a model has no rows."""
    if manifest.kind == "model":
        raise ValueError(f"{manifest.dataset} {manifest.version} is a model: it has no rows to compare")
    return manifest.dataset_ref()


def run_checks(store: "Store", dataset: str | None, name: str | None, progress: "Progress") -> Iterator["VersionCheck"]:
    """One version, all of a dataset, or everything. A whole version id is checked though its manifest be damaged."""
    from tasks.store.tags import is_tag
    from tasks.store.verify import verify_store, verify_version

    if dataset is None or name is None:
        yield from verify_store(store, [dataset] if dataset else None, progress)
    else:
        version = store.resolve(dataset, name).version if is_tag(name) else name
        yield verify_version(store, dataset, version, progress)
