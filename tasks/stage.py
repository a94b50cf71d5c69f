"""What every stage is: a value that says what to make, and how to make it where it does not exist yet.

A stage is a frozen model of JSON-sized fields (references, config, seed), so the same value is a function call in
a test, the parameters of a deployment on a cluster, and the identity of its result (design ideas 1, 2 and 5).
`RunContext` holds what all stages of a run share; of it only `seed`, what is forced and the serving settings that
change numbers enter a version id.
"""

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, TypeVar, get_args

from pydantic import Field

from tasks.schema import DatasetRef, Frozen, ModelRef, Row, Settings
from tasks.serving import ServingConfig, TextGenerator, open_generator
from tasks.store import Derivation, InputRef, Store
from tasks.store.external import EXTERNAL
from tasks.training.launch_config import LaunchConfig
from tasks.training.nodes_config import Node

T = TypeVar("T")

StageName = Literal[
    "constitution", "prompts", "question_set", "respond", "start_gates", "revise", "improve", "sft", "compare", "probe",
    "label", "label_gates", "preferences", "reward", "held_out_reward", "rl", "leakage", "sample", "questions", "judge",
    "match", "human_matches", "assess", "evaluate", "report",
]  # fmt: skip
"""In the order of the method."""
STAGES: tuple[StageName, ...] = get_args(StageName)


class StageFailed(ValueError):
    """A stage could not commit a result; what it finished is kept and the message says what to do."""


class RunContext(Settings):
    """What all stages of one run share."""

    store: str = Field(".solon/store", min_length=1)
    """Where datasets and models are kept: a folder or `s3://bucket/prefix`."""
    seed: int = Field(0, ge=0, le=2**53 - 1)
    """Draws principles, seeds requests and training; up to what a browser still counts exactly."""
    executor: Literal["inline", "deployments"] = "inline"
    """`inline`: stages run in the run's own process. `deployments`: each that needs a model or a training is a run of
    its own, on its pool."""
    force: tuple[StageName, ...] = ()
    """Stages to make anew, whatever the store has."""
    rerun_from: Literal["none"] | StageName = "none"
    """Make this stage and all after it anew."""
    force_salt: str = ""
    """Names what is made anew: the same word finds it again, another makes it once more. Empty: the run's own id, so
    that a retry goes on where it was and every new run makes it again."""
    chunk_rows: int = Field(256, ge=1)
    """Rows a resume point holds; how the work is cut never enters an identity."""
    max_failed_fraction: float = Field(0.05, ge=0, le=1)
    """A stage fails when more of its rows are refused, unparsable or failed."""
    serving: ServingConfig = ServingConfig()
    """How texts are generated."""
    training: LaunchConfig = LaunchConfig()
    """How training processes are started."""

    def salt(self, stage: str) -> str | None:
        """What sets the version of a forced stage apart; None for a stage that is not forced."""
        later = STAGES[STAGES.index(self.rerun_from) :] if self.rerun_from != "none" else ()
        return (self.force_salt or "forced") if stage in {*self.force, *later} else None

    def salted(self, salt: str) -> "RunContext":
        """With a salt for what is forced, where there is none."""
        forced = bool(self.force) or self.rerun_from != "none"
        return self.model_copy(update={"force_salt": salt}) if forced and not self.force_salt else self


class Progress(Protocol):
    """Shows a stage while it works."""

    def update(self, done: int, total: int, note: str) -> None:
        """So many rows or steps are done."""

    def rows(self, rows: Sequence[Row], items: Sequence[Any]) -> None:
        """Rows of a finished chunk, and the items they are of; an `update` follows."""

    def trained(self, kind: str, metrics: Mapping[str, Any]) -> None:
        """What a `kind` of training has logged so far (`history`), and at its end what came of it (`final`)."""


class NoProgress:
    """Shows nothing."""

    def update(self, done: int, total: int, note: str) -> None:
        return None

    def rows(self, rows: Sequence[Row], items: Sequence[Any]) -> None:
        return None

    def trained(self, kind: str, metrics: Mapping[str, Any]) -> None:
        return None


def call_directly(name: str, work: Callable[[], T]) -> T:
    """Run a chunk as a plain call; a flow passes one that makes it a Prefect task instead."""
    return work()


@dataclass
class Session:
    """What a stage touches while it works: the store, how a chunk is run, where progress shows, who writes."""

    store: Store
    call: Callable[[str, Callable[[], Any]], Any] = call_directly
    progress: Progress = field(default_factory=NoProgress)
    open_generator: Callable[..., AbstractContextManager[TextGenerator]] = open_generator
    node: Node | None = None
    """Set where this is one machine of a training over several; None: whoever was asked for the stage."""


class Stage(Frozen):
    """One stage with its inputs. Subclasses add fields, `derivation` follows from them, `make` does the work."""

    stage: ClassVar[str]
    dataset: ClassVar[str]
    code_version: ClassVar[int]
    operational: ClassVar[frozenset[str]] = frozenset()
    """Settings of `config` that change no result, and so no version; `a.b` for one inside a section."""
    cheap: ClassVar[bool] = False
    """Made in seconds from files and rows, without a model: a plan makes it, to know what follows exactly."""

    run: RunContext

    def derivation(self, store: Store) -> Derivation:
        """Everything that determines the result, and nothing else (design idea 2)."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        inputs = {f"{name}.{key}": ref for name, value in fields.items() for key, ref in references(value)}
        return Derivation(
            stage=self.stage,
            dataset=self.dataset,
            code_version=self.code_version,
            config={"config": self.identity_config(), **self.extra_identity(store)},
            inputs={k.rstrip("."): v for k, v in inputs.items() if isinstance(v, InputRef)},
            constitution=self.constitution_slice(store),
            models={k.rstrip("."): v for k, v in inputs.items() if isinstance(v, str)},
            seed=self.run.seed,
            force=self.run.salt(self.stage),
            cites=self.cites(),
        )

    def cites(self) -> dict[str, str]:
        """Role -> `dataset/version` of everything the stage was given; a model from outside is `external/version`."""
        given = [(name, getattr(self, name)) for name in type(self).model_fields]
        return {role: cited for name, value in given for role, cited in citations(name, value)}

    def identity_config(self) -> dict[str, Any]:
        """The settings that determine the result."""
        config = getattr(self, "config", None)
        return config.model_dump(mode="json", exclude=nested(self.operational)) if config else {}

    def extra_identity(self, store: Store) -> dict[str, Any]:
        """What else changes the result; a generating stage adds how its texts are made."""
        return {}

    def constitution_slice(self, store: Store) -> str | None:
        """Hash of the part of the constitution that this phase uses; None for a stage that reads none."""
        return None

    @abstractmethod
    def make(self, session: Session) -> DatasetRef | ModelRef:
        """Do the work and commit it."""

    def result(self, store: Store) -> DatasetRef | ModelRef | None:
        """The committed result, or None where there is none yet."""
        derivation = self.derivation(store)
        manifest = store.find(derivation.dataset, derivation.version)
        return manifest.ref() if manifest else None


def nested(names: Iterable[str]) -> dict[str, Any]:
    """Dotted names as pydantic's `exclude` takes them: {"a": {"b": True}}."""
    tree: dict[str, Any] = {}
    for name in names:
        *sections, last = name.split(".")
        inner = tree
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[last] = True
    return tree


def references(value: object) -> list[tuple[str, InputRef | str]]:
    """The references inside a field, with their keys: datasets as inputs, models by content hash."""
    if isinstance(value, DatasetRef):
        if value.dataset == "constitutions":
            return []  # enters by the slice that its phase uses, so that other edits do not touch the stage
        return [("", InputRef(version=value.version, content_hash=value.content_hash))]
    if isinstance(value, ModelRef):
        return [("", value.content_hash)]
    if isinstance(value, dict):
        return [(f"{key}.{inner}", ref) for key, item in value.items() for inner, ref in references(item)]
    return []


def citations(role: str, value: object) -> list[tuple[str, str]]:
    """(role, `dataset/version`) of the references inside a field."""
    if isinstance(value, DatasetRef):
        return [(role, f"{value.dataset}/{value.version}")]
    if isinstance(value, ModelRef):
        return [(role, f"{value.model}/{value.version}")]
    if isinstance(value, dict):
        return [cited for key, item in value.items() for cited in citations(f"{role}.{key}", item)]
    return []


def hold_inputs(store: Store, derivation: Derivation) -> None:
    """Keep what a stage reads, and what it makes, from being removed meanwhile."""
    store.hold(derivation.dataset, derivation.version)
    for cited in derivation.cites.values():
        dataset, _, version = cited.rpartition("/")
        if dataset != EXTERNAL:
            store.hold(dataset, version)


class Ledger:
    """How the rows of a stage ended."""

    def __init__(self) -> None:
        self.num_rows = 0
        self.bad: Counter[str] = Counter()
        """Reasons of rows that are refused, unparsable or failed; `skipped` ones had nothing to do."""

    def add(self, rows: Sequence[Row]) -> None:
        self.num_rows += len(rows)
        self.bad.update(row.reason or row.status for row in rows if row.status in ("refused", "unparsable", "failed"))

    def check(self, stage: str, limit: float) -> None:
        """Fail a stage that lost too many rows.

        Raises: StageFailed: names the share, the limit and the commonest reason.
        """
        bad = self.bad.total()
        if bad <= limit * self.num_rows:
            return
        worst = self.bad.most_common(1)[0][0]
        raise StageFailed(
            f"{stage}: {bad} of {self.num_rows} rows are not ok, the limit is {limit:.0%}; most often: {worst}. "
            "The good ones are kept: mend the cause, or raise run.max_failed_fraction, and run again"
        )
