"""The state machine on the store as it is, and on four stores that break one rule each.

It must find fault with each of those; otherwise it would prove nothing about the first.
"""

import hashlib
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import Phase

from tasks.store import Manifest, Store, pins, rows, survey, tags
from tasks.store.identity import canonical_json
from tasks.store.manifest import Part
from tests.memory_backend import MemoryBackend
from tests.store_machine import StoreMachine, run


@pytest.fixture(autouse=True)
def names_are_random_again() -> Iterator[None]:
    random_names = uuid.uuid4
    yield
    uuid.uuid4 = random_names


def test_machine_the_store_keeps_its_promises() -> None:
    run(StoreMachine)


class OverwritingBackend(MemoryBackend):
    """Commits without a condition: of two writers the second one wins as well."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        if "/versions/" in key:
            self.put(key, [data])
            return True
        return super().put_if_absent(key, data)


class ManifestFirst:
    """Writers that publish, then write what they published."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.late: dict[int, list[tuple[str, bytes]]] = {}
        self.publish = Store._publish
        monkeypatch.setattr(rows, "put_file", self.put_later)
        monkeypatch.setattr(Store, "_publish", lambda store, manifest, attempt: self.first(store, manifest, attempt))

    def put_later(self, backend: Any, base: str, attempt: str, file: Any) -> Part:
        path, data = f"{attempt}/{file[0]}", b"".join(file[1])
        self.late.setdefault(id(backend), []).append((f"{base}/{path}", data))
        return Part(path=path, sha256=hashlib.sha256(data).hexdigest(), bytes=len(data), rows=file[2])

    def first(self, store: Store, manifest: Manifest, attempt: str) -> Manifest:
        published = self.publish(store, manifest, attempt)
        for key, data in self.late.pop(id(store.backend), []):
            store.backend.put(key, [data])
        return published


def no_pins(*arguments: Any) -> pins.LivePins:
    return pins.LivePins({}, frozenset(), ())


def append_by_overwriting(backend: Any, dataset: str, tag: str, version: str, by: str) -> tags.Tag:
    """A tag that is one file with its latest place."""
    entry = tags.Tag(tag=tag, version=version, sequence=1, by=by, at="")
    backend.put(tags._key(dataset, tag, 1), [canonical_json(entry.model_dump())])
    return entry


def unconditional_commit(monkeypatch: pytest.MonkeyPatch, machine: type[StoreMachine]) -> None:
    machine.make_place = OverwritingBackend


def gc_without_pins(monkeypatch: pytest.MonkeyPatch, machine: type[StoreMachine]) -> None:
    monkeypatch.setattr(survey, "read_pins", no_pins)


def manifest_before_data(monkeypatch: pytest.MonkeyPatch, machine: type[StoreMachine]) -> None:
    ManifestFirst(monkeypatch)


def tag_by_overwrite(monkeypatch: pytest.MonkeyPatch, machine: type[StoreMachine]) -> None:
    monkeypatch.setattr(tags, "append", append_by_overwriting)


@pytest.mark.parametrize(
    ("breaks", "complaint"),
    [
        (unconditional_commit, "a second winner"),
        (gc_without_pins, "removed|a tag stands at"),
        (manifest_before_data, "lacks a part"),
        (tag_by_overwrite, "the log of a tag was rewritten"),
    ],
)
def test_machine_finds_fault_with_a_store_that_breaks_a_rule(
    breaks: Callable[[pytest.MonkeyPatch, type[StoreMachine]], None], complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Mutant(StoreMachine):
        """The machine on the broken store."""

        examples = 0

    breaks(monkeypatch, Mutant)
    with pytest.raises(Exception, match=complaint):
        run(Mutant, phases=(Phase.generate,), max_examples=600)
    print(f"\n{breaks.__name__}: found in example {Mutant.examples}")
