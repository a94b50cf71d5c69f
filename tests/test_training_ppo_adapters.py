"""PPO with adapters: one copy of the policy serves as the reference too, and what is kept is a plain model."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tasks.training.config import TrainerConfig
from tasks.training.encode import encode_prompt
from tasks.training.folders import load_policy
from tasks.training.ppo.episodes import Models, autocast, collect_episodes, load_models
from tasks.training.ppo.model import keep_frozen_in, response_logits, with_adapters
from tasks.training.ppo.rollout import Samples
from tasks.training.ppo.update import make_optimizer, optimise
from tests.ppo_ranks import CONFIG, PROMPTS, make_models, train

LORA = CONFIG.model_copy(update={"lora_rank": 4, "learning_rate": 3e-3, "value_learning_rate": 1e-2})
IDS = torch.tensor([[9, 10, 11, 12, 13], [14, 15, 16, 17, 18]])
RESPONSE = torch.tensor([[False, False, True, True, True]] * 2)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    return make_models(tmp_path_factory.mktemp("adapters"))


@pytest.fixture(scope="module")
def trained(folders, tmp_path_factory) -> tuple[Path, dict]:
    """A whole training with adapters: where it is, and its result."""
    folder = tmp_path_factory.mktemp("trained")
    config = LORA.model_copy(update={"eval_prompts": 0})  # the result is the last policy
    return folder, train(*folders, folder, config)[0]


def loaded(folders: tuple[Path, Path], **changes: object) -> Models:
    torch.manual_seed(0)
    return load_models(*folders, LORA.model_copy(update=changes))


def update(models: Models, config=LORA) -> None:
    """One update on freshly sampled completions."""
    prompts = [encode_prompt(models.tokenizer, prompt) for prompt in PROMPTS[:8]]
    uniforms = torch.rand((8, 6), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    episodes = collect_episodes(models, config, prompts, uniforms, 0.1)
    optimise(models, make_optimizer(models.learner, config), episodes, config, torch.Generator().manual_seed(0))


def test_reference_is_the_policy_without_its_adapter(folders):
    """Not another copy of the weights; learning does not move it by a bit."""
    models = loaded(folders)
    assert models.reference is models.learner.policy
    update(models)
    with torch.no_grad():
        base = response_logits(load_policy(folders[0]), IDS, RESPONSE, 1.0)
        adapted = response_logits(models.learner.policy, IDS, RESPONSE, 1.0)
        with models.as_reference():
            reference = response_logits(models.reference, IDS, RESPONSE, 1.0)
    assert torch.equal(reference, base)
    assert (adapted - base).abs().max() > 1e-3


def test_adapters_and_value_head_alone_are_trained(folders):
    names = {name for name, p in loaded(folders).learner.named_parameters() if p.requires_grad}
    assert {name.split(".")[0] for name in names} == {"policy", "value"}
    assert all("lora_" in name or "score" in name for name in names)
    assert [name for name in names if "score" in name] == [
        "value.base_model.model.score.modules_to_save.default.weight"
    ]


def test_untrained_adapters_change_nothing(folders):
    models = loaded(folders)
    with torch.no_grad():
        ours = response_logits(models.learner.policy, IDS, RESPONSE, 1.0)
        assert torch.equal(ours, response_logits(load_policy(folders[0]), IDS, RESPONSE, 1.0))


def test_adapters_learn(folders, tmp_path):
    changes = {"num_updates": 8, "batch_size": 32, "mini_batch_size": 16, "micro_batch_size": 16, "eval_prompts": 0}
    config = LORA.model_copy(update=changes | {"learning_rate": 3e-3, "kl_coef": 0.02})
    history = train(*folders, tmp_path, config)[0]["history"]
    scores = [line["score"] for line in history]
    assert sum(scores[-3:]) / 3 > scores[0] + 0.2
    assert abs(history[0]["kl"]) < 1e-6 and history[-1]["kl"] > 1  # exactly 0 where it is measured: see below


def test_resume_points_keep_trained_parameters_alone(trained):
    for file in ("model", "optimizer"):
        names = load_file(trained[0] / "points" / "step-00000004" / f"{file}.safetensors")
        assert all("lora_" in name or "score" in name for name in names)


def test_result_is_a_plain_model_with_linear_layers_changed(folders, trained):
    before = load_file(folders[0] / "model.safetensors")
    after = load_file(trained[0] / "model" / "model.safetensors")
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(name.endswith("_proj.weight") for name in changed)
    assert all(name in changed for name in before if "mlp" in name)
    load_policy(trained[0] / "model")


def test_resume_with_adapters_equals_uninterrupted(folders, trained, tmp_path):
    shutil.copytree(trained[0] / "points" / "step-00000002", tmp_path / "points" / "step-00000002")
    result, steps = train(*folders, tmp_path, LORA.model_copy(update={"eval_prompts": 0}))
    assert steps == [3, 4]
    assert result == trained[1]
    files = ["model/model.safetensors", "points/step-00000004/optimizer.safetensors"]
    assert all((tmp_path / name).read_bytes() == (trained[0] / name).read_bytes() for name in files)


def test_gradient_checkpointing_with_adapters_gives_the_same_bits(folders, trained, tmp_path):
    config = LORA.model_copy(update={"eval_prompts": 0, "gradient_checkpointing": True})
    assert train(*folders, tmp_path, config)[0]["history"] == trained[1]["history"]


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_first_kl_is_exactly_zero_in_bfloat16(folders, lora_rank):
    """Frozen layers kept in bfloat16 are what autocast makes of the policy's own: no noise in the penalty."""
    models = loaded(folders, precision="bfloat16", lora_rank=lora_rank)
    config = LORA.model_copy(update={"precision": "bfloat16"})
    prompts = [encode_prompt(models.tokenizer, prompt) for prompt in PROMPTS[:4]]
    uniforms = torch.rand((4, 6), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert not collect_episodes(models, config, prompts, uniforms, 0.1).kl.any()


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_first_kl_is_exactly_zero_in_float32_where_another_engine_sampled(folders, lora_rank):
    models = loaded(folders, lora_rank=lora_rank)
    prompts = [encode_prompt(models.tokenizer, prompt) for prompt in PROMPTS[:4]]
    samples = Samples([[30, 31, 32], [33], [34, 35], [36, 37, 38, 39]])
    given = torch.zeros((4, 6), dtype=torch.float64)
    assert not collect_episodes(models, LORA, prompts, given, 0.1, sample=lambda *_: samples).kl.any()


def test_frozen_linear_layers_in_bfloat16_compute_what_autocast_does(folders):
    whole, halved = load_policy(folders[0]).requires_grad_(False), load_policy(folders[0]).requires_grad_(False)
    keep_frozen_in("bfloat16", halved)
    halves = {name for name, p in halved.named_parameters() if p.dtype == torch.bfloat16}
    assert halves == {name for name, _ in halved.named_parameters() if "proj" in name or "lm_head" in name}
    with autocast(torch.device("cpu"), "bfloat16"), torch.no_grad():
        expected = response_logits(whole, IDS, RESPONSE, 1.0)
        assert torch.equal(response_logits(halved, IDS, RESPONSE, 1.0), expected)


def test_trained_layers_and_tied_embeddings_stay_float32(folders):
    policy = load_policy(folders[0])
    keep_frozen_in("bfloat16", policy)
    assert all(p.dtype == torch.float32 for p in policy.parameters())
    policy.lm_head.weight = policy.model.embed_tokens.weight
    keep_frozen_in("bfloat16", policy.requires_grad_(False))
    assert policy.lm_head.weight.dtype == torch.float32
    assert policy.model.layers[0].mlp.up_proj.weight.dtype == torch.bfloat16


def test_rank_zero_wraps_nothing(folders):
    policy = load_policy(folders[0])
    assert with_adapters(policy, TrainerConfig(lora_rank=0), "CAUSAL_LM") is policy
