"""Initial completions by the helpful-only model (section 3.1): harmful ones to revise, helpful ones to keep.

*Reads* `prompts`. *Writes* `completions`: one for each red-team prompt, `num_helpful_samples` for each helpful one
(the paper takes two), all sampled at temperature 1.
"""

from collections.abc import Iterator, Sequence
from typing import ClassVar, NamedTuple

from pydantic import Field

from tasks.generation import Core, GeneratingStage, Recipe, request_seed, verdict
from tasks.prompt_rows import count_prompts, read_prompts
from tasks.reuse import Reuse, nothing_kept
from tasks.schema import Completion, DatasetRef, ModelRef, Prompt, Settings
from tasks.serving import Generation, GenerationRequest, Sampling, TextGenerator
from tasks.store import Store


class RespondConfig(Settings):
    """How initial completions are sampled."""

    sampling: Sampling = Sampling()
    """Temperature 1 in the paper, everywhere."""
    num_helpful_samples: int = Field(2, ge=0)
    """Completions of each helpful prompt (the paper: 2)."""


class Ask(NamedTuple):
    """One completion to make."""

    prompt: Prompt
    sample: int


class RespondStage(GeneratingStage):
    """Every training prompt answered by the helpful-only model."""

    stage: ClassVar[str] = "respond"
    dataset: ClassVar[str] = "completions"
    code_version: ClassVar[int] = 1
    row_type: ClassVar[type[Completion]] = Completion

    prompts: DatasetRef
    helpful_only: ModelRef
    config: RespondConfig

    @property
    def writer(self) -> ModelRef:
        return self.helpful_only

    def items(self, store: Store) -> Iterator[Ask]:
        return list_asks(read_prompts(store, self.prompts, "train"), self.config.num_helpful_samples)

    def num_rows(self, store: Store) -> int:
        counts = [count_prompts(store, self.prompts, "train", kind) for kind in ("red_team", "helpful")]
        return counts[0] + counts[1] * self.config.num_helpful_samples

    def core(self, store: Store) -> Core:
        recipe = self.recipe()
        return lambda asks, generator, reuse: respond(asks, generator, self.config.sampling, recipe, reuse)


def completion_id(ask: Ask) -> str:
    return f"{ask.prompt.prompt_id}/{ask.sample}"


def list_asks(prompts: Iterator[Prompt], num_helpful_samples: int) -> Iterator[Ask]:
    """One ask for each red-team prompt (also the unusable ones, so that each is accounted for), k for each helpful."""
    counts = {"red_team": 1, "helpful": num_helpful_samples}
    return (Ask(prompt, sample) for prompt in prompts for sample in range(counts[prompt.kind]))


def respond(
    asks: Sequence[Ask],
    generator: TextGenerator,
    sampling: Sampling,
    recipe: Recipe,
    reuse: Reuse = nothing_kept,
) -> list[Completion]:
    """One completion for each ask, in order; an unusable prompt is skipped with its reason."""
    keys = {completion_id(ask): completion_key(ask, recipe) for ask in asks}
    usable = [ask for ask in asks if ask.prompt.status == "ok"]
    kept = reuse([keys[completion_id(ask)] for ask in usable])
    missing = [ask for ask in usable if keys[completion_id(ask)] not in kept]
    requests = [GenerationRequest(ask.prompt.messages, request_seed(keys[completion_id(ask)])) for ask in missing]
    made = dict(zip(map(completion_id, missing), generator.generate(requests, sampling), strict=True))

    def row(ask: Ask) -> Completion:
        key = keys[completion_id(ask)]
        return Completion(**kept[key]) if key in kept else completion_row(ask, key, made.get(completion_id(ask)))

    return [row(ask) for ask in asks]


def completion_key(ask: Ask, recipe: Recipe) -> str:
    return recipe.key(completion_id(ask), [m.model_dump() for m in ask.prompt.messages])


def completion_row(ask: Ask, reuse_key: str, generation: Generation | None) -> Completion:
    common = {
        "row_id": completion_id(ask),
        "reuse_key": reuse_key,
        "prompt_id": ask.prompt.prompt_id,
        "sample": ask.sample,
    }
    if generation is None:
        reason = f"prompt is {ask.prompt.status}: {ask.prompt.reason}"
        return Completion(**common, completion=None, status="skipped", reason=reason)
    return Completion(
        **common,
        completion=generation.text,
        finish_reason=generation.finish_reason,
        num_tokens=generation.num_tokens,
        **verdict(generation, "completion"),
    )
