"""`./solon matches`: which comparisons of policies are worth a person's time."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.console import StoreOption, console, open_store

if TYPE_CHECKING:
    from tasks.evaluation.people import Chosen
    from tasks.schema import DatasetRef
    from tasks.store import Manifest, Store

matches_app = typer.Typer(help="Send comparisons of policies to people.", no_args_is_help=True)

VersionOption = Annotated[str | None, typer.Option("--version", help="A version or tag of matches; else the newest.")]
NumOption = Annotated[int, typer.Option("--num", "-n", min=1, help="How many comparisons.")]
ToOption = Annotated[Path, typer.Option("--to", help="The CSV file to write; it must not be there yet.")]
ArgillaOption = Annotated[Path | None, typer.Option("--argilla", help="Also write records for Argilla, JSON lines.")]
SeedOption = Annotated[int, typer.Option("--seed", help="Decides which completion people see first.")]


@matches_app.callback()
def matches() -> None:
    """A group, so that the command keeps its name."""


@matches_app.command()
def export(
    to: ToOption,
    num: NumOption = 100,
    argilla: ArgillaOption = None,
    version: VersionOption = None,
    seed: SeedOption = 0,
    store: StoreOption = None,
) -> None:
    """Write the bouts that a judge is least certain of, and those that decide the frontier, as a table for people."""
    from tasks.evaluation.argilla import dump_records
    from tasks.evaluation.bouts import MatchConfig, read_bouts
    from tasks.evaluation.people import COLUMNS, lines_for
    from tasks.preference.sheet import write_sheet

    opened = open_store(store)
    manifest = judged_matches(opened, version)
    config = MatchConfig.model_validate(manifest.derivation.config["config"])
    chosen = chosen_of(opened, manifest, num, seed)
    prompts, samples = inputs_of(opened, manifest)
    bouts = read_bouts(opened, prompts, samples, {each.match.row_id for each in chosen})
    lines = lines_for(chosen, bouts, config, seed)
    write_sheet(to, lines, COLUMNS)
    if argilla:
        argilla.write_text(dump_records(lines), encoding="utf-8")
    counts = {why: sum(each.why == why for each in chosen) for why in ("uncertain", "decisive")}
    told = ", ".join(f"{count} {why}" for why, count in counts.items())
    console.print(f"{to}: {len(lines)} of {manifest.rows} comparisons ({told})")
    console.print("write a, b or tie into the column `better`, then run again with --set match.people=FILE")


def judged_matches(store: "Store", version: str | None) -> "Manifest":
    """A version of matches that a model judged: the named one, or the newest.

    Raises: StoreError: there is none.
    """
    from tasks.store import StoreError

    if version:
        return store.resolve("matches", version)
    made = [m for m in store.versions("matches") if "model" in m.derivation.models]
    if not made:
        raise StoreError(f"{store.uri}: no matches that a model judged; run `./solon align` first")
    return max(made, key=lambda manifest: (manifest.created_at, manifest.version))


def inputs_of(store: "Store", manifest: "Manifest") -> tuple["DatasetRef", dict[str, "DatasetRef"]]:
    """The prompts and each policy's samples, in the order of training."""
    given = manifest.derivation.inputs

    def ref(dataset: str, role: str) -> "DatasetRef":
        return store.manifest(dataset, given[role].version).dataset_ref()

    policies: list[str] = manifest.derivation.config["policies"]
    return ref("prompts", "prompts"), {policy: ref("samples", f"samples.{policy}") for policy in policies}


def chosen_of(store: "Store", manifest: "Manifest", num: int, seed: int) -> "list[Chosen]":
    """The bouts that are worth a person's time."""
    from tasks.evaluation.bouts import KINDS, results_of
    from tasks.evaluation.elo import rate
    from tasks.evaluation.people import choose
    from tasks.schema import Match
    from tasks.store.identity import table_to_rows

    rows = table_to_rows(store.read(manifest.dataset_ref()), Match)
    policies: list[str] = manifest.derivation.config["policies"]
    return choose(rows, {kind: rate(results_of(rows, kind), policies) for kind in KINDS}, num, seed)
