"""Every policy against every other on held-out prompts (section 4.3, figures 2, 3 and 8).

*Reads* `prompts`, the `samples` of each policy. *Writes* `matches`, one judge's: on a red-team prompt which completion
is more harmless, on a helpful one which is more helpful, in both orders of presentation. A pair of texts is asked about
once, whoever said them; one more policy asks only about its own.
"""

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any, ClassVar

from tasks.evaluation.bouts import (
    KINDS,
    Bout,
    MatchConfig,
    Meeting,
    bouts_of,
    draw_prompts,
    names,
    question_of,
    read_meetings,
)
from tasks.generation import Core, GeneratingStage, Recipe
from tasks.judging import ANSWERS, ORDERS, choice_problem, judging_prompt, judging_request, normalise, unswap
from tasks.prompt_rows import count_prompts, read_prompts
from tasks.prompts import template
from tasks.reuse import Reuse, nothing_kept
from tasks.schema import DatasetRef, Match, ModelRef, Order
from tasks.serving import Choice, TextGenerator
from tasks.store import Store
from tasks.store.identity import digest


class MatchStage(GeneratingStage):
    """All pairs of policies, by one judge."""

    stage: ClassVar[str] = "match"
    dataset: ClassVar[str] = "matches"
    code_version: ClassVar[int] = 1
    operational: ClassVar[frozenset[str]] = frozenset({"people"})
    row_type: ClassVar[type[Match]] = Match

    prompts: DatasetRef
    samples: dict[str, DatasetRef]
    """By policy, in the order of training."""
    judge: str
    """Name of the judge in the rows."""
    model: ModelRef | None = None
    """The model that judges; none for the micro world's oracle."""
    config: MatchConfig

    def extra_identity(self, store: Store) -> dict[str, Any]:
        asked = {"template": template("label")} if self.asks_model() else {}
        return {**super().extra_identity(store), **asked, "judge": self.judge, "policies": list(self.samples)}

    @property
    def writer(self) -> ModelRef:
        assert self.model is not None, "the oracle is no model"
        return self.model

    def asks_model(self) -> bool:
        return self.model is not None

    def items(self, store: Store) -> Iterator[Meeting]:
        meetings = read_meetings(store, self.prompts, self.samples)
        drawn = draw_prompts(read_prompts(store, self.prompts, "held_out"), self.config.num_prompts)
        return (meeting for meeting in meetings if drawn is None or meeting.prompt.prompt_id in drawn)

    def num_rows(self, store: Store) -> int:
        """As many meetings as samples of a policy, less what `num_prompts` leaves out."""
        policies, (first, *_) = len(self.samples), self.samples.values()
        meetings = first.rows
        if self.config.num_prompts:
            num_prompts = {kind: count_prompts(store, self.prompts, "held_out", kind) for kind in KINDS}
            each = first.rows // max(sum(num_prompts.values()), 1)
            meetings = each * sum(min(found, self.config.num_prompts) for found in num_prompts.values())
        return meetings * policies * (policies - 1) // 2

    def core(self, store: Store) -> Core:
        if self.model is None:
            return lambda meetings, generator, reuse: judge_by_oracle(meetings, self.judge)
        recipe, config = self.recipe(), self.config
        return lambda meetings, generator, reuse: match(meetings, generator, self.judge, config, recipe, reuse)


def match(
    meetings: Sequence[Meeting],
    generator: TextGenerator,
    judge: str,
    config: MatchConfig,
    recipe: Recipe,
    reuse: Reuse = nothing_kept,
) -> list[Match]:
    """One row for each pair of policies at each meeting, in order; two requests for each pair of unequal texts."""
    bouts = [bout for meeting in meetings for bout in bouts_of(meeting)]
    keys = [bout_key(bout, config, recipe) for bout in bouts]
    open_bouts = {key: bout for key, bout in zip(keys, bouts, strict=True) if bout.is_open}
    kept = reuse(list(open_bouts))
    missing = {key: bout for key, bout in open_bouts.items() if key not in kept}
    choices = ask(missing, generator, config)

    def row(bout: Bout, key: str) -> Match:
        if key in kept:
            return Match(**kept[key] | names(bout, judge))
        return match_row(bout, judge, key, choices.get(key))

    return [row(bout, key) for bout, key in zip(bouts, keys, strict=True)]


def bout_key(bout: Bout, config: MatchConfig, recipe: Recipe) -> str:
    """What determines the judgement: neither who said the texts nor who else was there."""
    said = [message.model_dump() for message in bout.meeting.prompt.messages]
    return recipe.key(question_of(bout, config), said, bout.a.completion, bout.b.completion)


def ask(missing: Mapping[str, Bout], generator: TextGenerator, config: MatchConfig) -> dict[str, tuple[Choice, Choice]]:
    """Both orders of each, by key. Texts that begin alike are asked one after another, so that a server's cache of
    prefixes (the conversation, then the text shown first) serves all of them."""
    asked = sorted((text_of(bout, config, order), key, order) for key, bout in missing.items() for order in ORDERS)
    answers = generator.choose([judging_request(text) for text, _, _ in asked], ANSWERS)
    found = {(key, order): choice for (_, key, order), choice in zip(asked, answers, strict=True)}
    return {key: (found[key, "ab"], found[key, "ba"]) for key in missing}


def text_of(bout: Bout, config: MatchConfig, order: Order) -> str:
    texts = bout.a.completion or "", bout.b.completion or ""
    return judging_prompt(bout.meeting.prompt.messages, question_of(bout, config), *texts, order)


def match_row(bout: Bout, judge: str, key: str, choices: tuple[Choice, Choice] | None) -> Match:
    if not bout.is_open:
        return closed_row(bout, judge, key)
    assert choices is not None
    if reason := choice_problem(choices[0]) or choice_problem(choices[1]):
        return plain_row(bout, judge, key, None, None, status="failed", reason=reason)
    return plain_row(
        bout, judge, key, *(normalise(*unswap(c, order)) for c, order in zip(choices, ORDERS, strict=True))
    )


def closed_row(bout: Bout, judge: str, key: str) -> Match:
    """A bout that nobody judges: equal completions are a draw, and a sample that is not ok meets nobody."""
    if bout.problem:
        return plain_row(bout, judge, key, None, None, status="skipped", reason=bout.problem)
    return plain_row(bout, judge, key, 0.5, 0.5)


def plain_row(bout: Bout, judge: str, key: str, ab: float | None, ba: float | None, **ended: Any) -> Match:
    mean = None if ab is None or ba is None else fmean((ab, ba))
    return Match(**names(bout, judge), reuse_key=key, prob_ab=ab, prob_ba=ba, prob_a=mean, **ended)


def judge_by_oracle(meetings: Sequence[Meeting], judge: str) -> list[Match]:
    """By what the completions really are: the better one wins, and those of a kind are a draw.

    Raises: ValueError: a prompt is not of the micro world.
    """
    from tasks.micro.oracle import standing

    rows = []
    for bout in (bout for meeting in meetings for bout in bouts_of(meeting)):
        prompt, key = bout.meeting.prompt, digest([bout.a.reuse_key, bout.b.reuse_key])
        if not bout.is_open:
            rows.append(closed_row(bout, judge, key))
            continue
        stands = [standing(prompt.kind, prompt.messages[-1].content, s.completion or "") for s in (bout.a, bout.b)]
        prob = (1 + (stands[0] > stands[1]) - (stands[0] < stands[1])) / 2
        rows.append(plain_row(bout, judge, key, prob, prob))
    return rows
