"""What the trainers learn from, and its way to the child process: one JSON object a line."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, Field

from tasks.schema import Frozen, Message, Origin, Preference

Example = TypeVar("Example", bound=BaseModel)


class SFTExample(Frozen):
    """A conversation that ends with a human turn, and what the assistant should say."""

    prompt: list[Message]
    completion: str


class PreferenceExample(Frozen):
    """Two completions of one prompt; the target is soft, so neither side need be the better one."""

    prompt: list[Message]
    chosen: str
    rejected: str
    target_prob: float = Field(ge=0, le=1)
    """P(chosen is better)."""
    weight: float = Field(1.0, gt=0, allow_inf_nan=False)
    """Of its loss, relative to the others."""
    origin: Origin = "ai"
    """Who said which is better. An `ai` comparison is of the policy's own samples; figures tell the two apart."""


class PromptExample(Frozen):
    """A conversation that ends with a human turn, for PPO to answer."""

    prompt: list[Message]


def preference_examples(preferences: list[Preference]) -> list[PreferenceExample]:
    """The usable preferences, in row order."""
    return [
        PreferenceExample(
            prompt=row.prompt,
            chosen=row.chosen,
            rejected=row.rejected,
            target_prob=row.target_prob,
            weight=row.weight,
            origin=row.origin,
        )
        for row in preferences
        if row.status == "ok"
    ]


def write_examples(path: Path, examples: Iterable[BaseModel]) -> Path:
    """One JSON object a line, in order; returns the path."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(example.model_dump_json() + "\n" for example in examples)
    return path


def read_examples(path: Path, model: type[Example]) -> Iterator[Example]:
    """What `write_examples` wrote, in order.

    Raises: ValueError: a line is not such an example.
    """
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield model.model_validate_json(line)
            except ValueError as error:
                raise ValueError(f"{path.name}:{number}: not a {model.__name__}: {error}") from error
