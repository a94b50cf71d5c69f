"""The newest rows of a stage that writes texts, for people to read while it works."""

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from flows.artifacts.text import figure, folded, plain, tag, texts_table
from tasks.schema import Comparison, Completion, Improvement, Judgement, Label, Prompt, Revision, Row, Sample

NUM_ROWS = 6
WARNING = "What belongs to red-team prompts is folded: it may be harmful. Long texts are cut."
KINDS = {"red_team": "red-team", "helpful": "helpful"}
READABLE = (Completion, Sample, Revision, Comparison, Label, Judgement, Improvement)
"""Rows that somebody would want to read; all come of items that have a `prompt`."""
Texts = list[tuple[str, str | None]]


class Newest(NamedTuple):
    """A row, and the item that it was made of: what has the prompt."""

    row: Row
    item: Any


class NewestRows:
    """The last few rows that have something to read."""

    def __init__(self) -> None:
        self.count = 0
        self._newest: deque[Newest] = deque(maxlen=NUM_ROWS)

    def add(self, rows: Sequence[Row], items: Sequence[Any]) -> None:
        """Rows of a finished chunk and its items, in one order; an item may have several rows."""
        if not rows or not isinstance(rows[0], READABLE):
            return
        self.count += len(rows)
        if len(items) == len(rows):
            self._newest.extend(Newest(*pair) for pair in zip(rows[-NUM_ROWS:], items[-NUM_ROWS:], strict=True))
            return
        by_prompt = {item.prompt.prompt_id: item for item in items[-NUM_ROWS:]}
        last = rows[-NUM_ROWS:]
        self._newest.extend(Newest(row, by_prompt[prompt_of(row)]) for row in last if prompt_of(row) in by_prompt)

    def __bool__(self) -> bool:
        return bool(self._newest)

    def heading(self) -> str:
        return f"The newest {len(self._newest)} of {self.count} rows"

    def blocks(self) -> list[str]:
        """A fold for each, the newest first. Those of red-team prompts are closed."""
        return [tag("p", plain(WARNING)), *(block(newest) for newest in reversed(self._newest))]


def prompt_of(row: Row) -> str:
    return str(getattr(row, "prompt_id", ""))


def block(newest: Newest) -> Markup:
    """One row. Its title has nothing that a model or an attacker wrote."""
    prompt: Prompt = newest.item.prompt
    texts: Texts = [("prompt", prompt.messages[-1].content if prompt.messages else None), *texts_of(*newest)]
    texts += [("why", newest.row.reason)]
    title = f"{KINDS[prompt.kind]} prompt {prompt.prompt_id[:8]}{place_of(newest.row)}: {newest.row.status}"
    return folded(title, texts_table((name, text) for name, text in texts if text), prompt.kind == "helpful")


def place_of(row: Row) -> str:
    """Which of the prompt's rows it is."""
    if isinstance(row, Revision | Improvement):
        return f", round {row.round + 1}"
    if isinstance(row, Label):
        return f", order {row.order}, P(first is better) {figure(row.prob_a)}"
    if isinstance(row, Judgement):
        return f", policy {row.policy}" + (f", {row.verdict}" if row.verdict else "")
    return ""


def texts_of(row: Row, item: Any) -> Texts:
    """What there is to read, by name; of a judgement also what was judged."""
    match row:
        case Completion() | Sample():
            return [("completion", row.completion)]
        case Revision():
            return [("principle", row.principle_id), ("critique", row.critique), ("revision", row.revision)]
        case Comparison():
            return [("first", row.completion_a), ("second", row.completion_b)]
        case Label():
            asked = [("first", item.comparison.completion_a), ("second", item.comparison.completion_b)]
            return [("principle", row.principle_id), *asked, ("reasoning", row.reasoning)]
        case Judgement():
            return [("completion", item.sample.completion), ("P(better than the base's)", probability(row.win_prob))]
        case Improvement():
            return [("principle", row.principle_id), ("P(the revision is better)", probability(row.win_prob))]
    return []


def probability(value: float | None) -> str | None:
    return None if value is None else figure(value)
