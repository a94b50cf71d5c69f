"""What one policy says to the held-out prompts (sections 3.3 and 4.3).

*Reads* `prompts`, a policy. *Writes* `samples`; a version for each policy, so that another one samples only itself.
"""

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from pydantic import Field

from tasks.chunks import make_in_chunks
from tasks.generation import GeneratingStage, Recipe, recipe_of, request_seed, verdict
from tasks.schema import DatasetRef, Frozen, ModelRef, Prompt, Sample
from tasks.serving import Generation, GenerationRequest, Sampling, TextGenerator
from tasks.stage import Session
from tasks.store.identity import table_to_rows


class SampleConfig(Frozen):
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

    prompts: DatasetRef
    policy: ModelRef
    config: SampleConfig

    def make(self, session: Session) -> DatasetRef:
        prompts = [p for p in table_to_rows(session.store.read(self.prompts), Prompt) if p.split == "held_out"]
        asks = [Ask(prompt, i) for prompt in prompts for i in range(self.config.num_samples)]
        recipe = recipe_of(self, self.policy, self.config.sampling)
        folder = session.store.fetch_model(self.policy)

        def work(chunk: Sequence[Ask]) -> list[Sample]:
            with session.open_generator(self.policy, folder, self.run.serving) as generator:
                return sample(chunk, generator, self.config.sampling, recipe)

        return make_in_chunks(self, session, asks, sample_id, work, Sample)


def sample_id(ask: Ask) -> str:
    return f"{ask.prompt.prompt_id}/{ask.sample}"


def sample(asks: Sequence[Ask], generator: TextGenerator, sampling: Sampling, recipe: Recipe) -> list[Sample]:
    """One completion for each ask, in order. The same prompt has the same seed for every policy."""
    usable = [ask for ask in asks if ask.prompt.status == "ok"]
    # the policy does not enter the seed: policies are compared on the same draws (common random numbers)
    shared = recipe.model_copy(update={"model": ""})
    seeds = {sample_id(ask): request_seed(shared.key(sample_id(ask))) for ask in asks}
    requests = [GenerationRequest(ask.prompt.messages, seeds[sample_id(ask)]) for ask in usable]
    made = dict(zip(map(sample_id, usable), generator.generate(requests, sampling), strict=True))
    return [sample_row(ask, recipe, made.get(sample_id(ask))) for ask in asks]


def sample_row(ask: Ask, recipe: Recipe, generation: Generation | None) -> Sample:
    prompt = ask.prompt
    ended: dict[str, str | None] = {
        "status": "skipped",
        "reason": f"prompt is {prompt.status}: {prompt.reason}",
    }
    if generation is not None:
        ended = verdict(generation, "completion")
    return Sample(
        row_id=sample_id(ask),
        reuse_key=recipe.key(sample_id(ask), [m.model_dump() for m in prompt.messages]),
        prompt_id=prompt.prompt_id,
        kind=prompt.kind,
        group=prompt.group,
        sample=ask.sample,
        completion=generation.text if generation else None,
        num_tokens=generation.num_tokens if generation else 0,
        **ended,
    )
