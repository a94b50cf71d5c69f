"""Real lm-eval against a real vLLM server: the numbers are those of our own engine, not only printed."""

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.capabilities import CapabilitiesStage, folder_hash
from tasks.harness.environment import check_tasks, installed_version, lm_eval_python, task_names
from tasks.harness.results import Capability
from tasks.harness.running import CapabilityConfig
from tasks.schema import Message
from tasks.serving import GenerationRequest, Sampling, ServingConfig, close_all
from tasks.serving.transformers_engine import TransformersGenerator
from tasks.stage import RunContext, Session
from tasks.store import Store, resolve_external_model
from tasks.store.identity import table_to_rows
from tests.capability_tasks import CHOICES, WEIGHS, WRITES, WRITTEN, write_tasks

pytestmark = [pytest.mark.vllm, pytest.mark.long]

FOLDER = Path(__file__).parents[2] / "tasks" / "micro" / "model"
CONTEXT_TOKENS = 96
"""Less than the longest question has."""
TOLERANCE = 1e-3
"""Of the log-probability of a whole choice, in nats. Measured: 2e-5 in float32."""


class World:
    """A store, a folder of tasks, and lm-eval."""

    def __init__(self, folder: Path) -> None:
        self.python = lm_eval_python()
        self.include = write_tasks(folder / "tasks")
        self.store = Store.open(str(folder / "store"), cache=folder / "cache")
        self.scratch = folder / "scratch"
        self.serving = ServingConfig(
            scratch=self.scratch, max_model_tokens=CONTEXT_TOKENS, chat_template="model", num_servers_kept=1
        )

    def stage(self, task: str, config: CapabilityConfig) -> CapabilitiesStage:
        return CapabilitiesStage(
            run=RunContext(store=self.store.uri, serving=self.serving),
            model=resolve_external_model(str(FOLDER)),
            task=task,
            lm_eval=installed_version(self.python),
            include=self.include,
            include_hash=folder_hash(self.include),
            config=config,
        )

    def measure(self, task: str, config: CapabilityConfig) -> tuple[list[Capability], list[dict[str, Any]]]:
        """The rows that were committed, and what lm-eval kept of each document, in order."""
        stage = self.stage(task, config)
        ref = stage.make(Session(self.store))
        (path,) = (self.scratch / "lm-eval").glob(f"{ref.version[:12]}-*/*/samples_{task}_*.jsonl")
        samples = [json.loads(line) for line in path.read_text().splitlines()]
        return table_to_rows(self.store.read(ref), Capability), sorted(samples, key=lambda sample: sample["doc_id"])


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("capabilities")
        patch.setenv("HF_HOME", str(folder / "hf"))
        yield World(folder)
    close_all()


@pytest.fixture(scope="module")
def engine():
    return TransformersGenerator.load(FOLDER, ServingConfig(engine="transformers"))


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(FOLDER)


def logprob(engine: TransformersGenerator, tokenizer: Any, context: str, choice: str) -> float:
    """ln P(choice | context), the context without its beginning where both do not fit; after <|end|> if it is empty."""
    ids = tokenizer(context + choice)["input_ids"]
    start = len(tokenizer(context.rstrip())["input_ids"]) if context else 1
    ids = ids if context else [tokenizer.eos_token_id, *ids]
    cut = max(0, len(ids) - (CONTEXT_TOKENS - 1))
    ids, start = ids[cut:], start - cut
    rows = engine.next_logprobs([ids[:end] for end in range(start, len(ids))])
    return sum(float(row[token]) for row, token in zip(rows, ids[start:], strict=True))


def test_capabilities_log_likelihoods_equal_those_of_our_engine(world, engine, tokenizer):
    rows, samples = world.measure(WEIGHS, CapabilityConfig())
    right, worst = 0, 0.0
    for doc, sample in zip(CHOICES, samples, strict=True):
        ours = [logprob(engine, tokenizer, doc["question"], f" {choice}") for choice in doc["choices"]]
        theirs = [float(given[0][0]) for given in sample["resps"]]
        worst = max(worst, *(abs(a - b) for a, b in zip(theirs, ours, strict=True)))
        right += ours.index(max(ours)) == doc["answer"]
    print(f"worst difference {worst:.2e} nats over {2 * len(CHOICES)} choices")
    assert worst < TOLERANCE
    (accuracy,) = rows
    assert (accuracy.metric, accuracy.value) == ("acc", pytest.approx(right / len(CHOICES)))
    assert (accuracy.num_samples, accuracy.num_all, accuracy.num_truncated) == (len(CHOICES), len(CHOICES), 1)
    assert accuracy.task_version == "3"


def test_capabilities_texts_in_turns_equal_those_of_our_engine(world, engine):
    _, samples = world.measure(WRITES, CapabilityConfig(chat_template="model"))
    asked = [GenerationRequest([Message(role="user", content=doc["question"])], seed=0) for doc in WRITTEN]
    ours = [generation.text for generation in engine.generate(asked, Sampling(temperature=0, max_tokens=24))]
    assert [sample["resps"][0][0] for sample in samples] == ours
    assert all(ours)


def test_capabilities_limit_measures_the_first_documents_and_is_another_version(world):
    whole, limited = (world.stage(WEIGHS, CapabilityConfig(limit=limit)) for limit in (None, 2))
    assert whole.derivation(world.store).version != limited.derivation(world.store).version
    (accuracy,), _ = world.measure(WEIGHS, CapabilityConfig(limit=2))
    assert (accuracy.num_samples, accuracy.num_all) == (2, len(CHOICES))


def test_capabilities_tasks_of_a_folder_are_known_beside_lm_evals(world):
    known = task_names(world.python, world.include)
    check_tasks([WEIGHS, WRITES, "arc_easy", "mmlu"], known)
