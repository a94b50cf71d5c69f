"""PPO's rollouts from a real vLLM server: it follows the policy's weights, and is found out where it does not."""

import shutil
from pathlib import Path

import pytest
import torch

from tasks.schema import Message
from tasks.serving.interface import ServingError
from tasks.training.encode import encode_prompt, load_tokenizer
from tasks.training.folders import load_policy, save_model
from tasks.training.ppo.vllm_rollouts import VLLMRollouts

pytestmark = pytest.mark.vllm

FOLDER = Path(__file__).parents[2] / "tasks" / "micro" / "model"
TOKENIZER = load_tokenizer(FOLDER)
QUESTIONS = ("How do I bake a cake?", "How do I mend a fence?", "Is it ok to lift a wagon?", "How do I paint a boat?")
PROMPTS = [encode_prompt(TOKENIZER, [Message(role="user", content=text)]) for text in QUESTIONS * 8]
UNIFORMS = torch.rand((len(PROMPTS), 24), dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def rollouts():
    with VLLMRollouts(FOLDER, "float32", 256, memory_share=0.5) as sampler:
        yield sampler


def sampled(rollouts: VLLMRollouts, policy: torch.nn.Module) -> list[list[int]]:
    return rollouts(policy, PROMPTS, UNIFORMS, 1.0, TOKENIZER.eos_token_id).completions


def test_rollouts_follow_the_policys_weights_without_a_new_server(rollouts):
    policy = load_policy(FOLDER).eval()
    first = sampled(rollouts, policy)
    server = rollouts._server
    assert sampled(rollouts, policy) == first
    assert all(1 <= len(ids) <= 24 and TOKENIZER.eos_token_id not in ids[:-1] for ids in first)
    assert len({tuple(ids) for ids in first}) > len(QUESTIONS)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    assert sampled(rollouts, policy) != first
    assert sampled(rollouts, load_policy(FOLDER).eval()) == first
    assert rollouts._server is server


def test_rollouts_from_other_weights_than_the_policys_are_refused(rollouts, monkeypatch):
    policy = load_policy(FOLDER).eval()
    sampled(rollouts, policy)
    monkeypatch.setattr(
        VLLMRollouts, "_push", lambda self, policy: self._server
    )  # a push that answers and does nothing
    with torch.no_grad():
        policy.get_output_embeddings().weight.mul_(1.1)
    with pytest.raises(ServingError, match=r"off by .* nats.*samples from another policy.*tie_word_embeddings: false"):
        sampled(rollouts, policy)


def test_rollouts_whose_server_does_not_answer_in_time_name_the_wait(rollouts, monkeypatch):
    sampled(rollouts, load_policy(FOLDER).eval())
    monkeypatch.setattr("tasks.serving.server.RELOAD_SECONDS", 1e-4)
    with pytest.raises(ServingError, match=r"did not take new weights.*waited at most 0\.0001 s"):
        sampled(rollouts, load_policy(FOLDER).eval())


def test_rollouts_of_tied_embeddings_are_refused_after_the_first_update(tmp_path):
    """vLLM 0.32 keeps the old output embedding and answers 200: the known case that parity is there for."""
    policy = load_policy(FOLDER)
    policy.config.tie_word_embeddings = True
    policy.tie_weights()
    shutil.copytree(FOLDER, tmp_path / "tied", ignore=shutil.ignore_patterns("*.safetensors"))
    save_model(policy, FOLDER, tmp_path / "tied", "float32")
    policy = load_policy(tmp_path / "tied").eval()
    assert policy.config.tie_word_embeddings
    with VLLMRollouts(tmp_path / "tied", "float32", 256, memory_share=0.5) as rollouts:
        sampled(rollouts, policy)
        with torch.no_grad():
            policy.get_input_embeddings().weight.mul_(1.3)
        with pytest.raises(ServingError, match="samples from another policy"):
            sampled(rollouts, policy)
