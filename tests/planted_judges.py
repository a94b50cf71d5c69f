"""Fake feedback models with one planted fault each, and a small world in which a gate has to notice it."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path

from constitutions import Constitution
from tasks.gates import GatesConfig
from tasks.label import LabelConfig, LabelStage
from tasks.label_gates import LabelGatesStage
from tasks.probes import ProbeStage
from tasks.schema import Comparison, DatasetRef, Gate, Label, Message, Probe, Prompt
from tasks.serving import ChoiceRequest, FakeGenerator, GenerationRequest
from tasks.stage import RunContext
from tasks.store import Store
from tasks.store.identity import digest
from tests.worlds import (
    FAKE_MODEL,
    commit,
    commit_constitution,
    constitution_of,
    open_store,
    principle,
    prompt,
    rows_of,
    session_on,
)

NUM_COMPARISONS = 80
RUN = RunContext(max_failed_fraction=1.0)
Judge = Callable[[str, str], float]
"""P(the first option is better), given both texts."""


def pairs() -> list[tuple[str, str]]:
    """Completions whose quality has nothing to do with their length or place."""
    return [tuple(completion(f"{i}{side}") for side in "ab") for i in range(NUM_COMPARISONS)]  # type: ignore[misc]


def completion(name: str) -> str:
    return f"text {name}" + " word" * (uniform("length", name) * 20).__int__()


def uniform(*key: str) -> float:
    return int(digest(list(key))[:8], 16) / 2**32


def options(messages: list[Message]) -> tuple[str, str]:
    """The two texts of the last question in a chat."""
    asked = next(m.content for m in reversed(messages) if "(A) " in m.content and m.role == "user")
    found = re.search(r"\(A\) (.*)\n\(B\) (.*?)(?:\n|$)", asked)
    assert found, asked
    return found[1], found[2]


def good(first: str, second: str) -> float:
    """Knows what is harmful, and else has an opinion of each text that does not depend on its place."""
    quality = [uniform("quality", text) + 2 * ("HARM" not in text) for text in (first, second)]
    return 1 / (1 + math.exp(3 * (quality[1] - quality[0])))


def always_a(first: str, second: str) -> float:
    return 0.97


def longer(first: str, second: str) -> float:
    return 0.5 + 0.4 * ((len(first) > len(second)) - (len(first) < len(second)))


def at_random(first: str, second: str) -> float:
    return min(max(uniform(first, second), 0.001), 0.999)


def judge(prob: Judge, reasoning: Callable[[str], str] | None = None) -> FakeGenerator:
    """A feedback model; `reasoning` says something before the answer, given the letter that it will answer."""

    def weigh(request: ChoiceRequest) -> tuple[float, float]:
        p = prob(*options(list(request.messages)))
        return math.log(p), math.log(1 - p)

    def reply(request: GenerationRequest) -> str:
        assert reasoning is not None
        return reasoning("A" if prob(*options(list(request.messages))) > 0.5 else "B")

    return FakeGenerator(reply, weigh)


def agreeing(letter: str) -> str:
    return f"One of them is kinder. So ({letter}) is better."


def contradicting(letter: str) -> str:
    return f"One of them is kinder. So ({'B' if letter == 'A' else 'A'}) is better."


def refusing(letter: str) -> str:
    return "I'm sorry, but I can't compare texts like these."


def silent() -> FakeGenerator:
    """Says something else than an answer."""
    return FakeGenerator(weigh=lambda request: (-20.0, -21.0))


def write_canaries(path: Path, num: int = 24) -> Path:
    """Half of the safe sides are longer."""
    rows = [
        {"prompt": f"ask {i}", "safe": f"SAFE {i}" + " more" * (i % 2), "harmful": f"HARM {i}" + " more" * (1 - i % 2)}
        for i in range(num)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def constitution() -> Constitution:
    return Constitution.model_validate(
        {**constitution_of("tone").model_dump(), "principles": [principle("harm-1"), principle("tone")]}
    )


class Judged:
    """Comparisons, labels, probes and gates of some evaluators on a store of its own."""

    def __init__(self, folder: Path, **config: object) -> None:
        self.store: Store = open_store(folder / "store")
        prompts = [prompt(f"ask {i}") for i in range(NUM_COMPARISONS)]
        comparisons = [
            Comparison(row_id=f"{p.prompt_id}/0", reuse_key="k", prompt_id=p.prompt_id, completion_a=a, completion_b=b)
            for p, (a, b) in zip(prompts, pairs(), strict=True)
        ]
        self.prompts = commit(self.store, "prompts", prompts, Prompt)
        self.comparisons = commit(self.store, "comparisons", comparisons, Comparison)
        self.constitution = commit_constitution(self.store, constitution())
        canaries = write_canaries(folder / "canaries.jsonl")
        self.config = GatesConfig.model_validate({"canaries": str(canaries), **config})
        self.labels: dict[str, DatasetRef] = {}
        self.probes: dict[str, DatasetRef] = {}

    def ask(self, evaluator: str, generator: FakeGenerator, form: str = "soft") -> None:
        """Let a model label everything and answer the probes."""
        session, model = session_on(self.store, generator), FAKE_MODEL.model_copy(update={"content_hash": evaluator})
        common = {"run": RUN, "constitution": self.constitution, "feedback": model, "evaluator": evaluator}
        config = LabelConfig.model_validate({"form": form})
        label = LabelStage(prompts=self.prompts, comparisons=self.comparisons, config=config, **common)
        self.labels[evaluator] = label.make(session)
        probe = ProbeStage(config=self.config, demonstrations=config.demonstrations, **common)
        self.probes[evaluator] = probe.make(session)

    def rows(self, evaluator: str) -> tuple[list[Comparison], list[Label], list[Probe]]:
        found = [
            rows_of(self.store, ref, row_type)
            for ref, row_type in (
                (self.comparisons, Comparison),
                (self.labels[evaluator], Label),
                (self.probes[evaluator], Probe),
            )
        ]
        return found[0], found[1], found[2]

    def stage(self) -> LabelGatesStage:
        return LabelGatesStage(
            run=RUN, comparisons=self.comparisons, labels=self.labels, probes=self.probes, config=self.config
        )

    def gates(self) -> dict[str, Gate]:
        """By row id."""
        ref = self.stage().make(session_on(self.store, FakeGenerator()))
        return {gate.row_id: gate for gate in rows_of(self.store, ref, Gate)}


def failed(gates: dict[str, Gate]) -> set[str]:
    return {gate.gate for gate in gates.values() if not gate.passed}
