"""A vLLM server takes another model's weights, and then writes what a server that was started on them writes."""

import pytest
import torch

from tasks.schema import Message
from tasks.serving import ChoiceRequest, GenerationRequest, Sampling, ServingConfig, close_all, open_generator
from tasks.training.folders import load_policy, save_model
from tests.integration.test_vllm import FOLDER, MODEL

QUESTIONS = [
    [Message(role="user", content=f"How do I {verb} a {thing}?")]
    for verb in ("mend", "steal")
    for thing in ("fence", "clock", "boat")
]
SAMPLING = Sampling(max_tokens=32)


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A model that differs from the micro model in its weights alone."""
    folder = tmp_path_factory.mktemp("models") / "other"
    policy = load_policy(FOLDER)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    save_model(policy, FOLDER, folder, "float32")
    return MODEL.model_copy(update={"version": "other", "content_hash": "d" * 64}), folder


@pytest.fixture
def config(tmp_path):
    yield ServingConfig(scratch=tmp_path, reload_weights=True)
    close_all()


def written(config, model, folder):
    """Texts, log-probabilities and the process that made them."""
    with open_generator(model, folder, config) as generator:
        texts = generator.generate(
            [GenerationRequest(messages, seed) for seed, messages in enumerate(QUESTIONS * 8)], SAMPLING
        )
        weighed = generator.choose([ChoiceRequest(messages) for messages in QUESTIONS], ("(A", "(B"))
        return (texts, weighed), generator.server.process.pid


def test_reloaded_server_writes_as_a_fresh_one_and_one_that_keeps_its_weights_is_replaced(
    config, other, monkeypatch, caplog
):
    fresh_other, first = written(config, *other)
    reloaded_micro, second = written(config, MODEL, FOLDER)
    assert second == first and reloaded_micro != fresh_other
    reloaded_other, third = written(config, *other)
    assert third == first and reloaded_other == fresh_other  # to the last bit, on a CPU

    monkeypatch.setattr("tasks.serving.swap.reload_weights", lambda server, folder: None)  # answers, and does nothing
    fresh_micro, fourth = written(config, MODEL, FOLDER)
    assert fourth != first and fresh_micro == reloaded_micro
    assert "did not take its weights" in caplog.text and "off by" in caplog.text
