"""`./solon constitution publish`: keep a copy, move its tag, show what that changes, and tell Prefect."""

import getpass
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from flows.commands.console import JsonOption, StoreOption, console, open_store, print_json
from flows.commands.constitution_diff import rows_by_phase, show
from flows.commands.constitution_files import show_findings

if TYPE_CHECKING:
    from constitutions import Constitution
    from tasks.publish import Published
    from tasks.store import Store

NoteOption = Annotated[str | None, typer.Option("--note", help="Why, in a few words; kept with the move of the tag.")]
AgainOption = Annotated[
    bool, typer.Option("--announce", help="Send the event of the newest move once more, should it have been lost.")
]


def publish(
    path: str,
    store: StoreOption = None,
    note: NoteOption = None,
    announce: AgainOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make a constitution the one that holds under its id: nothing moves where it is so already.

    Refused where `check` has errors. Ends with 1 if the tag was moved and Prefect could not be told.
    """
    from constitutions import load_constitution
    from tasks.publish import publish as publish_constitution

    constitution, opened = load_constitution(path), open_store(store)
    expect_no_errors(constitution, path)
    by = f"{getpass.getuser()}: {note}" if note else getpass.getuser()
    published = publish_constitution(opened, constitution, by)
    told, problem = tell(published, opened.uri) if published.moved or announce else ("no event: nothing moved", None)
    if as_json:
        print_json(as_document(published, told))
    else:
        show_published(published, opened)
        console.print(Text(told))
    if problem:
        raise typer.Exit(1)


def expect_no_errors(constitution: "Constitution", path: str) -> None:
    """Raises: ConstitutionError: lint found an error."""
    from constitutions import ConstitutionError
    from constitutions.lint import lint

    errors = tuple(finding for finding in lint(constitution) if finding.level == "error")
    if errors:
        show_findings(errors)
        raise ConstitutionError(
            f"{path}: not published, {len(errors)} errors; mend them, see ./solon constitution check"
        )


def tell(published: "Published", store: str) -> tuple[str, str | None]:
    """What became of the event, in words; and the problem, if there was one."""
    from flows.changes import EVENT, NotAnnounced, announce, configured_api, event_of

    url = configured_api()
    if url is None:
        return f"no event: no Prefect API is configured (PREFECT_API_URL), so nothing hears of {EVENT}", None
    try:
        announce(event_of(published, store))
    except NotAnnounced as error:
        return f"{error}; the tag has moved all the same: send it with --announce", str(error)
    return f"{EVENT} sent to {url}, move {published.move.sequence}", None


def as_document(published: "Published", told: str) -> dict[str, Any]:
    return {
        "constitution": published.constitution.id,
        "moved": published.moved,
        "sequence": published.move.sequence,
        "version": published.move.version,
        "hash": published.constitution.hash,
        "old_version": published.before_version,
        "old_hash": published.before.hash if published.before else None,
        "event": told,
    }


def show_published(published: "Published", store: "Store") -> None:
    """Old and new version; and what the change means, with the rows that it touches."""
    from constitutions.diff import diff_constitutions

    name, move = published.constitution.id, published.move
    if not published.moved:
        console.print(Text(f"{name}: unchanged, {move.version[:12]} since move {move.sequence} by {move.by}"))
        return
    old = published.before_version[:12] if published.before_version else "nothing"
    console.print(Text(f"{name}: {old} -> {move.version[:12]}, move {move.sequence} of its tag in {store.uri}"))
    if published.before:
        found = diff_constitutions(published.before, published.constitution)
        show(found, rounds=4, rows=rows_by_phase(store, found, published.before, published.constitution))
