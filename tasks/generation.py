"""What all generating stages share: the recipe of a text, its reuse key and seed, and how its row ends."""

from typing import Any

from tasks.schema import Frozen, ModelRef
from tasks.serving import Generation, Sampling
from tasks.stage import Stage
from tasks.store import Store
from tasks.store.identity import digest


class GeneratingStage(Stage):
    """A stage whose rows a model writes: how it is served is part of what determines them."""

    def extra_identity(self, store: Store) -> dict[str, Any]:
        return {"serving": self.run.serving.identity()}


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


def recipe_of(stage: Stage, model: ModelRef, sampling: Sampling | None) -> Recipe:
    return Recipe(
        stage=stage.stage,
        code_version=stage.code_version,
        model=model.content_hash,
        serving=stage.run.serving.identity(),
        sampling=sampling,
        seed=stage.run.seed,
        force=stage.run.force.get(stage.stage),
    )


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
