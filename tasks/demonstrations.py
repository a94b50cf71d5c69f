"""Worked examples before a request (sections 3.1 and 4.1): which of them a row shows, and the turns they make.

They come first and are the same for many rows, so that a server finds them in its prefix cache. The paper draws each
example's principle anew for every label; here rows share a number of selections, unless the config says 0.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TypeVar

from pydantic import Field

from constitutions import ComparisonDemonstration, Principle, RevisionDemonstration, draw, in_seeded_order
from constitutions.base import digest
from tasks.judging import judging_prompt, reasoned_turns
from tasks.schema import Message, Settings

Demonstration = TypeVar("Demonstration", RevisionDemonstration, ComparisonDemonstration)
Before = Callable[..., list[Message]]
"""The turns that go before the request of a row, by what names the row."""


class DemonstrationsConfig(Settings):
    """Which worked examples go before a request, where the constitution has any."""

    num_shown: int | None = Field(None, ge=0)
    """How many a row shows, drawn for it. Empty: all, as in the paper."""
    num_variants: int = Field(8, ge=0)
    """Rows share so many selections of examples, their sides and questions; 0: one of its own for each row."""


def selection(config: DemonstrationsConfig, seed: int, *key: str | int) -> tuple[str | int, ...]:
    """What names the selection that a row shows: one of the shared ones, or the row's own."""
    if config.num_variants == 0:
        return key
    return (int(digest([seed, "selection", list(key)])[:12], 16) % config.num_variants,)


def choose(
    demonstrations: Sequence[Demonstration], num_shown: int | None, seed: int, *key: str | int
) -> tuple[Demonstration, ...]:
    """The drawn ones, in the constitution's order. By their ids: what was not shown can be removed without effect."""
    ranked = sorted(demonstrations, key=lambda d: digest([seed, "shown", list(key), d.id]))
    shown = {d.id for d in ranked[:num_shown]}
    return tuple(d for d in demonstrations if d.id in shown)


def before_revision(
    demonstrations: Sequence[RevisionDemonstration], config: DemonstrationsConfig, seed: int, critique: bool = True
) -> Before:
    """Turns of prompt, completion, critique and revision; without the critique for a critique-free revision."""

    @lru_cache(maxsize=1024)
    def turns(name: tuple[str | int, ...]) -> tuple[Message, ...]:
        shown = choose(demonstrations, config.num_shown, seed, *name)
        return tuple(turn for each in shown for turn in revision_turns(each, critique))

    return lambda *key: list(turns(selection(config, seed, *key))) if demonstrations else []


def before_comparison(
    demonstrations: Sequence[ComparisonDemonstration],
    principles: Sequence[Principle],
    config: DemonstrationsConfig,
    seed: int,
    reasoned: bool = False,
) -> Before:
    """Turns of question and answer, sides balanced by the selection; with reasoning, only those that have some.

    An example without a question gets one of its own draw, as in the paper.
    """
    usable = [d for d in demonstrations if d.reasoning is not None] if reasoned else list(demonstrations)

    @lru_cache(maxsize=1024)
    def turns(name: tuple[str | int, ...]) -> tuple[Message, ...]:
        shown = choose(usable, config.num_shown, seed, *name)
        sided = in_seeded_order(shown, seed, *name)
        drawn = [each.question or draw(principles, seed, "shown", *name, each.id).comparison_question for each in sided]
        return tuple(
            turn
            for each, question in zip(sided, drawn, strict=True)
            for turn in comparison_turns(each, question or "", reasoned)
        )

    return lambda *key: list(turns(selection(config, seed, *key))) if usable else []


def revision_turns(demonstration: RevisionDemonstration, critique: bool = True) -> list[Message]:
    """The example as a chat."""
    d = demonstration
    turns = [Message(role=turn.role, content=turn.content) for turn in d.prompt]
    turns.append(Message(role="assistant", content=d.completion))
    pairs = [(d.critique_request, d.critique), (d.revision_request, d.revision)]
    for asked, said in pairs if critique else pairs[1:]:
        turns += [Message(role="user", content=asked), Message(role="assistant", content=said)]
    return turns


def comparison_turns(demonstration: ComparisonDemonstration, question: str, reasoned: bool) -> list[Message]:
    """The example as a chat, in the form of the question that follows it."""
    d = demonstration
    conversation = [Message(role=turn.role, content=turn.content) for turn in d.conversation]
    form = "label_reasoned" if reasoned else "label"
    text = judging_prompt(conversation, question, d.completion_a, d.completion_b, "ab", form)
    asked = reasoned_turns(text, d.reasoning or "") if reasoned else [Message(role="user", content=text)]
    return [*asked, Message(role="assistant", content=f"({d.answer})")]
