"""`./solon constitution diff`: what an amendment changes and which rows it touches."""

import difflib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from flows.commands.console import JsonOption, StoreOption, console, open_store, print_json

if TYPE_CHECKING:
    from constitutions import Constitution, Principle
    from constitutions.diff import ConstitutionDiff, PhaseDiff, PrincipleChange
    from tasks.lineage.amendment import RowsTouched
    from tasks.store import Store

    RowsByPhase = dict[str, list[RowsTouched]]

DIFFERENT = 3

SideArgument = Annotated[str, typer.Argument(help="A YAML file; with --store also a version or tag of constitutions.")]
RoundsOption = Annotated[int, typer.Option("--rounds", min=1, help="Critique rounds of a chain.")]
ExitCodeOption = Annotated[bool, typer.Option("--exit-code", help=f"End with {DIFFERENT} if the two differ.")]


def diff(
    old: SideArgument,
    new: SideArgument,
    store: StoreOption = None,
    rounds: RoundsOption = 4,
    as_json: JsonOption = False,
    exit_code: ExitCodeOption = False,
) -> None:
    """Say what an amendment changes, and which share of rows it touches; with --store also which rows there are."""
    from constitutions.diff import diff_constitutions

    opened = open_store(store) if store is not None else None
    before, after = read_side(old, opened), read_side(new, opened)
    found = diff_constitutions(before, after)
    rows = rows_by_phase(opened, found, before, after) if opened else None
    if as_json:
        print_json(as_document(found, rounds, rows))
    else:
        show(found, rounds, rows)
    if exit_code and not found.same:
        raise typer.Exit(DIFFERENT)


def read_side(name: str, store: "Store | None") -> "Constitution":
    """A constitution from a file, or from the store where there is no such file."""
    from constitutions import load_constitution
    from tasks.constitution import read_constitution

    if store is None or Path(name).exists():
        return load_constitution(name)
    return read_constitution(store, store.resolve("constitutions", name).dataset_ref())


def rows_by_phase(store: "Store", found: "ConstitutionDiff", old: "Constitution", new: "Constitution") -> "RowsByPhase":
    """What the amendment touches of the newest versions of each phase that it moves and that were made under `old`."""
    from tasks.lineage.amendment import newest_under, rows_touched

    moved = [phase.phase for phase in found.phases if phase.moved]
    return {
        phase: [rows_touched(store, m, old, new, phase) for m in newest_under(store, old, phase)] for phase in moved
    }


def as_document(found: "ConstitutionDiff", rounds: int, rows: "RowsByPhase | None") -> dict[str, Any]:
    """The difference as one JSON document."""
    phases = {}
    for phase in found.phases:
        chains = phase.phase == "revision"
        phases[phase.phase] = {
            **phase.model_dump(mode="json", exclude={"phase"}),
            "reworded_principles": [change.id for change in found.reworded(phase.phase)],
            "rounds": rounds if chains else None,
            "chains_touched": phase.chains_touched(rounds) if chains else None,
            "rows_made_anew": phase.rows_touched(rounds) if chains else phase.touched,
            "store": [found.model_dump(mode="json") for found in rows.get(phase.phase, [])]
            if rows is not None
            else None,
        }
    groups = {
        name: [c.id for c in getattr(found, name)] for name in ("renamed", "reweighted", "reclustered", "switched")
    }
    return {"same": found.same, **found.model_dump(mode="json", exclude={"phases"}), **groups, "phases": phases}


def show(found: "ConstitutionDiff", rounds: int, rows: "RowsByPhase | None") -> None:
    console.print(f"{found.old_hash[:12]} -> {found.new_hash[:12]}", highlight=False)
    if found.same:
        console.print("no difference")
        return
    for field in found.header:
        console.print(Text(f"{field.name}: ").append_text(words(field.old, field.new)))
    if found.added or found.removed or found.changed:
        console.print(changes_table(found))
    show_texts(found)
    console.print(phases_table(found, rounds, rows))


def changes_table(found: "ConstitutionDiff") -> Table:
    """A line for each principle that is not as it was."""
    table = Table("principle", "change", title="Principles")
    for principle in found.added:
        table.add_row(principle.id, f"added, {settings_of(principle)}")
    for principle in found.removed:
        table.add_row(principle.id, f"removed, {settings_of(principle)}")
    for change in found.changed:
        name = f"{change.old_id} -> {change.id}" if change.renamed else change.id
        table.add_row(Text(name), Text("; ".join(said(change))))
    return table


def settings_of(principle: "Principle") -> str:
    return f"cluster {principle.cluster}, weight {principle.weight:g}{'' if principle.enabled else ', disabled'}"


def said(change: "PrincipleChange") -> list[str]:
    """What changed, in words."""
    from constitutions.phases import PHASE_TEXTS

    told = ["renamed: its draws move as a new principle's"] if change.renamed else []
    told += [f"reworded ({phase})" for phase, names in PHASE_TEXTS.items() if change.changed(*names)]
    texts = [name for names in PHASE_TEXTS.values() for name in names]
    for field in (field for field in change.fields if field.name not in texts):
        if field.name == "enabled":
            told.append("enabled" if field.new else "disabled")
        else:
            name = {"weight": "reweighted", "cluster": "re-clustered"}.get(field.name, field.name.replace("_", " "))
            told.append(f"{name} {field.old if field.old is not None else 'none'} -> {field.new}")
    return told


def show_texts(found: "ConstitutionDiff") -> None:
    """Every text that changed, word by word."""
    from constitutions.phases import PHASE_TEXTS

    texts = [name for names in PHASE_TEXTS.values() for name in names]
    shown = [(c.id, f.name, f.old, f.new) for c in found.changed for f in c.fields if f.name in texts]
    shown += [(p.id, name, None, getattr(p, name)) for p in found.added for name in texts if getattr(p, name)]
    for name, field, old, new in shown:
        console.print(Text(f"\n{name}  {field.replace('_', ' ')}", style="bold"))
        console.print(words(old, new))
    if shown:
        console.print()


def words(old: Any, new: Any) -> Text:
    """Both texts as one: `[-what was-]`, `{+what is+}`, the rest in both."""
    before, after = (re.findall(r"\s*\S+", "" if text is None else str(text)) for text in (old, new))
    text = Text()
    for kind, a, b, c, d in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        gone, come = "".join(before[a:b]), "".join(after[c:d])
        if kind == "equal":
            text.append(come)
            continue
        for piece, left, right, style in ((gone, "[-", "-]", "red strike"), (come, "{+", "+}", "green")):
            space = piece[: len(piece) - len(piece.lstrip())]
            text.append(space)
            text.append(f"{left}{piece.strip()}{right}" if piece else "", style=style)
    return text


def phases_table(found: "ConstitutionDiff", rounds: int, rows: "RowsByPhase | None") -> Table:
    """What the amendment means for each phase's rows: expected shares, and the rows there are."""
    table = Table("phase", "principles", "its slice", "draws touched", f"chains of {rounds}", "rows made anew")
    table.title = "Draws and rows (shares are expected values)"
    if rows is not None:
        table.add_column("in the store, of its newest version under OLD")
    for phase in found.phases:
        cells = phase_cells(phase, rounds)
        table.add_row(*cells, *([] if rows is None else [stored(phase, rows.get(phase.phase, []))]))
    for phase in found.phases:
        if phase.phase == "comparison" and phase.asked_of_all:
            table.caption = f"and every comparison is asked anew about {', '.join(phase.asked_of_all)}"
    return table


def phase_cells(phase: "PhaseDiff", rounds: int) -> list[str]:
    before, after = phase.num_principles
    chains = phase.phase == "revision"
    return [
        phase.phase,
        f"{before}" if before == after else f"{before} -> {after}",
        "moved" if phase.moved else "as it was",
        f"{phase.touched:.2%}",
        f"{phase.chains_touched(rounds):.2%}" if chains else "",
        f"{phase.rows_touched(rounds) if chains else phase.touched:.2%}",
    ]


def stored(phase: "PhaseDiff", versions: "list[RowsTouched]") -> str:
    if not phase.moved:
        return "none touched"
    return "\n".join(stored_rows(rows) for rows in versions) or "no version under OLD"


def stored_rows(rows: "RowsTouched") -> str:
    shown = f"{rows.key[: rows.key.rindex('/') + 11]}: {rows.touched} of {rows.rows} rows touched"
    if rows.chains is not None:
        return f"{shown}, {rows.following} more follow one; {rows.chains_touched} of {rows.chains} chains"
    return shown if rows.made_anew == rows.touched else f"{shown}, {rows.made_anew} to be made"
