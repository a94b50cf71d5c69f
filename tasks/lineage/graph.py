"""The graph of versions: what each was made from, by roles. A pure function of manifests."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from pydantic import Field, ValidationError

from constitutions import Constitution
from constitutions.phases import PHASES, Phase, principles_of, slice_of, text_hash
from tasks.schema import Frozen
from tasks.store import Manifest, Store, StoreError, keys
from tasks.store.external import EXTERNAL

CONSTITUTIONS = "constitutions"

State = Literal["live", "removed", "missing", "outside"]
"""`removed`: gc left a tombstone. `missing`: cited, and this store has no record of it. `outside`: no store's model."""


class Edge(Frozen):
    """One thing that a version was made from."""

    role: str
    to: str
    """Key of its node."""
    nominal: bool = False
    """Named by the version, though its content does not come from it: a kept policy stands in for a trained one."""


class Node(Frozen):
    """One version of a dataset or model, or a model from outside."""

    key: str
    """`dataset/version`."""
    dataset: str
    version: str
    """Of a model from outside: its commit, or the hash of its files."""
    state: State
    content_hash: str | None = None
    rows: int | None = None
    statuses: dict[str, int] = Field(default_factory=dict)
    stage: str | None = None
    code_version: int | None = None
    code_commit: str | None = None
    seed: int | None = None
    force: str | None = None
    created_at: str | None = None
    generation: int = 0
    """How often it had been removed before it was made again."""
    kept: dict[str, Any] | None = None
    """Which policy was kept in place of training this one, and why."""
    sources: dict[str, int] = Field(default_factory=dict)
    """Rows that were taken from other versions of the dataset -> how many."""
    principles: dict[str, str] = Field(default_factory=dict)
    """Id -> hash of its text, of every principle the phase drew from; of a constitution, of all it holds."""
    made_from: tuple[Edge, ...] = ()


class Lineage(Frozen):
    """Everything a version came from."""

    root: str
    nodes: dict[str, Node]


class Records:
    """Manifests by `dataset/version`, and what is needed to find who made what."""

    def __init__(self, live: Iterable[Manifest], removed: Iterable[Manifest] = ()) -> None:
        self.live = {key_of(manifest): manifest for manifest in live}
        self.removed = {key_of(m): m for m in removed if key_of(m) not in self.live}  # made again: it is there
        self.all = self.live | self.removed
        self.by_version = {manifest.version: key for key, manifest in self.all.items()}
        self.models: dict[str, list[str]] = defaultdict(list)
        for key, manifest in self.all.items():
            if manifest.kind == "model":
                self.models[manifest.content_hash].append(key)
        found = {key: document_of(m) for key, m in self.all.items() if m.dataset == CONSTITUTIONS}
        self.constitutions = {key: document for key, document in found.items() if document}
        self.contents = {key: m.content_hash for key, m in self.all.items()} | dict(self.used_models())
        self.phases = {key: phases_of(document) for key, document in self.constitutions.items()}

    def node(self, key: str) -> Node:
        """The node of any key that an edge leads to."""
        dataset, _, version = key.rpartition("/")
        manifest = self.all.get(key)
        if manifest is None:
            state: State = "outside" if dataset == EXTERNAL else "missing"
            return Node(key=key, dataset=dataset, version=version, state=state, content_hash=self.contents.get(key))
        made = manifest.derivation
        return Node(
            key=key,
            dataset=dataset,
            version=version,
            state="live" if key in self.live else "removed",
            content_hash=manifest.content_hash,
            rows=manifest.rows if manifest.kind == "rows" else None,
            statuses=manifest.statuses,
            stage=made.stage,
            code_version=made.code_version,
            code_commit=manifest.code_commit,
            seed=made.seed,
            force=made.force,
            created_at=manifest.created_at,
            generation=manifest.generation,
            kept=manifest.metrics.get("kept"),
            sources=manifest.sources,
            principles=self.principles(key),
            made_from=tuple(self.edges(manifest)),
        )

    def edges(self, manifest: Manifest) -> Iterator[Edge]:
        """What the version was made from, by role."""
        made, kept = manifest.derivation, "kept" in manifest.metrics
        for role, ref in sorted(made.inputs.items()):
            found = self.by_version.get(ref.version, f"{role.partition('.')[0]}/{ref.version}")
            yield Edge(role=role, to=found, nominal=kept)
        for role, content in sorted(made.models.items()):
            for key in self.model(manifest, role, content):
                yield Edge(role=role, to=key, nominal=kept and role != "keep")
        for key in self.constitutions_of(manifest):
            yield Edge(role="constitution", to=key)
        for role, cited in sorted(made.cites.items()):
            if role not in {*made.inputs, *made.models, "constitution"}:
                yield Edge(role=role, to=cited)

    def used_models(self) -> Iterator[tuple[str, str]]:
        """Key and content hash of every model that a version was made with."""
        for manifest in self.all.values():
            for role, content in manifest.derivation.models.items():
                yield from ((key, content) for key in self.model(manifest, role, content))

    def model(self, manifest: Manifest, role: str, content: str) -> list[str]:
        """The version that is cited, or all that have these weights; else a model from outside."""
        cited = manifest.derivation.cites.get(role, "")
        if cited in self.all:
            return [cited]
        own = [key for key in self.models.get(content, []) if key != key_of(manifest)]
        return own or [cited or f"{EXTERNAL}/{content}"]

    def constitutions_of(self, manifest: Manifest) -> list[str]:
        """The constitution that is cited, or, where none is, all with the slice that the version was made under."""
        cited = manifest.derivation.cites.get("constitution")
        if cited:
            return [cited]
        return self.constitutions_with(manifest.derivation.constitution)

    def constitutions_with(self, slice_: str | None) -> list[str]:
        return [key for key, phases in self.phases.items() if slice_ in phases]

    def principles(self, key: str) -> dict[str, str]:
        """What the version drew from; empty where it read no constitution or its constitution is not known."""
        if key in self.constitutions:
            return {p.id: p.hash for p in self.constitutions[key].principles}
        slice_ = self.all[key].derivation.constitution
        for constitution in self.constitutions_with(slice_):  # whichever: the slice is what they have in common
            return phase_hashes(self.constitutions[constitution], self.phases[constitution][slice_])
        return {}


def read_records(store: Store) -> Records:
    """The records of a whole store: manifests and tombstones, no rows.

    Raises: Corrupt.
    """
    names = keys.dataset_names(store.backend)  # also those of which gc left nothing
    removed = (tombstone.manifest for name in names for tombstone in store.tombstones(name))
    return Records((manifest for name in names for manifest in store.versions(name)), removed)


def upstream(records: Records, root: str) -> Lineage:
    """Everything that the version `root` (`dataset/version`) came from.

    Raises: StoreError: there is no record of it.
    """
    if root not in records.all:
        raise StoreError(f"lineage: no record of {root}, neither a version nor a tombstone")
    nodes: dict[str, Node] = {}
    waiting = [root]
    while waiting:
        key = waiting.pop()
        if key not in nodes:
            nodes[key] = records.node(key)
            waiting += [edge.to for edge in nodes[key].made_from]
    return Lineage(root=root, nodes=nodes)


def key_of(manifest: Manifest) -> str:
    return f"{manifest.dataset}/{manifest.version}"


def phases_of(constitution: Constitution) -> dict[str | None, Phase]:
    """Which phase a slice is of; what compares without demonstrations and constraints has a slice of its own."""
    slices: dict[str | None, Phase] = {slice_of(constitution, p): p for p in PHASES if principles_of(constitution, p)}
    if "comparison" in slices.values():
        slices[constitution.questions_slice()] = "comparison"
    return slices


def phase_hashes(constitution: Constitution, phase: Phase) -> dict[str, str]:
    return {p.id: text_hash(p, phase) for p in principles_of(constitution, phase)}


def document_of(manifest: Manifest) -> Constitution | None:
    """The constitution in a manifest of `constitutions`; None where it holds none that this code can read."""
    try:
        return Constitution.model_validate(manifest.derivation.config.get("document"))
    except ValidationError:
        return None
