"""Judges and comparisons that the tests of labelling share."""

from collections.abc import Callable, Iterator
from typing import Any

from constitutions import Constitution
from tasks.label import LabelConfig, examples_before, label, questionnaire_of
from tasks.labelling.questions import Question
from tasks.schema import Comparison, Label
from tasks.serving import FakeGenerator
from tests.worlds import constitution_of, principle, prompt, recipe

TWO = constitution_of("one", "two")
TENOR = {"conversation": "Say something.", "completion_a": "nice", "completion_b": "nasty", "answer": "A"}


def constitution(*principles: dict[str, Any], **fields: Any) -> Constitution:
    return Constitution.model_validate({"id": "test", "principles": list(principles), **fields})


def hard(name: str, **fields: Any) -> dict[str, Any]:
    return principle(name, hard_constraint=True, **fields)


def demonstration(name: str, **fields: Any) -> dict[str, Any]:
    return {"id": name, **TENOR, "conversation": f"Say {name}.", "question": f"Which is {name}?", **fields}


def comparison(a: str, b: str, **fields: Any) -> Comparison:
    values = {"row_id": "p/0", "reuse_key": "k", "prompt_id": prompt("ask").prompt_id}
    return Comparison.model_validate({**values, "completion_a": a, "completion_b": b, **fields})


def questions_of(*comparisons: Comparison, of: Constitution = TWO, seed: int = 0, **config: Any) -> list[Question]:
    asked = questionnaire_of(of, LabelConfig(**config), seed)
    return [question for each in comparisons for question in asked.of(prompt("ask"), each)]


def labels_of(
    *comparisons: Comparison,
    generator: FakeGenerator,
    of: Constitution = TWO,
    evaluator: str = "f",
    seed: int = 0,
    reuse: Any = lambda keys: {},
    **config: Any,
) -> list[Label]:
    """The core on these comparisons, as the stage binds it."""
    chosen = LabelConfig(**config)
    before = examples_before(of, chosen, seed)
    questions = questions_of(*comparisons, of=of, seed=seed, **config)
    return label(questions, generator, evaluator, chosen, recipe(seed=seed, sampling=None), before, reuse)


def prefers(text: str, logit: float = 2.0, **fake: Any) -> FakeGenerator:
    """A judge that likes the option that holds `text`, wherever it stands."""

    def weigh(request: Any) -> tuple[float, float]:
        shown = question_in(request)
        first = shown.index("(A) ") < shown.index(text) < shown.index("(B) ")
        return (-0.1, -0.1 - logit) if first else (-0.1 - logit, -0.1)

    return FakeGenerator(weigh=weigh, **fake)


def always(letter: str) -> FakeGenerator:
    return FakeGenerator(weigh=lambda request: (-0.1, -3.0) if letter == "A" else (-3.0, -0.1))


def question_in(request: Any) -> str:
    """The turn that holds the options, after all demonstrations."""
    return next(m.content for m in reversed(request.messages) if "Options:" in m.content)


def kept_by(rows: list[Label]) -> Callable[[Any], dict[str, dict[str, Any]]]:
    """A reuse that holds these rows, as the store keeps them."""
    held = {row.reuse_key: row.model_dump() for row in rows if row.status == "ok"}
    return lambda keys: {key: held[key] for key in keys if key in held}


def numbered(count: int) -> Iterator[Comparison]:
    for number in range(count):
        yield comparison(f"a {number}", f"b {number}", row_id=f"p/{number}")
