"""Writers, taggers, readers and gc on one store, interleaved one operation at a time, killed and stalled anywhere.

Hypothesis chooses everything: who acts, for how many operations, who dies before or after one, and when time passes.
"""

import functools
import hashlib
import itertools
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tasks.store import Manifest, NotCommitted, Store, StoreError, fates, gc, keys, tags
from tasks.store.manifest import parse_manifest
from tasks.store.retention import DAY_SECONDS, Retention
from tests.memory_backend import Actor, Killed, MemoryBackend
from tests.small_versions import completions, derivation

DATASET, TAG = "completions", "prod"
GRACE_SECONDS = 10.0
DERIVATIONS = [derivation(seed=seed) for seed in range(4)]
VERSIONS = [made_by.version for made_by in DERIVATIONS]
TABLES = [completions([f"text {number}"]) for number in range(2)]
WHO, WHICH, TEXT = st.integers(0, 4), st.integers(0, 3), st.integers(0, 1)
START, FAR = st.integers(0, 9), st.integers(0, 9) | st.integers(10, 40) | st.just(1000)
"""Operations that an actor does in a row: a writer takes about ten in all, gc about forty."""
MAX_ACTORS = 5
SETTINGS = settings(
    max_examples=300, stateful_step_count=40, deadline=None, derandomize=True, database=None,
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
            self.enters("writer", which, 0, 1000)
        self.time_passes(1.0)

    def teardown(self) -> None:
        for actor, _ in self.actors:
            actor.kill("before")

    def has_room(self) -> bool:
        return len(self.actors) < MAX_ACTORS

    def has_actors(self) -> bool:
        return bool(self.actors)

    @precondition(has_room)
    @rule(kind=st.sampled_from(["writer", "tagger", "reader"]), which=WHICH, text=TEXT, far=START)
    def enters(self, kind: str, which: int, text: int, far: int) -> None:
        """One process begins. A tagger or reader takes a version that exists, if any does."""
        existing = [] if kind == "writer" else sorted(self.findable())
        version = existing[which % len(existing)] if existing else VERSIONS[which]
        role = Role(kind, version)
        work: dict[str, Callable[[Store], Any]] = {
            "writer": lambda store: commit(store, which, text),
            "tagger": lambda store: store.tag(DATASET, TAG, version),
            "reader": lambda store: hold_and_read(store, role),
        }
        self.begin_work(role, work[kind], far)

    @precondition(lambda self: len(self.actors) + 2 <= MAX_ACTORS)
    @rule(first=START, second=START)
    def rivals_enter(self, first: int, second: int) -> None:
        """Two runs make the same version, one that does not exist if there is one."""
        found = self.findable()
        which = next((n for n, version in enumerate(VERSIONS) if version not in found), 0)
        for text, far in enumerate((first, second)):
            self.enters("writer", which, text, far)

    @precondition(has_room)
    @rule(far=FAR)
    def gc_enters(self, far: int) -> None:
        self.begin_work(Role("gc"), lambda store: gc.collect_garbage(store, self.retention, GRACE_SECONDS), far)

    @precondition(has_room)
    @rule()
    def gc_runs(self) -> None:
        self.gc_enters(1000)

    def begin_work(self, role: Role, work: Callable[[Store], Any], far: int) -> None:
        self.actors.append((Actor(self.place, work), role))
        self.act(len(self.actors) - 1, far)

    @precondition(has_actors)
    @rule(who=WHO, far=FAR)
    def goes_on(self, who: int, far: int) -> None:
        self.act(who, far)

    @precondition(has_actors)
    @rule(who=WHO, when=st.sampled_from(["before", "after"]))
    def is_killed(self, who: int, when: str) -> None:
        self.actors[who % len(self.actors)][0].kill(when)
        self.check()

    @precondition(has_actors)
    @rule(who=WHO)
    def stands_still(self, who: int) -> None:
        """A process stops for longer than the grace. Not a tagger: its tag may then stand at nothing, as it is told."""
        _, role = self.actors[who % len(self.actors)]
        role.stalled = role.kind != "tagger"
        self.time_passes(GRACE_SECONDS + 1)

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
    uuid.uuid4 = lambda: uuid.UUID(int=next(numbers))  # undone by the test that runs the machine


def run(machine: type[StoreMachine], **changes: Any) -> None:
    run_state_machine_as_test(machine, settings=settings(SETTINGS, **changes))
