"""What all generating stages share: the recipe of a text, its reuse key and seed, and how its row ends."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

from tasks.reuse import Reuse
from tasks.schema import DatasetRef, Frozen, ModelRef, Row
from tasks.serving import Generation, Sampling, TextGenerator
from tasks.stage import Session, Stage
from tasks.store import Store
from tasks.store.identity import digest

Core = Callable[[Sequence[Any], TextGenerator, Reuse], Sequence[Row]]
"""Rows of items, in order. It asks `Reuse` once for each row that a model has to write, and makes what is missing."""

PLANNED = "planned"
"""`finish_reason` of what stands for a text in a plan: nobody has written it."""


class Recipe(Frozen):
    """What determines a generated text besides the texts it starts from; the rest of a `reuse_key`."""

    stage: str
    code_version: int
    model: str
    """Content hash of the model that writes."""
    serving: dict[str, str]
    """Engine and number format: another one may write other texts."""
    sampling: Sampling | None
    """None where nothing is sampled (label log-probabilities)."""
    seed: int
    force: str | None

    def key(self, *parts: object) -> str:
        """The reuse key of a row that is determined by `parts` (JSON values) and this recipe."""
        return digest([self.model_dump(mode="json"), list(parts)])

    @property
    def digest(self) -> str:
        """What versions that may share rows have in common."""
        return digest(self.model_dump(mode="json"))


class GeneratingStage(Stage):
    """A stage whose rows a model writes: how it is served is part of what determines them."""

    row_type: ClassVar[type[Row]]

    def extra_identity(self, store: Store) -> dict[str, Any]:
        return {"serving": self.run.serving.identity()}

    @property
    @abstractmethod
    def writer(self) -> ModelRef:
        """The model that writes."""

    @abstractmethod
    def items(self, store: Store) -> Iterator[Any]:
        """What there is to do, in order and one at a time: a million items are never all in memory."""

    @abstractmethod
    def num_rows(self, store: Store) -> int:
        """Rows there will be. Counted from the prompts and settings, so that a plan can say it beforehand."""

    @abstractmethod
    def core(self, store: Store) -> Core:
        """The pure core, bound to its settings and principles."""

    def asks_model(self) -> bool:
        """Whether the model is asked at all."""
        return True

    def recipe(self) -> Recipe:
        """What its rows have in common."""
        config = getattr(self, "config", None)
        return Recipe(
            stage=self.stage,
            code_version=self.code_version,
            model=self.writer.content_hash if self.asks_model() else "",
            serving=self.run.serving.identity(),
            sampling=getattr(config, "sampling", None),
            seed=self.run.seed,
            force=self.run.salt(self.stage),
        )

    def make(self, session: Session) -> DatasetRef:
        from tasks.chunks import make_in_chunks  # which works on these stages

        return make_in_chunks(self, session)


def request_seed(reuse_key: str) -> int:
    """The seed of the request that makes a row: 31 bits of its reuse key."""
    return int(reuse_key[:8], 16) & 0x7FFFFFFF


def verdict(generation: Generation, what: str) -> dict[str, str | None]:
    """Status and reason of a generated text."""
    if generation.error:
        return {"status": "failed", "reason": generation.error}
    if generation.finish_reason == "content_filter":
        return {"status": "refused", "reason": f"the server refused to write the {what}"}
    if not (generation.text or "").strip():
        return {"status": "unparsable", "reason": f"the {what} is empty"}
    return {"status": "ok", "reason": None}
