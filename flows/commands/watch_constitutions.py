"""`./solon constitution watch`: publish a file, or each file of a folder or an `s3://` prefix, whenever it changes."""

import getpass
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from flows.commands.console import StoreOption, console, open_store
from flows.commands.publish import show_published, tell

if TYPE_CHECKING:
    from constitutions import Constitution
    from tasks.publish import Published
    from tasks.store import Store

    Found = dict[str, "Constitution | str"]
    """By name of the file: its constitution, or what is wrong with it."""

SETTLE_SECONDS = 1.0
"""A change counts once two looks this far apart find the same: a file that is being written is not whole."""

EveryOption = Annotated[float, typer.Option("--every", min=1, help="Seconds between two looks.")]


def watch(source: str, store: StoreOption = None, every: EveryOption = 5) -> None:
    """Publish a constitution file, or each *.yaml of a folder or s3://bucket/prefix, when it changes; until Ctrl-C.

    A broken file is refused with the reason, and what was published before holds. A store or a server that is away
    is waited for.
    """
    watcher = Watcher(open_store(store), getpass.getuser())
    console.print(Text(f"watching {source} every {every:g} s for {watcher.store.uri}; Ctrl-C ends it"))
    try:
        with tempfile.TemporaryDirectory() as scratch:
            look_on(watcher, open_source(source, Path(scratch)), every)
    except KeyboardInterrupt:
        console.print("stopped; what was published holds")


def look_on(watcher: "Watcher", look: "Callable[[], Found]", every: float) -> None:
    """Look, and publish what changed, again and again."""
    from tasks.store.errors import StoreError

    before: Found = {}
    while True:
        try:
            found = look()
            if found != before:
                time.sleep(SETTLE_SECONDS)
                before, found = found, look()
            if found == before:
                watcher.follow(found)
        except (StoreError, OSError) as error:
            watcher.say(f"{error}; trying again")
        time.sleep(every)


class Watcher:
    """Publishes what changed, says so once, and keeps trying to tell a server that is away."""

    def __init__(self, store: "Store", by: str) -> None:
        self.store, self.by = store, by
        self.seen: Found = {}
        self.untold: dict[str, Published] = {}
        self.said = ""

    def follow(self, found: "Found") -> None:
        """Publish each constitution that is not as it was seen last.

        Raises: StoreError: the store is away; what it did not get yet is tried again at the next look.
        """
        for name in [name for name in self.seen if name not in found]:
            del self.seen[name]
            self.say(f"{name}: is gone; what it published holds")
        for name, content in found.items():
            if self.seen.get(name) != content:
                self.take(name, content)
                self.seen[name] = content
        self.tell_again()

    def take(self, name: str, content: "Constitution | str") -> None:
        from tasks.publish import publish

        if isinstance(content, str):
            self.say(f"{content}\n{name}: not published; what was published before holds")
            return
        published = publish(self.store, content, f"{self.by}: {name}, watched")
        self.said = ""
        show_published(published, self.store)
        if published.moved:
            self.untold[content.id] = published

    def tell_again(self) -> None:
        """Send the events that did not arrive yet; of several moves of a constitution the newest is enough."""
        for name, published in list(self.untold.items()):
            told, problem = tell(published, self.store.uri)
            self.say(told)
            if not problem:
                del self.untold[name]

    def say(self, text: str) -> None:
        """Print, but not the same thing again at each look."""
        if text != self.said:
            console.print(Text(text))
        self.said = text


def open_source(source: str, scratch: Path) -> "Callable[[], Found]":
    """What looks at the source. Raises: ConstitutionError: no such file or folder. StoreError: no such address."""
    from constitutions import ConstitutionError

    if source.startswith("s3://"):
        return Mirror(source, scratch)
    path = Path(source)
    if not path.exists():
        raise ConstitutionError(f"{path}: no such file or folder; expected one, or s3://bucket/prefix")
    return lambda: read_all(path)


def read_all(path: Path) -> "Found":
    """The constitution of a file, or of each *.yaml of a folder; a text where it must not be published."""
    found = {file.name: read(file) for file in (sorted(path.glob("*.yaml")) if path.is_dir() else [path])}
    ids = Counter(content.id for content in found.values() if not isinstance(content, str))
    for name, content in found.items():
        if not isinstance(content, str) and ids[content.id] > 1:
            found[name] = f"{name}: {ids[content.id]} files have the id {content.id!r}; give each an id of its own"
    return found


def read(file: Path) -> "Constitution | str":
    """The constitution, or what is wrong with it: the reader's or the linter's words."""
    from constitutions import ConstitutionError, load_constitution
    from constitutions.lint import lint

    try:
        constitution = load_constitution(file)
        constitution.revision_principles(), constitution.comparison_principles()  # raise where there are none
    except ConstitutionError as error:
        return str(error)
    errors = [finding for finding in lint(constitution) if finding.level == "error"]
    lines = [f"{file.name}: {e.code}: {', '.join(e.principles)}: {e.message}; {e.advice}" for e in errors]
    return "\n".join(lines) or constitution


class Mirror:
    """The *.yaml files of an s3:// prefix, or one of them, read anew where the listing has changed."""

    def __init__(self, uri: str, scratch: Path) -> None:
        from tasks.store.backend import split_s3
        from tasks.store.s3 import S3Backend

        folder, _, name = uri.rpartition("/") if uri.endswith(".yaml") else (uri, "", "")
        self.backend = S3Backend(*split_s3(folder.removeprefix("s3://")))
        self.name, self.scratch = name, scratch
        self.listed: object = None
        self()  # a bucket that is not there, or not ours, is an error now

    def __call__(self) -> "Found":
        """Raises: StoreUnavailable."""
        entries = [e for e in self.backend.entries("") if e.key.endswith(".yaml") and "/" not in e.key]
        if entries != self.listed:
            for file in self.scratch.iterdir():
                file.unlink()
            for entry in entries:
                (self.scratch / entry.key).write_bytes(self.backend.get(entry.key))
            self.listed = entries
        return read_all(self.scratch / self.name if self.name else self.scratch)
