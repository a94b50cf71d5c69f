"""Writers, taggers, readers and gc on one store, interleaved one operation at a time, killed and stalled anywhere.

Hypothesis chooses everything: who acts, for how many operations, who dies before or after one, how far the clock goes.
The same machine must find fault with stores that break one rule each; otherwise it would prove nothing.
"""

import functools
import hashlib
import itertools
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tasks.store import Manifest, NotCommitted, Store, StoreError
from tasks.store import fates, gc, keys, pins, rows, survey, tags
from tasks.store.identity import canonical_json
from tasks.store.manifest import Part, parse_manifest
from tasks.store.retention import DAY_SECONDS, Retention
from tests.memory_backend import Actor, Killed, MemoryBackend
from tests.small_versions import completions, derivation

DATASET, TAG = "completions", "prod"
GRACE_SECONDS = 10.0
DERIVATIONS = [derivation(seed=seed) for seed in range(2)]
VERSIONS = [made_by.version for made_by in DERIVATIONS]
TABLES = [completions([f"text {number}"]) for number in range(2)]
WHO, WHICH, TEXT = st.integers(0, 4), st.integers(0, 1), st.integers(0, 1)
FAR = st.integers(0, 30)
"""Operations that an actor does in a row; gc takes about forty."""
MAX_ACTORS = 5
SETTINGS = settings(
    max_examples=150, stateful_step_count=40, deadline=None, derandomize=True, database=None,
    suppress_health_check=list(HealthCheck), report_multiple_bugs=False,
)  # fmt: skip


@dataclass
class Role:
    """What an actor is there for."""

    kind: str
    version: str = ""
    stalled: bool = False
    """Its pins were not renewed for a while: its process stood still, and may go on later."""
    held: Manifest | None = None
    """What a reader found after holding it, until it lets go."""


@dataclass(frozen=True)
class Found:
    """A version that anybody who looks now would find."""

    generation: int
    modified: float
    manifest: Manifest


class StoreMachine(RuleBasedStateMachine):
    """One store, five actors at most at a time."""

    make_place: ClassVar[Callable[[], MemoryBackend]] = MemoryBackend
    examples: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).examples += 1
        number_names()
        self.place = self.make_place()
        self.actors: list[tuple[Actor, Role]] = []
        self.acknowledged: dict[tuple[str, int], Manifest] = {}
        self.committed_at: dict[tuple[str, int], float] = {}
        self.log: list[bytes] = []
        self.moves: list[tags.Tag] = []

    @initialize(
        newest=st.sampled_from([0, 0, 1]), kept_seconds=st.sampled_from([0.0, 0.0, 3.0]), num_versions=st.integers(0, 2)
    )
    def begin(self, newest: int, kept_seconds: float, num_versions: int) -> None:
        self.kept_seconds = kept_seconds
        self.retention = Retention(newest=newest, days=kept_seconds / DAY_SECONDS, reuse_days=0)
        for which in range(num_versions):
            self.writer_enters(which, 0, 1000)
        self.time_passes(1.0)

    def teardown(self) -> None:
        for actor, _ in self.actors:
            actor.kill("before")

    def enter(self, role: Role, far: int, work: Callable[[Store], Any]) -> None:
        self.actors.append((Actor(self.place, work), role))
        self.act(len(self.actors) - 1, far)

    def has_room(self) -> bool:
        return len(self.actors) < MAX_ACTORS

    def has_actors(self) -> bool:
        return bool(self.actors)

    @precondition(has_room)
    @rule(which=WHICH, text=TEXT, far=FAR)
    def writer_enters(self, which: int, text: int, far: int) -> None:
        self.enter(Role("writer", VERSIONS[which]), far, lambda store: commit(store, which, text))

    @precondition(has_room)
    @rule(which=WHICH, far=FAR)
    def tagger_enters(self, which: int, far: int) -> None:
        self.enter(Role("tagger", VERSIONS[which]), far, lambda store: store.tag(DATASET, TAG, VERSIONS[which]))

    @precondition(has_room)
    @rule(which=WHICH, far=FAR)
    def reader_enters(self, which: int, far: int) -> None:
        role = Role("reader", VERSIONS[which])
        self.enter(role, far, lambda store: hold_and_read(store, role))

    @precondition(has_room)
    @rule(far=FAR)
    def gc_enters(self, far: int) -> None:
        self.enter(Role("gc"), far, lambda store: gc.collect_garbage(store, self.retention, GRACE_SECONDS))

    @precondition(has_actors)
    @rule(who=WHO, far=FAR)
    def goes_on(self, who: int, far: int) -> None:
        self.act(who, far)

    @precondition(has_actors)
    @rule(who=WHO)
    def goes_to_the_end(self, who: int) -> None:
        self.act(who, 1000)

    @precondition(has_actors)
    @rule(who=WHO, when=st.sampled_from(["spared", "spared", "before", "after"]))
    def kill(self, who: int, when: str) -> None:
        actor, _ = self.actors[who % len(self.actors)]
        if when != "spared":
            actor.kill(when)
            self.check()

    @precondition(has_actors)
    @rule(who=WHO)
    def stall(self, who: int) -> None:
        _, role = self.actors[who % len(self.actors)]
        role.stalled = role.kind != "tagger"  # that a tag may then stand at nothing, its mover is told

    @rule(seconds=st.sampled_from([1.0, 4.0, GRACE_SECONDS + 1]))
    def time_passes(self, seconds: float) -> None:
        self.place.clock += seconds
        for actor, role in self.actors:
            if not role.stalled:
                actor.renew_pins()

    def act(self, who: int, operations: int) -> None:
        """Let one actor do some operations; all that must hold is looked at after each of them."""
        actor, _ = self.actors[who % len(self.actors)]
        for _ in range(operations):
            if actor.finished:
                return
            actor.step()
            self.check()

    def check(self) -> None:
        found = self.findable()
        self.check_whole(found)
        self.check_acknowledged(found)
        self.check_held(found)
        self.check_tags(found)
        self.dismiss()

    def findable(self) -> dict[str, Found]:
        """What `Store.find` would find, without its deciding anything."""
        found = {}
        for version, generation in fates.live_versions(self.place, DATASET).items():  # type: ignore[arg-type]
            key = keys.manifest_key(DATASET, version, generation)
            data, modified = self.place.objects[key]
            found[version] = Found(generation, modified, parsed(data, version))
        return found

    def check_whole(self, found: dict[str, Found]) -> None:
        for version, there in found.items():
            for part in there.manifest.parts:
                key = f"{keys.data_key(DATASET, version)}/{part.path}"
                assert key in self.place.objects, "a version can be found and lacks a part"
                assert hashlib.sha256(self.place.objects[key][0]).hexdigest() == part.sha256

    def check_acknowledged(self, found: dict[str, Found]) -> None:
        for version, there in found.items():
            name = (version, there.generation)
            self.committed_at[name] = there.modified
            assert self.acknowledged.setdefault(name, there.manifest) == there.manifest, "a second winner"
        for (version, generation), at in self.committed_at.items():
            standing = fates.standing(self.place, DATASET, version)  # type: ignore[arg-type]
            assert version in found or standing.generation > generation, "lost, and not by gc"
            assert standing.generation <= generation or self.place.clock - at >= self.kept_seconds, "removed too young"
        assert found or not self.committed_at or not self.retention.newest, "not even the newest was kept"

    def check_held(self, found: dict[str, Found]) -> None:
        for actor, role in self.actors:
            if role.held and not role.stalled and not actor.finished:
                assert role.version in found, "a held version was removed"
                assert found[role.version].manifest == role.held

    def check_tags(self, found: dict[str, Found]) -> None:
        folder = f"{keys.folder(DATASET, 'tags')}{TAG}/"
        log = [self.place.objects[key][0] for key in reversed(self.place.keys(folder))]
        assert log[: len(self.log)] == self.log, "the log of a tag was rewritten"
        self.log = log
        history = tags.history(self.place, DATASET, TAG)  # type: ignore[arg-type]
        assert all(move in history for move in self.moves), "an acknowledged move is not in the log"
        assert not history or history[0].version in found, "a tag stands at a version that cannot be found"

    def dismiss(self) -> None:
        """Look at how actors ended: nobody may fail but by what was done to them."""
        for actor, role in [entry for entry in self.actors if entry[0].finished]:
            self.actors.remove((actor, role))
            actor.thread.join()
            expected: tuple[type[BaseException], ...] = (Killed,)
            expected += (StoreError,) if role.stalled else ()
            expected += (NotCommitted,) if role.kind in ("tagger", "reader") and not role.held else ()
            if actor.error and not isinstance(actor.error, expected):
                raise actor.error
            if actor.error is None and role.kind == "writer":
                name = (role.version, actor.outcome.generation)
                assert self.acknowledged[name] == actor.outcome, "acknowledged, and never to be found"
            if actor.error is None and role.kind == "tagger":
                self.moves.append(actor.outcome)


def commit(store: Store, which: int, text: int) -> Manifest | None:
    with store.writer(DERIVATIONS[which]) as writer:
        writer.append(TABLES[text])
        writer.commit(metrics={}, cost={})
    return writer.done


def hold_and_read(store: Store, role: Role) -> None:
    store.hold(DATASET, role.version)
    role.held = store.manifest(DATASET, role.version)
    for _ in range(2):
        assert store.manifest(DATASET, role.version) == role.held
        assert store.read(role.held.dataset_ref()).num_rows == 1
    store.pins.renew()
    role.held = None
    store.release()


@functools.lru_cache(maxsize=1000)
def parsed(data: bytes, version: str) -> Manifest:
    return parse_manifest(data, DATASET, version, "memory")


def number_names() -> None:
    """The same names in every run of an example: a random one would order keys differently."""
    numbers = itertools.count()
    uuid.uuid4 = lambda: uuid.UUID(int=next(numbers))  # undone by the fixture below


@pytest.fixture(autouse=True)
def names_are_random_again() -> Iterator[None]:
    random_names = uuid.uuid4
    yield
    uuid.uuid4 = random_names


def run(machine: type[StoreMachine], **changes: Any) -> None:
    run_state_machine_as_test(machine, settings=settings(SETTINGS, **changes))


def test_machine_the_store_keeps_its_promises() -> None:
    run(StoreMachine)
    print(f"\n{StoreMachine.examples} examples")


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


@pytest.mark.parametrize("mutant", ["unconditional commit", "gc without pins", "manifest before data", "tag by overwrite"])
def test_machine_finds_fault_with_a_store_that(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Mutant(StoreMachine):
        """The machine on a store that breaks one rule."""

        examples = 0

    if mutant == "unconditional commit":
        Mutant.make_place = OverwritingBackend
    elif mutant == "manifest before data":
        ManifestFirst(monkeypatch)
    elif mutant == "gc without pins":
        monkeypatch.setattr(survey, "read_pins", no_pins)
    else:
        monkeypatch.setattr(tags, "append", append_by_overwriting)
    with pytest.raises(Exception) as found:  # noqa: PT011
        run(Mutant, phases=(Phase.generate,), max_examples=500)
    print(f"\n{mutant}: {Mutant.examples} examples until: {found.value!r}")
