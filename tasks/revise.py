"""Critique and revision (section 3.1): the model criticises its completion under a principle, then rewrites it.

*Reads* `prompts`, `completions`, the constitution. *Writes* `revisions`, one row a round. Each round draws its own
principle; the next round starts from the revision, without the earlier critique (the paper runs four). Every request
comes after the constitution's demonstrations and asks for its hard constraints beside the drawn principle. A revision
is stored without the `Revision:` that a model may put before it; a critique is stored as it was written.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pydantic import Field

from constitutions import Principle, RevisionDemonstration, draw
from tasks.constitution import read_constitution
from tasks.demonstrations import Before, DemonstrationsConfig, before_revision
from tasks.generation import Core, GeneratingStage, Recipe, request_seed
from tasks.prompt_rows import beside_prompts, count_prompts, read_prompts, read_rows
from tasks.prompts import template
from tasks.reuse import Reuse, nothing_kept
from tasks.revision.points_of_view import without_label
from tasks.revision.verdicts import Ended, read_critique, read_revision
from tasks.revision.wording import CritiqueForm, Requests, critique_turns, requests_of, revision_turns
from tasks.schema import Completion, DatasetRef, Message, ModelRef, Prompt, Revision, Settings
from tasks.serving import Generation, GenerationRequest, Sampling, TextGenerator
from tasks.store import Store


class ReviseConfig(Settings):
    """How completions are criticised and revised."""

    num_rounds: int = Field(4, ge=1)
    """Critique and revision pairs of each completion (the paper: 4)."""
    critique: CritiqueForm = "plain"
    """`reasoned`: with four yes or no answers, and a revision only where one of them is no. `none`: the revision is
    asked for at once (the paper's figure 7)."""
    demonstrations: DemonstrationsConfig = DemonstrationsConfig()
    """Which of the constitution's worked examples come first. A reasoned critique is shown none: they have no four
    answers, and would teach the other form."""
    sampling: Sampling = Sampling()
    """For critiques and revisions alike; temperature 1 in the paper."""


@dataclass
class Chain:
    """One prompt on its way through the rounds; `text` is the newest version of its completion."""

    prompt: Prompt
    text: str
    problem: str | None = None
    """Why there is nothing to revise."""
    rows: list[Revision] = field(default_factory=list)


@dataclass
class Turn:
    """One chain in one round: what is asked, and what came of it."""

    chain: Chain
    round: int
    principle: Principle
    requests: Requests
    before: list[Message]
    """Turns of the demonstrations."""
    reuse_key: str
    kept: dict[str, Any] | None = None
    """The round as an earlier run made it."""
    critique: Generation | None = None
    checks: dict[str, Any] = field(default_factory=dict)
    """Columns that a reasoned critique fills."""
    revision: Generation | None = None
    ended: Ended | None = None
    """Status and reason; None while there is something to ask."""


class ReviseStage(GeneratingStage):
    """Every red-team completion criticised and revised, several times."""

    stage: ClassVar[str] = "revise"
    dataset: ClassVar[str] = "revisions"
    code_version: ClassVar[int] = 2
    row_type: ClassVar[type[Revision]] = Revision

    prompts: DatasetRef
    completions: DatasetRef
    constitution: DatasetRef
    helpful_only: ModelRef
    config: ReviseConfig

    def extra_identity(self, store: Store) -> dict[str, Any]:
        framed = {"template": template("four_checks")} if self.config.critique == "reasoned" else {}
        return {**super().extra_identity(store), **framed}

    def constitution_slice(self, store: Store) -> str:
        return read_constitution(store, self.constitution).revision_slice()

    @property
    def writer(self) -> ModelRef:
        return self.helpful_only

    def items(self, store: Store) -> Iterator[Chain]:
        return read_chains(store, self.prompts, self.completions)

    def num_rows(self, store: Store) -> int:
        return count_prompts(store, self.prompts, "train", "red_team") * self.config.num_rounds

    def core(self, store: Store) -> Core:
        constitution, recipe = read_constitution(store, self.constitution), self.recipe()
        principles, constraints = constitution.revision_principles(), constitution.revision_constraints()
        before = before_rounds(constitution.revision_demonstrations, self.config, recipe.seed)
        return lambda chains, generator, reuse: revise(
            chains, principles, generator, self.config, recipe, reuse, constraints, before
        )


def read_chains(store: Store, prompts: DatasetRef, completions: DatasetRef) -> Iterator[Chain]:
    """Each red-team training prompt with its completion, or with why there is none."""
    rows = (row for row in read_rows(store, completions, Completion) if row.sample == 0)
    for prompt, row in beside_prompts(read_prompts(store, prompts, "train"), rows):
        if prompt.kind == "red_team":
            problem = None if row.status == "ok" else f"completion is {row.status}: {row.reason}"
            yield Chain(prompt, row.completion or "", problem)


def before_rounds(demonstrations: Sequence[RevisionDemonstration], config: ReviseConfig, seed: int) -> Before:
    """The turns before a round's requests; none where the critique is reasoned."""
    shown = () if config.critique == "reasoned" else demonstrations
    return before_revision(shown, config.demonstrations, seed, critique=config.critique != "none")


def nothing_before(*key: str | int) -> list[Message]:
    """Without demonstrations."""
    return []


def revise(
    chains: Sequence[Chain],
    principles: Sequence[Principle],
    generator: TextGenerator,
    config: ReviseConfig,
    recipe: Recipe,
    reuse: Reuse = nothing_kept,
    constraints: Sequence[Principle] = (),
    before: Before = nothing_before,
) -> list[Revision]:
    """All rounds of all chains, a row for each, chain by chain in order (section 3.1).

    A round whose critique or revision fails or is confused keeps its raw text and reason, and the next starts from
    the last good text. A chain keeps its rounds of earlier runs up to the first that is missing: what follows starts
    from its text.
    """

    def start_turn(chain: Chain, number: int) -> Turn:
        """Draw the principle of this round and name the row."""
        prompt_id = chain.prompt.prompt_id
        principle = draw(principles, recipe.seed, "revise", prompt_id, number)
        requests, shown = requests_of(principle, constraints, config.critique), before("revise", prompt_id, number)
        key = turn_key(chain, number, requests, shown, recipe)
        return Turn(chain, number, principle, requests, shown, key, ended=nothing_to_do(chain))

    fresh = [Chain(chain.prompt, chain.text, chain.problem) for chain in chains]  # a retried chunk starts anew
    for number in range(config.num_rounds):
        turns = [start_turn(chain, number) for chain in fresh]
        open_turns = [turn for turn in turns if turn.ended is None]
        kept = reuse([turn.reuse_key for turn in open_turns])
        for turn in open_turns:
            turn.kept = kept.get(turn.reuse_key)
        missing = [turn for turn in open_turns if turn.kept is None]
        if config.critique != "none":
            run_critiques(missing, generator, config)
        run_revisions([turn for turn in missing if turn.ended is None], generator, config.sampling)
        for turn in turns:
            finish_turn(turn)
    return [row for chain in fresh for row in chain.rows]


def turn_key(chain: Chain, number: int, requests: Requests, before: Sequence[Message], recipe: Recipe) -> str:
    """Of all texts of the round, the demonstrations among them where there are any; the requests name the form too."""
    messages = [m.model_dump() for m in chain.prompt.messages]
    shown = [[m.model_dump() for m in before]] if before else []
    return recipe.key(f"{chain.prompt.prompt_id}/{number}", messages, chain.text, *requests, *shown)


def nothing_to_do(chain: Chain) -> Ended | None:
    return None if chain.problem is None else {"status": "skipped", "reason": chain.problem}


def run_critiques(turns: Sequence[Turn], generator: TextGenerator, config: ReviseConfig) -> None:
    chats = [critique_turns(t.before, t.chain.prompt.messages, t.chain.text, t.requests) for t in turns]
    seeds = [request_seed(turn.reuse_key) for turn in turns]
    requests = [GenerationRequest(chat, seed) for chat, seed in zip(chats, seeds, strict=True)]
    for turn, critique in zip(turns, generator.generate(requests, config.sampling), strict=True):
        turn.critique = critique
        turn.ended, turn.checks = read_critique(critique, turn.chain.text, config.critique)


def run_revisions(turns: Sequence[Turn], generator: TextGenerator, sampling: Sampling) -> None:
    critiques = [turn.critique.text if turn.critique else None for turn in turns]
    chats = [
        revision_turns(t.before, t.chain.prompt.messages, t.chain.text, t.requests, critique)
        for t, critique in zip(turns, critiques, strict=True)
    ]
    # another seed than the critique's: eight other digits of the same key
    seeds = [request_seed(turn.reuse_key[8:]) for turn in turns]
    requests = [GenerationRequest(chat, seed) for chat, seed in zip(chats, seeds, strict=True)]
    for turn, critique, revision in zip(turns, critiques, generator.generate(requests, sampling), strict=True):
        turn.revision = revision
        turn.ended = read_revision(revision, turn.chain.text, critique or "")


def finish_turn(turn: Turn) -> None:
    """Write the round's row and move the chain to its revision, if there is a good one."""
    # the same requests may stand under another principle now
    row = Revision(**turn.kept | principle_names(turn.principle)) if turn.kept else revision_row(turn)
    turn.chain.rows.append(row)
    if row.status == "ok" and row.revision is not None:
        turn.chain.text = row.revision


def principle_names(principle: Principle) -> dict[str, str]:
    return {"principle_id": principle.id, "principle_hash": principle.revision_hash}


def revision_row(turn: Turn) -> Revision:
    assert turn.ended is not None
    revision = turn.revision.text if turn.revision else None
    return Revision(
        row_id=f"{turn.chain.prompt.prompt_id}/{turn.round}",
        reuse_key=turn.reuse_key,
        prompt_id=turn.chain.prompt.prompt_id,
        round=turn.round,
        **principle_names(turn.principle),
        critique_request=turn.requests.critique,
        critique=turn.critique.text if turn.critique else None,
        **turn.checks,
        revision_request=turn.requests.revision,
        revision=None if revision is None else without_label(revision, "revision"),
        num_tokens=sum(g.num_tokens for g in (turn.critique, turn.revision) if g),
        **turn.ended,
    )
