"""Initial completions by the helpful-only model (section 3.1): harmful ones to revise, helpful ones to keep.

*Reads* `prompts`. *Writes* `completions`: one for each red-team prompt, `num_helpful_samples` for each helpful one
(the paper takes two), all sampled at temperature 1.
"""

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from pydantic import Field

from tasks.chunks import make_in_chunks
from tasks.generation import GeneratingStage, Recipe, recipe_of, request_seed, verdict
from tasks.schema import Completion, DatasetRef, Frozen, ModelRef, Prompt
from tasks.serving import Generation, GenerationRequest, Sampling, TextGenerator
from tasks.stage import Session
from tasks.store.identity import table_to_rows


class RespondConfig(Frozen):
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

    prompts: DatasetRef
    helpful_only: ModelRef
    config: RespondConfig

    def make(self, session: Session) -> DatasetRef:
        prompts = table_to_rows(session.store.read(self.prompts), Prompt)
        asks = list_asks([p for p in prompts if p.split == "train"], self.config.num_helpful_samples)
        recipe = recipe_of(self, self.helpful_only, self.config.sampling)
        folder = session.store.fetch_model(self.helpful_only)

        def work(chunk: Sequence[Ask]) -> list[Completion]:
            with session.open_generator(self.helpful_only, folder, self.run.serving) as generator:
                return respond(chunk, generator, self.config.sampling, recipe)

        return make_in_chunks(self, session, asks, completion_id, work, Completion)


def completion_id(ask: Ask) -> str:
    return f"{ask.prompt.prompt_id}/{ask.sample}"


def list_asks(prompts: Sequence[Prompt], num_helpful_samples: int) -> list[Ask]:
    """One ask for each red-team prompt (also the unusable ones, so that each is accounted for), k for each helpful."""
    counts = {"red_team": 1, "helpful": num_helpful_samples}
    return [Ask(prompt, sample) for prompt in prompts for sample in range(counts[prompt.kind])]


def respond(asks: Sequence[Ask], generator: TextGenerator, sampling: Sampling, recipe: Recipe) -> list[Completion]:
    """One completion for each ask, in order; an unusable prompt is skipped with its reason."""
    usable = [ask for ask in asks if ask.prompt.status == "ok"]
    keys = {completion_id(ask): completion_key(ask, recipe) for ask in asks}
    requests = [GenerationRequest(ask.prompt.messages, request_seed(keys[completion_id(ask)])) for ask in usable]
    made = dict(zip(map(completion_id, usable), generator.generate(requests, sampling), strict=True))
    return [completion_row(ask, keys[completion_id(ask)], made.get(completion_id(ask))) for ask in asks]


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
