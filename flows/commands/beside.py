"""`./solon beside`: two runs side by side, such as before and after an amendment."""

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.console import StoreOption, console, open_store

BeforeArgument = Annotated[str, typer.Argument(help="A version of `report`, or the first characters of one, or a tag.")]
AfterArgument = Annotated[str, typer.Argument(help="Likewise, of the run to compare with it.")]
HtmlOption = Annotated[Path, typer.Option("--html", help="The page to write.")]


def beside(
    before: BeforeArgument, after: AfterArgument, html: HtmlOption = Path("beside.html"), store: StoreOption = None
) -> None:
    """Write a page with two runs side by side: measures, frontiers, principles, and what their policies say."""
    from tasks.report.beside import answer, changes_of, read_side, render

    opened = open_store(store)
    old, new = (read_side(opened, opened.resolve("report", name)) for name in (before, after))
    html.write_text(render(old, new), encoding="utf-8")
    console.print(answer(old, new, changes_of(old, new)))
    console.print(f"page: {html}")
