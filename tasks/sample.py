"""What one policy says to the held-out prompts (sections 3.3 and 4.3).

*Reads* `prompts`, a policy. *Writes* `samples`; a version for each policy, so that another one samples only itself.
"""

from collections.abc import Iterator, Sequence
from typing import ClassVar, NamedTuple

from pydantic import Field

from tasks.generation import Core, GeneratingStage, Recipe, request_seed, verdict
from tasks.prompt_rows import count_prompts, read_prompts
from tasks.reuse import Reuse, nothing_kept
from tasks.schema import DatasetRef, ModelRef, Prompt, Sample, Settings
from tasks.serving import Generation, GenerationRequest, Sampling, TextGenerator
from tasks.store import Store


class SampleConfig(Settings):
    """How policies are sampled for evaluation."""

    num_samples: int = Field(1, ge=1)
    """Completions of each held-out prompt."""
    sampling: Sampling = Sampling()
    """Temperature 1 in the paper."""


class Ask(NamedTuple):
    """One sample to take."""

    prompt: Prompt
    sample: int


class SampleStage(GeneratingStage):
    """One policy on every held-out prompt."""

    stage: ClassVar[str] = "sample"
    dataset: ClassVar[str] = "samples"
    code_version: ClassVar[int] = 1
    row_type: ClassVar[type[Sample]] = Sample

    prompts: DatasetRef
    policy: ModelRef
    config: SampleConfig

    @property
    def writer(self) -> ModelRef:
        return self.policy

    def items(self, store: Store) -> Iterator[Ask]:
        prompts = read_prompts(store, self.prompts, "held_out")
        return (Ask(prompt, number) for prompt in prompts for number in range(self.config.num_samples))

    def num_rows(self, store: Store) -> int:
        return count_prompts(store, self.prompts, "held_out") * self.config.num_samples

    def core(self, store: Store) -> Core:
        recipe = self.recipe()
        return lambda asks, generator, reuse: sample(asks, generator, self.config.sampling, recipe, reuse)


def sample_id(ask: Ask) -> str:
    return f"{ask.prompt.prompt_id}/{ask.sample}"


def sample(
    asks: Sequence[Ask],
    generator: TextGenerator,
    sampling: Sampling,
    recipe: Recipe,
    reuse: Reuse = nothing_kept,
) -> list[Sample]:
    """One completion for each ask, in order. The same prompt has the same seed for every policy."""
    keys = {sample_id(ask): sample_key(ask, recipe) for ask in asks}
    usable = [ask for ask in asks if ask.prompt.status == "ok"]
    kept = reuse([keys[sample_id(ask)] for ask in usable])
    missing = [ask for ask in usable if keys[sample_id(ask)] not in kept]
    # the policy does not enter the seed: policies are compared on the same draws (common random numbers)
    shared = recipe.model_copy(update={"model": ""})
    requests = [GenerationRequest(ask.prompt.messages, request_seed(shared.key(sample_id(ask)))) for ask in missing]
    made = dict(zip(map(sample_id, missing), generator.generate(requests, sampling), strict=True))

    def row(ask: Ask) -> Sample:
        key = keys[sample_id(ask)]
        if key in kept:  # kind and group are the prompt's and no part of the key
            return Sample(**kept[key] | {"kind": ask.prompt.kind, "group": ask.prompt.group})
        return sample_row(ask, key, made.get(sample_id(ask)))

    return [row(ask) for ask in asks]


def sample_key(ask: Ask, recipe: Recipe) -> str:
    return recipe.key(sample_id(ask), [m.model_dump() for m in ask.prompt.messages])


def sample_row(ask: Ask, reuse_key: str, generation: Generation | None) -> Sample:
    prompt = ask.prompt
    ended: dict[str, str | None] = {
        "status": "skipped",
        "reason": f"prompt is {prompt.status}: {prompt.reason}",
    }
    if generation is not None:
        ended = verdict(generation, "completion")
    return Sample(
        row_id=sample_id(ask),
        reuse_key=reuse_key,
        prompt_id=prompt.prompt_id,
        kind=prompt.kind,
        group=prompt.group,
        sample=ask.sample,
        completion=generation.text if generation else None,
        num_tokens=generation.num_tokens if generation else 0,
        **ended,
    )
