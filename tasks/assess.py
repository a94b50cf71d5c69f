"""What a judge says of each completion alone: how harmful it is, and what it does (section 4.3, figure 10).

*Reads* `prompts`, the `samples` of each policy. *Writes* `assessments`: for every sample its harmfulness from 0 to 4,
as the mean over the judge's probabilities of the five answers, and whether it complies, declines with a reason, evades
or lectures. The same text is asked about once, whichever policy said it.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

from tasks.generation import Core, GeneratingStage, Recipe
from tasks.judging import SCORES, choice_problem
from tasks.prompt_rows import beside_prompts, read_prompts, read_rows
from tasks.prompts import fill, template, transcript
from tasks.reuse import Reuse, nothing_kept
from tasks.schema import Assessment, DatasetRef, Message, ModelRef, Prompt, Sample, Settings
from tasks.serving import Choice, ChoiceRequest, TextGenerator
from tasks.store import Store

Aspect = Literal["harmfulness", "manner"]
ANSWERS: dict[Aspect, tuple[str, ...]] = {"harmfulness": SCORES[:5], "manner": SCORES[:4]}
"""What the answers to each question begin with."""


class AssessConfig(Settings):
    """What a judge is asked of each held-out completion alone."""

    asks: Literal["both", "harmfulness", "manner", "nothing"] = "both"
    """`harmfulness`: from 0 to 4. `manner`: complies, declines, evades or lectures."""

    @property
    def aspects(self) -> tuple[Aspect, ...]:
        """What is asked of each completion, in order."""
        return tuple(aspect for aspect in ANSWERS if self.asks in (aspect, "both"))


class Asked(NamedTuple):
    """One sample under one question."""

    prompt: Prompt
    policy: str
    sample: Sample
    aspect: Aspect


class AssessStage(GeneratingStage):
    """Every sample of every policy, by one judge."""

    stage: ClassVar[str] = "assess"
    dataset: ClassVar[str] = "assessments"
    code_version: ClassVar[int] = 1
    row_type: ClassVar[type[Assessment]] = Assessment

    prompts: DatasetRef
    samples: dict[str, DatasetRef]
    """By policy, in the order of training."""
    judge: str
    """Name of the judge in the rows."""
    model: ModelRef
    config: AssessConfig

    def extra_identity(self, store: Store) -> dict[str, Any]:
        templates = {aspect: template(aspect) for aspect in self.config.aspects}
        return {
            **super().extra_identity(store),
            "templates": templates,
            "judge": self.judge,
            "policies": list(self.samples),
        }

    @property
    def writer(self) -> ModelRef:
        return self.model

    def items(self, store: Store) -> Iterator[Asked]:
        for policy, ref in self.samples.items():
            rows = beside_prompts(read_prompts(store, self.prompts, "held_out"), read_rows(store, ref, Sample))
            for prompt, sample in rows:
                yield from (Asked(prompt, policy, sample, aspect) for aspect in self.config.aspects)

    def num_rows(self, store: Store) -> int:
        return sum(ref.rows for ref in self.samples.values()) * len(self.config.aspects)

    def core(self, store: Store) -> Core:
        recipe = self.recipe()
        return lambda asked, generator, reuse: assess(asked, generator, self.judge, recipe, reuse)


def assess(
    asked: Sequence[Asked], generator: TextGenerator, judge: str, recipe: Recipe, reuse: Reuse = nothing_kept
) -> list[Assessment]:
    """One row for each question, in order."""
    keys = [assess_key(each, recipe) for each in asked]
    usable = {key: each for key, each in zip(keys, asked, strict=True) if each.sample.status == "ok"}
    kept = reuse(list(usable))
    choices = choose({key: each for key, each in usable.items() if key not in kept}, generator)

    def row(each: Asked, key: str) -> Assessment:
        if key in kept:
            return Assessment(**kept[key] | names(each, judge))
        return assessment(each, judge, key, choices.get(key))

    return [row(each, key) for each, key in zip(asked, keys, strict=True)]


def assess_key(each: Asked, recipe: Recipe) -> str:
    """Who said it is no part of it."""
    said = [message.model_dump() for message in each.prompt.messages]
    return recipe.key(each.aspect, template(each.aspect), said, each.sample.completion)


def choose(missing: Mapping[str, Asked], generator: TextGenerator) -> dict[str, Choice]:
    """By key; the questions of one aspect together, since they have the same answers."""
    found = dict[str, Choice]()
    for aspect, answers in ANSWERS.items():
        keys = [key for key, each in missing.items() if each.aspect == aspect]
        requests = [ChoiceRequest([Message(role="user", content=text_of(missing[key]))]) for key in keys]
        found |= zip(keys, generator.choose(requests, answers), strict=True)
    return found


def text_of(each: Asked) -> str:
    values = {"conversation": transcript(each.prompt.messages), "completion": each.sample.completion or ""}
    return fill(template(each.aspect), values)


def assessment(each: Asked, judge: str, key: str, choice: Choice | None) -> Assessment:
    sample, ended = each.sample, dict[str, Any]()
    if choice is None:
        ended = {"status": "skipped", "reason": f"sample is {sample.status}: {sample.reason}"}
    elif problem := choice_problem(choice):
        ended = {"status": "failed", "reason": problem}
    elif choice.logprobs is not None:
        ended = {"probs": normalised(choice.logprobs)}
    return Assessment(**names(each, judge), reuse_key=key, **{"probs": None, **ended})


def normalised(logprobs: Sequence[float]) -> list[float]:
    """Probabilities over the answers alone."""
    most = max(logprobs)
    weights = [math.exp(logprob - most) for logprob in logprobs]
    return [weight / sum(weights) for weight in weights]


def names(each: Asked, judge: str) -> dict[str, Any]:
    return {
        "row_id": f"{each.policy}/{each.sample.row_id}/{each.aspect}",
        "prompt_id": each.prompt.prompt_id,
        "kind": each.prompt.kind,
        "group": each.prompt.group,
        "policy": each.policy,
        "sample": each.sample.sample,
        "judge": judge,
        "aspect": each.aspect,
    }
