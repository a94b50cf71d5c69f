"""Whether each round of revision made its text better: the measure behind "more rounds".

*Reads* `prompts`, `completions`, `revisions`, the constitution. *Writes* `improvements`, one row for each revision: the
feedback model compares it with the text that it revised, under a drawn comparison principle and in both orders.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from statistics import fmean
from typing import Any, ClassVar, Literal, NamedTuple

from pydantic import Field

from constitutions import Principle, draw
from tasks.bootstrap import Interval, bootstrap_mean
from tasks.constitution import read_constitution
from tasks.generation import Core, GeneratingStage, Recipe
from tasks.judging import ANSWERS, ORDERS, judging_prompt, judging_request, normalise, unswap
from tasks.prompt_rows import beside_prompts, read_prompts, read_rows
from tasks.prompts import template
from tasks.reuse import Reuse, nothing_kept
from tasks.schema import Completion, DatasetRef, Improvement, ModelRef, Prompt, Revision, Settings
from tasks.serving import Choice, TextGenerator
from tasks.store import Store


class ImproveConfig(Settings):
    """Whether rounds of revision are measured, and what happens where one makes nothing better."""

    gate: Literal["off", "measure", "stop", "fail"] = "off"
    """`measure` reports only. `stop`: rounds are made one by one until one does not improve, which is not used; with
    run.serving.num_servers_kept at 2 the two models stay loaded. `fail`: all rounds are made, and the run fails where
    one does not improve."""
    min_win_prob: float = Field(0.5, ge=0, lt=1)
    """A round improves where the lower end of the 95 % interval of P(revision is better) is above this."""


class Case(NamedTuple):
    """One round's row and the text that it started from."""

    prompt: Prompt
    revision: Revision
    before: str


class ImproveStage(GeneratingStage):
    """Every round's revision compared with the text before it."""

    stage: ClassVar[str] = "improve"
    dataset: ClassVar[str] = "improvements"
    code_version: ClassVar[int] = 1
    operational: ClassVar[frozenset[str]] = frozenset({"gate", "min_win_prob"})
    row_type: ClassVar[type[Improvement]] = Improvement

    prompts: DatasetRef
    completions: DatasetRef
    revisions: DatasetRef
    constitution: DatasetRef
    feedback: ModelRef
    config: ImproveConfig

    def extra_identity(self, store: Store) -> dict[str, Any]:
        return {**super().extra_identity(store), "template": template("label")}

    def constitution_slice(self, store: Store) -> str:
        return read_constitution(store, self.constitution).questions_slice()

    @property
    def writer(self) -> ModelRef:
        return self.feedback

    def items(self, store: Store) -> Iterator[Case]:
        return read_cases(store, self.prompts, self.completions, self.revisions)

    def num_rows(self, store: Store) -> int:
        return self.revisions.rows

    def core(self, store: Store) -> Core:
        principles = read_constitution(store, self.constitution).comparison_principles()
        recipe = self.recipe()
        return lambda cases, generator, reuse: improve(cases, principles, generator, recipe, reuse)


def read_cases(store: Store, prompts: DatasetRef, completions: DatasetRef, revisions: DatasetRef) -> Iterator[Case]:
    """Every round of every red-team training prompt, with the newest good text before it."""
    first = (row for row in read_rows(store, completions, Completion) if row.sample == 0)
    beside = beside_prompts(read_prompts(store, prompts, "train"), first)
    chains = groupby(read_rows(store, revisions, Revision), key=lambda row: row.prompt_id)
    started = ((prompt, row.completion or "") for prompt, row in beside if prompt.kind == "red_team")
    for (prompt, text), (prompt_id, rows) in zip(started, chains, strict=True):
        assert prompt.prompt_id == prompt_id, f"revisions of {prompt_id} where those of {prompt.prompt_id} stand"
        for row in rows:
            yield Case(prompt, row, text)
            if row.status == "ok" and row.revision is not None:
                text = row.revision


def improve(
    cases: Sequence[Case],
    principles: Sequence[Principle],
    generator: TextGenerator,
    recipe: Recipe,
    reuse: Reuse = nothing_kept,
) -> list[Improvement]:
    """P(the revision is better than the text before it) for each case, in order.

    A no-op stands at 0.5 and asks nothing; a round without a revision has none.
    """
    drawn = [draw(principles, recipe.seed, "improve", c.prompt.prompt_id, c.revision.round) for c in cases]
    asked = [i for i, case in enumerate(cases) if case.revision.status == "ok"]
    texts = {i: comparison_texts(cases[i], drawn[i]) for i in asked}
    keys = [recipe.key(case.revision.row_id, texts.get(i)) for i, case in enumerate(cases)]
    kept = reuse([keys[i] for i in asked])
    missing = [i for i in asked if keys[i] not in kept]
    answers = iter(generator.choose([judging_request(text) for i in missing for text in texts[i]], ANSWERS))
    choices = {i: (next(answers), next(answers)) for i in missing}

    def row(i: int) -> Improvement:
        if keys[i] in kept:  # another principle may ask the same question
            return Improvement(**kept[keys[i]] | principle_names(drawn[i]))
        return improvement_row(cases[i], drawn[i], keys[i], choices.get(i))

    return [row(i) for i in range(len(cases))]


def comparison_texts(case: Case, principle: Principle) -> list[str]:
    """The question in both orders; `a` is the revision."""
    texts = case.revision.revision or "", case.before
    return [
        judging_prompt(case.prompt.messages, principle.comparison_question or "", *texts, order) for order in ORDERS
    ]


def principle_names(principle: Principle) -> dict[str, str]:
    return {"principle_id": principle.id, "principle_hash": principle.comparison_hash}


def improvement_row(case: Case, principle: Principle, key: str, choices: tuple[Choice, Choice] | None) -> Improvement:
    return Improvement(
        row_id=case.revision.row_id,
        reuse_key=key,
        prompt_id=case.prompt.prompt_id,
        round=case.revision.round,
        **principle_names(principle),
        **(unasked(case.revision) if choices is None else judged(choices)),
    )


def unasked(revision: Revision) -> dict[str, Any]:
    """A round that changed nothing, or has no revision."""
    if revision.status == "skipped" and revision.revision is not None:
        return {"win_prob": 0.5, "status": "skipped", "reason": revision.reason}
    return {"win_prob": None, "status": "skipped", "reason": f"revision is {revision.status}: {revision.reason}"}


def judged(choices: tuple[Choice, Choice]) -> dict[str, Any]:
    probs = [normalise(*unswap(choice, order)) for choice, order in zip(choices, ORDERS, strict=True)]
    given = [prob for prob in probs if prob is not None]
    if len(given) < len(ORDERS):
        return {"win_prob": None, "status": "failed", "reason": next(c.error for c in choices if c.error)}
    return {"win_prob": fmean(given)}


def improvement_of(rows: Sequence[Improvement], round: int) -> Interval | None:
    """Mean P(better) of a round, no-ops at 0.5 among them, with its interval over prompts; None where none has any."""
    of_round = [row for row in rows if row.round == round and row.win_prob is not None]
    probs = [row.win_prob for row in of_round if row.win_prob is not None]
    return bootstrap_mean(probs, [row.prompt_id for row in of_round]) if probs else None


def shortfall(rows: Sequence[Improvement], round: int, config: ImproveConfig) -> str | None:
    """Why a round does not count as improving, with its figures; None where it does."""
    measured = improvement_of(rows, round)
    if measured is None:
        return f"improve: round {round + 1} has no revision that could be compared with the text before it"
    if measured.low > config.min_win_prob:
        return None
    return (
        f"improve: round {round + 1} does not measurably improve on its texts: P(revision is better) is "
        f"{measured.mean:.3f}, 95 % interval {measured.low:.3f} to {measured.high:.3f} over {measured.num_units} "
        f"prompts, expected its lower end above improve.min_win_prob = {config.min_win_prob:g}"
    )
