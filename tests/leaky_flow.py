"""A flow that gives away what it is told, in every way that a flow has: the control of `test_secrets.py`."""

from pathlib import Path

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.events import emit_event

from tasks.store import Store
from tests.small_versions import commit, completions

CHANNELS = ("parameter", "log", "print", "artifact", "event", "row", "file", "error")
"""Each is given the word with its own name after it, so that the search has to find every one of them."""


@flow(name="leaky", log_prints=True)
def leaky(word: str, store: str) -> None:
    get_run_logger().info("%s-log", word)
    print(f"{word}-print")
    create_markdown_artifact(f"{word}-artifact", key="leak")
    emit_event("leak", resource={"prefect.resource.id": "solon.leak"}, payload={"word": f"{word}-event"})
    commit(Store.open(store), completions([f"{word}-row"]))
    path = Path(".solon/reports/leak.html")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{word}-file")
    raise RuntimeError(f"{word}-error")
