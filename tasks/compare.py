"""Pairs of completions by the SL policy, for the feedback model to judge (section 4.1).

*Reads* `prompts`, `models/sl`. *Writes* `comparisons`: for each red-team prompt `num_pairs` pairs, each of two samples.
An identical pair teaches nothing: its second completion is drawn again, and a pair that stays identical is skipped,
with its texts kept.
"""

from collections.abc import Iterator, Sequence
from typing import ClassVar, NamedTuple

from pydantic import Field

from tasks.generation import Core, GeneratingStage, Recipe, request_seed, verdict
from tasks.prompt_rows import count_prompts, read_prompts
from tasks.reuse import Reuse, nothing_kept
from tasks.schema import Comparison, DatasetRef, ModelRef, Prompt, Settings
from tasks.serving import Generation, GenerationRequest, Sampling, TextGenerator
from tasks.store import Store


class CompareConfig(Settings):
    """How pairs are sampled."""

    num_pairs: int = Field(1, ge=1)
    """Pairs of each red-team prompt (the paper: 1)."""
    num_draws: int = Field(4, ge=1, le=6)
    """Draws of the second completion until it differs from the first (the paper: 1)."""
    sampling: Sampling = Sampling()
    """Temperature 1 in the paper."""


class Pair(NamedTuple):
    """One comparison to make."""

    prompt: Prompt
    number: int


class CompareStage(GeneratingStage):
    """Two completions of each red-team prompt by the SL policy."""

    stage: ClassVar[str] = "compare"
    dataset: ClassVar[str] = "comparisons"
    code_version: ClassVar[int] = 1
    row_type: ClassVar[type[Comparison]] = Comparison

    prompts: DatasetRef
    policy: ModelRef
    config: CompareConfig

    @property
    def writer(self) -> ModelRef:
        return self.policy

    def items(self, store: Store) -> Iterator[Pair]:
        prompts = read_prompts(store, self.prompts, "train", "red_team")
        return (Pair(prompt, number) for prompt in prompts for number in range(self.config.num_pairs))

    def num_rows(self, store: Store) -> int:
        return count_prompts(store, self.prompts, "train", "red_team") * self.config.num_pairs

    def core(self, store: Store) -> Core:
        recipe = self.recipe()
        return lambda pairs, generator, reuse: compare(pairs, generator, self.config, recipe, reuse)


def comparison_id(pair: Pair) -> str:
    return f"{pair.prompt.prompt_id}/{pair.number}"


def compare(
    pairs: Sequence[Pair],
    generator: TextGenerator,
    config: CompareConfig,
    recipe: Recipe,
    reuse: Reuse = nothing_kept,
) -> list[Comparison]:
    """Two completions for each pair, in order, each draw with a seed of its own."""
    keys = {comparison_id(pair): comparison_key(pair, config, recipe) for pair in pairs}
    usable = [pair for pair in pairs if pair.prompt.status == "ok"]
    kept = reuse([keys[comparison_id(pair)] for pair in usable])
    missing = [pair for pair in usable if keys[comparison_id(pair)] not in kept]

    def drawn(of: Sequence[Pair], number: int) -> dict[str, Generation]:
        seeds = [request_seed(seed_key(pair, recipe)[8 * number :]) for pair in of]
        requests = [GenerationRequest(p.prompt.messages, seed) for p, seed in zip(of, seeds, strict=True)]
        return dict(zip(map(comparison_id, of), generator.generate(requests, config.sampling), strict=True))

    first, second, again = drawn(missing, 0), dict[str, Generation](), missing
    for number in range(1, config.num_draws + 1):
        second |= drawn(again, number)
        again = [p for p in again if same(first[comparison_id(p)], second[comparison_id(p)])]

    def row(pair: Pair) -> Comparison:
        name, key = comparison_id(pair), keys[comparison_id(pair)]
        return Comparison(**kept[key]) if key in kept else comparison_row(pair, key, first.get(name), second.get(name))

    return [row(pair) for pair in pairs]


def same(a: Generation, b: Generation) -> bool:
    """Whether the pair is identical and drawing again could help."""
    return a.text is not None and a.text == b.text


def comparison_key(pair: Pair, config: CompareConfig, recipe: Recipe) -> str:
    return recipe.key(comparison_id(pair), [m.model_dump() for m in pair.prompt.messages], config.num_draws)


def seed_key(pair: Pair, recipe: Recipe) -> str:
    """What seeds the draws: not how many there may be, so that a pair that differs at once is the same under any."""
    return recipe.key(comparison_id(pair), [m.model_dump() for m in pair.prompt.messages])


def comparison_row(pair: Pair, key: str, a: Generation | None, b: Generation | None) -> Comparison:
    return Comparison(
        row_id=comparison_id(pair),
        reuse_key=key,
        prompt_id=pair.prompt.prompt_id,
        completion_a=a.text if a else None,
        completion_b=b.text if b else None,
        num_tokens=sum(g.num_tokens for g in (a, b) if g),
        **comparison_verdict(pair, a, b),
    )


def comparison_verdict(pair: Pair, a: Generation | None, b: Generation | None) -> dict[str, str | None]:
    if a is None or b is None:
        return {"status": "skipped", "reason": f"prompt is {pair.prompt.status}: {pair.prompt.reason}"}
    for generation in (a, b):
        ended = verdict(generation, "completion")
        if ended["status"] != "ok":
            return ended
    if a.text == b.text:
        return {"status": "skipped", "reason": "identical pair"}
    return {"status": "ok", "reason": None}
