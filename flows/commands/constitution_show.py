"""`./solon constitution show`: a constitution to be read, by cluster; or one of its principles, whole."""

import difflib
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from flows.commands.console import JsonOption, console, print_json

if TYPE_CHECKING:
    from constitutions import ComparisonDemonstration, Constitution, Principle, RevisionDemonstration
    from constitutions.load import Loaded

PrincipleArgument = Annotated[str | None, typer.Argument(help="Id of a principle or demonstration, to be shown whole.")]
FIELDS = ("critique_request", "revision_request", "comparison_question")


def show(path: str, principle: PrincipleArgument = None, as_json: JsonOption = False) -> None:
    """Print a constitution by cluster, with expected shares of draws and where each principle comes from."""
    from constitutions import Principle
    from constitutions.load import load_with_origins

    loaded = load_with_origins(path)
    if principle is not None:
        found = named(loaded.constitution, principle)
        document = found.model_dump(mode="json") | {"hash": found.hash}
        if isinstance(found, Principle):
            document |= figures(loaded, found)
        print_json(document) if as_json else show_one(document)
    elif as_json:
        print_json(as_document(loaded))
    else:
        show_whole(loaded)


def named(constitution: "Constitution", name: str) -> "Principle | RevisionDemonstration | ComparisonDemonstration":
    """Raises: ConstitutionError: there is none of this id."""
    from constitutions import ConstitutionError

    known: dict[str, Principle | RevisionDemonstration | ComparisonDemonstration] = {}
    known.update({shown.id: shown for shown in constitution.revision_demonstrations})
    known.update({shown.id: shown for shown in constitution.comparison_demonstrations})
    known.update({principle.id: principle for principle in constitution.principles})
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3) or sorted(known)
        raise ConstitutionError(
            f"{constitution.id}: no principle or demonstration {name!r}; known are {', '.join(near)}"
        )
    return known[name]


def figures(loaded: "Loaded", principle: "Principle") -> dict[str, Any]:
    """What the file does not say of a principle: its shares, its file, the prose that it came from."""
    from constitutions.lint import draw_shares
    from constitutions.phases import PHASES

    shares = {phase: draw_shares(loaded.constitution, phase).get(principle.id) for phase in PHASES}
    sections = [s.id for s in loaded.constitution.sections if principle.id in s.principles]
    file = loaded.origins[principle.id].name
    return {"shares": shares, "file": file, "settings_changed": principle.id in loaded.changed, "sections": sections}


def as_document(loaded: "Loaded") -> dict[str, Any]:
    """The constitution with every field, and the figures of each principle."""
    constitution = loaded.constitution
    principles = [p.model_dump(mode="json") | {"hash": p.hash} | figures(loaded, p) for p in constitution.principles]
    document = constitution.model_dump(mode="json") | {"principles": principles}
    return document | {"hash": constitution.hash, "files": [file.name for file in loaded.files]}


def show_one(document: dict[str, Any]) -> None:
    """Every field that is given: settings on one line each, then the texts."""
    console.print(Text(document["id"], style="bold"))
    for name, value in document.items():
        if name == "id" or value in (None, [], ""):
            continue
        label, said = name.replace("_", " "), words(value)
        long = len(said) > 80 or "\n" in said
        console.print(Text(f"\n{label}\n" if long else f"{label}: ", style="cyan").append(said, style="default"))


def words(value: Any) -> str:
    """A value as a person reads it."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {percent(share)}" for key, share in value.items())
    if isinstance(value, list):
        return "\n\n".join(f"{v['role']}: {v['content']}" if isinstance(v, dict) else str(v) for v in value)
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def show_whole(loaded: "Loaded") -> None:
    constitution = loaded.constitution
    console.print(Text(f"{constitution.id}  {constitution.hash[:12]}", style="bold"))
    if len(loaded.files) > 1:
        console.print(Text(f"extends {', then '.join(file.name for file in loaded.files[1:])}"))
    for label, text in (("", constitution.title), ("", constitution.description), ("bias: ", constitution.bias_note)):
        if text:
            console.print(Text(f"{label}{text}\n"))
    described = {cluster.id: cluster for cluster in constitution.clusters}
    names = dict.fromkeys([*described, *(p.cluster for p in constitution.principles)])
    for name in names:
        inside = [p for p in constitution.principles if p.cluster == name]
        title = described[name].title if name in described else None
        console.print(cluster_table(loaded, f"{name}: {title}" if title else name, inside))
        if name in described and described[name].description:
            console.print(Text(f"{described[name].description}\n"))
    for section in constitution.sections:
        line = f"section {section.id}{f', {section.title}' if section.title else ''}, {len(section.text.split())} words"
        console.print(Text(f"{line}: {', '.join(section.principles) or 'no principle'}"))
    show_demonstrations(constitution)


def cluster_table(loaded: "Loaded", title: str, principles: "list[Principle]") -> Table:
    """A line for each principle, and the cluster's shares below."""
    table = Table("principle", "weight", "of revisions", "of comparisons", "source", "file", "")
    table.title, table.title_justify, table.show_footer = Text(title), "left", True
    whole = {"revision": 0.0, "comparison": 0.0}
    for p in principles:
        found = figures(loaded, p)
        whole = {phase: whole[phase] + (share or 0) for phase, share in found["shares"].items()}
        shares = [percent(share) for share in found["shares"].values()]
        file = found["file"] + (" (settings changed)" if found["settings_changed"] else "")
        table.add_row(p.id, f"{p.weight:g}", *shares, Text(p.source or ""), file, ", ".join(marks(p)))
    for column, share in zip(table.columns[2:4], whole.values(), strict=True):
        column.footer = percent(share)
    return table


def marks(principle: "Principle") -> list[str]:
    """What is unusual about it."""
    marked = ["hard constraint"] if principle.hard_constraint else []
    marked += [f"priority {principle.priority}"] if principle.priority else []
    return marked + ([] if principle.enabled else ["disabled"])


def show_demonstrations(constitution: "Constitution") -> None:
    """Ids only: their texts may be offensive, and `show FILE ID` prints one."""
    for shown in constitution.revision_demonstrations:
        change = "changes nothing" if shown.revision == shown.completion else "revises"
        console.print(Text(f"revision demonstration {shown.id}: {len(shown.prompt)} turns, {change}"))
    for compared in constitution.comparison_demonstrations:
        how = "with reasoning" if compared.reasoning else "without reasoning"
        question = "its own question" if compared.question else "a drawn question"
        console.print(Text(f"comparison demonstration {compared.id}: answer {compared.answer}, {how}, {question}"))


def percent(share: float | None) -> str:
    return "" if share is None else f"{share:.2%}"
