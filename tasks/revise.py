"""Critique and revision (section 3.1): the model criticises its completion under a principle, then rewrites it.

*Reads* `prompts`, `completions`, the constitution. *Writes* `revisions`, one row a round. Each round draws its own
principle; the next round starts from the revision, without the earlier critique (the paper runs four).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pydantic import Field

from constitutions import Principle, draw
from tasks.constitution import read_constitution
from tasks.generation import Core, GeneratingStage, Recipe, request_seed, verdict
from tasks.prompt_rows import beside_prompts, count_prompts, read_prompts, read_rows
from tasks.reuse import Reuse, nothing_kept
from tasks.schema import Completion, DatasetRef, Frozen, Message, ModelRef, Prompt, Revision
from tasks.serving import Generation, GenerationRequest, Sampling, TextGenerator
from tasks.store import Store


class ReviseConfig(Frozen):
    """How completions are criticised and revised."""

    num_rounds: int = Field(4, ge=1)
    """Critique and revision pairs of each completion (the paper: 4)."""
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
    reuse_key: str
    kept: dict[str, Any] | None = None
    """The round as an earlier run made it."""
    critique: Generation | None = None
    revision: Generation | None = None


class ReviseStage(GeneratingStage):
    """Every red-team completion criticised and revised, several times."""

    stage: ClassVar[str] = "revise"
    dataset: ClassVar[str] = "revisions"
    code_version: ClassVar[int] = 1
    row_type: ClassVar[type[Revision]] = Revision

    prompts: DatasetRef
    completions: DatasetRef
    constitution: DatasetRef
    helpful_only: ModelRef
    config: ReviseConfig

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
        principles = read_constitution(store, self.constitution).revision_principles()
        recipe = self.recipe()
        return lambda chains, generator, reuse: revise(chains, principles, generator, self.config, recipe, reuse)


def read_chains(store: Store, prompts: DatasetRef, completions: DatasetRef) -> Iterator[Chain]:
    """Each red-team training prompt with its completion, or with why there is none."""
    rows = (row for row in read_rows(store, completions, Completion) if row.sample == 0)
    for prompt, row in beside_prompts(read_prompts(store, prompts, "train"), rows):
        if prompt.kind == "red_team":
            problem = None if row.status == "ok" else f"completion is {row.status}: {row.reason}"
            yield Chain(prompt, row.completion or "", problem)


def revise(
    chains: Sequence[Chain],
    principles: Sequence[Principle],
    generator: TextGenerator,
    config: ReviseConfig,
    recipe: Recipe,
    reuse: Reuse = nothing_kept,
) -> list[Revision]:
    """All rounds of all chains, a row for each, chain by chain in order (section 3.1).

    A round whose critique or revision fails keeps its raw text and reason, and the next starts from the last good
    text. A chain keeps its rounds of earlier runs up to the first that is missing: what follows starts from its text.
    """
    fresh = [Chain(chain.prompt, chain.text, chain.problem) for chain in chains]  # a retried chunk starts anew
    for number in range(config.num_rounds):
        turns = [start_turn(chain, number, principles, recipe) for chain in fresh]
        open_turns = [turn for turn in turns if turn.chain.problem is None]
        kept = reuse([turn.reuse_key for turn in open_turns])
        for turn in open_turns:
            turn.kept = kept.get(turn.reuse_key)
        missing = [turn for turn in open_turns if turn.kept is None]
        run_critiques(missing, generator, config.sampling)
        run_revisions([turn for turn in missing if usable(turn.critique)], generator, config.sampling)
        for turn in turns:
            finish_turn(turn)
    return [row for chain in fresh for row in chain.rows]


def start_turn(chain: Chain, number: int, principles: Sequence[Principle], recipe: Recipe) -> Turn:
    """Draw the principle of this round and name the row."""
    prompt_id = chain.prompt.prompt_id
    principle = draw(principles, recipe.seed, "revise", prompt_id, number)
    messages = [m.model_dump() for m in chain.prompt.messages]
    requests = [principle.critique_request, principle.revision_request]
    return Turn(chain, number, principle, recipe.key(f"{prompt_id}/{number}", messages, chain.text, *requests))


def critique_messages(turn: Turn) -> list[Message]:
    """The conversation with the completion, then the principle's critique request."""
    completion = Message(role="assistant", content=turn.chain.text)
    request = Message(role="user", content=turn.principle.critique_request or "")
    return [*turn.chain.prompt.messages, completion, request]


def revision_messages(turn: Turn) -> list[Message]:
    """The same with the critique, then the revision request."""
    critique = Message(role="assistant", content=text_of(turn.critique))
    request = Message(role="user", content=turn.principle.revision_request or "")
    return [*critique_messages(turn), critique, request]


def run_critiques(turns: Sequence[Turn], generator: TextGenerator, sampling: Sampling) -> None:
    requests = [GenerationRequest(critique_messages(turn), request_seed(turn.reuse_key)) for turn in turns]
    for turn, critique in zip(turns, generator.generate(requests, sampling), strict=True):
        turn.critique = critique


def run_revisions(turns: Sequence[Turn], generator: TextGenerator, sampling: Sampling) -> None:
    # another seed than the critique's: eight other digits of the same key
    seeds = [request_seed(turn.reuse_key[8:]) for turn in turns]
    requests = [GenerationRequest(revision_messages(turn), seed) for turn, seed in zip(turns, seeds, strict=True)]
    for turn, revision in zip(turns, generator.generate(requests, sampling), strict=True):
        turn.revision = revision


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
    return Revision(
        row_id=f"{turn.chain.prompt.prompt_id}/{turn.round}",
        reuse_key=turn.reuse_key,
        prompt_id=turn.chain.prompt.prompt_id,
        round=turn.round,
        **principle_names(turn.principle),
        critique_request=turn.principle.critique_request or "",
        critique=turn.critique.text if turn.critique else None,
        revision_request=turn.principle.revision_request or "",
        revision=turn.revision.text if turn.revision else None,
        num_tokens=sum(g.num_tokens for g in (turn.critique, turn.revision) if g),
        **turn_verdict(turn),
    )


def turn_verdict(turn: Turn) -> dict[str, str | None]:
    """How the round ended: by its prompt's problem, its critique, or its revision."""
    if turn.chain.problem is not None:
        return {"status": "skipped", "reason": turn.chain.problem}
    assert turn.critique is not None
    if turn.revision is None:
        return verdict(turn.critique, "critique")
    return verdict(turn.revision, "revision")


def usable(generation: Generation | None) -> bool:
    return generation is not None and verdict(generation, "critique")["status"] == "ok"


def text_of(generation: Generation | None) -> str:
    return (generation.text if generation else None) or ""
