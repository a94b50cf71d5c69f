"""The interface: what a config says about a text, and the generator that tests use."""

import subprocess
import sys
from pathlib import Path

import pytest

from tasks.schema import Message
from tasks.serving import Choice, ChoiceRequest, FakeGenerator, Generation, GenerationRequest, Sampling, ServingConfig


def asked(*texts: str) -> list[GenerationRequest]:
    return [GenerationRequest([Message(role="user", content=text)], seed=i) for i, text in enumerate(texts)]


def test_serving_import_needs_no_heavy_package():
    heavy = {"torch", "transformers", "aiohttp", "vllm"}
    code = f"import sys, tasks.serving, tasks.processes; sys.exit(str({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert done.stderr.strip() == "set()"


@pytest.mark.parametrize(
    "elsewhere",
    [{"url": "http://gpu:8000"}, {"port": 9000}, {"max_concurrency": 8}, {"threads": 4}, {"scratch": "/other"}],
)
def test_identity_says_nothing_of_where_and_how_much_at_once(elsewhere):
    assert ServingConfig(**elsewhere).identity() == ServingConfig().identity()


@pytest.mark.parametrize(
    "change",
    [
        {"engine": "transformers"},
        {"dtype": "bfloat16"},
        {"chat_template": "human_assistant"},
        {"max_model_tokens": 64},
        {"extra_arguments": ("--quantization=fp8",)},
    ],
)
def test_identity_says_what_changes_a_text(change):
    assert ServingConfig(**change).identity() != ServingConfig().identity()


def test_sampling_out_of_range_is_refused():
    for wrong in ({"temperature": -0.1}, {"top_p": 0}, {"top_p": 1.1}, {"max_tokens": 0}, {"top_k": 3}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Sampling(**wrong)


def test_fake_generator_answers_from_its_functions_in_order():
    def reply(request: GenerationRequest) -> str | Generation:
        text = request.messages[0].content
        return Generation(None, error="too long") if text == "long" else f"{text} {request.seed}"

    fake = FakeGenerator(reply, weigh=lambda request: (-0.1, -2.0))
    assert [g.text for g in fake.generate(asked("a", "long", "b"), Sampling())] == ["a 0", None, "b 2"]
    assert fake.choose([ChoiceRequest([])], ("(A", "(B")) == [Choice((-0.1, -2.0), 1)]
    assert (fake.num_calls, len(fake.requests), len(fake.choices)) == (2, 3, 1)


def test_fake_generator_without_functions_is_constant_and_undecided():
    fake = FakeGenerator("same")
    assert [g.text for g in fake.generate(asked("a", "b"), Sampling())] == ["same", "same"]
    (choice,) = fake.choose([ChoiceRequest([])], ("(A", "(B"))
    assert choice.logprobs[0] == choice.logprobs[1]
