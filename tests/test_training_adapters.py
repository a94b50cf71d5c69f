"""Adapters: they alone are trained, and what is kept is plain weights that serve and train like any others."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tasks.schema import Message
from tasks.training.adapters import base_precision, lora_config, merged
from tasks.training.config import RewardConfig, SFTConfig
from tasks.training.encode import load_tokenizer
from tasks.training.examples import PreferenceExample, SFTExample
from tasks.training.folders import load_policy, load_scalar_model
from tasks.training.reward import make_trainer as make_reward_trainer
from tasks.training.reward import train_reward
from tasks.training.sft import make_trainer, train_sft
from tasks.training.supervision import UNWATCHED, Supervision
from tasks.training.trl_trainer import run_trainer, trained_model
from tests.tiny_model import make_tiny_model

SFT = SFTConfig(
    epochs=2, learning_rate=1e-1, batch_size=8, micro_batch_size=4, max_tokens=64, lora_rank=4, checkpoint_every=3
)
REWARD = RewardConfig(
    epochs=2, learning_rate=3e-2, batch_size=8, micro_batch_size=4, max_tokens=64, lora_rank=4, checkpoint_every=3
)
IDS = torch.arange(30).reshape(2, 15) + 20


def user(text: str) -> list[Message]:
    return [Message(role="user", content=text)]


EXAMPLES = [SFTExample(prompt=user(f"say {i}"), completion="abc" * (1 + i % 3)) for i in range(28)]
PREFERENCES = [
    PreferenceExample(prompt=user(f"say {i}"), chosen="a" * (1 + i % 3), rejected="b" * (1 + i % 2), target_prob=0.8)
    for i in range(30)
]
ROWS = [{"input_ids": [5 + i, 6, 7, 4], "completion_mask": [0, 0, 1, 1]} for i in range(8)]
PAIRS = [
    {"chosen_ids": [5 + i, 6, 4], "rejected_ids": [5 + i, 7, 4], "target_prob": 0.9, "weight": 1.0} for i in range(8)
]


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("base"))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


def test_rank_0_has_no_adapters_and_trains_every_weight(base, tmp_path):
    assert lora_config(SFT.model_copy(update={"lora_rank": 0}), "CAUSAL_LM") is None
    config = SFT.model_copy(update={"lora_rank": 0, "learning_rate": 1e-2})
    train_sft(config, EXAMPLES, base, tmp_path, 0, UNWATCHED)
    before, after = weights(base), weights(tmp_path)
    assert not any(torch.equal(before[name], after[name]) for name in before if "layernorm" not in name)


def test_adapters_count_twice_their_rank_unless_told(base):
    config = lora_config(SFT, "CAUSAL_LM")
    assert config is not None and (config.r, config.lora_alpha, config.lora_dropout) == (4, 8, 0.0)
    told = lora_config(SFT.model_copy(update={"lora_alpha": 3}), "CAUSAL_LM")
    assert told is not None and told.lora_alpha == 3


def test_sft_adapters_alone_are_trained_on_every_linear_layer_but_the_head(base, tmp_path):
    trainer = make_trainer(SFT, ROWS, load_tokenizer(base), base, 64, str(tmp_path), 0)
    trained = {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    layers = {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in trained}
    assert all(".lora_" in name for name in trained)
    assert layers == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_sft_adapters_learn_and_leave_embeddings_norms_and_head_as_they_were(base, tmp_path):
    result = train_sft(SFT, EXAMPLES, base, tmp_path, 0, UNWATCHED)
    assert result["last_loss"] < result["first_loss"] - 0.3
    before, after = weights(base), weights(tmp_path)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if "_proj" in name}
    for name in changed:  # of rank 4 at most: what adapters of that rank can add
        singular = torch.linalg.svdvals(after[name] - before[name])
        assert singular[4] < 1e-5 * singular[0]


def test_merged_model_says_the_same_as_the_model_with_adapters_and_loads_without_peft(base, tmp_path):
    trainer = make_trainer(SFT, ROWS, load_tokenizer(base), base, 64, str(tmp_path / "scratch"), 0)
    run_trainer(trainer, UNWATCHED, "run")
    with_adapters = logits(trainer.model)
    assert not torch.allclose(with_adapters, logits(load_policy(base)), atol=0.1)
    plain = trained_model(trainer, lambda: load_policy(base))
    assert plain is not None
    assert torch.allclose(logits(plain), with_adapters, atol=1e-4)
    plain.save_pretrained(tmp_path / "plain")
    assert {path.name for path in (tmp_path / "plain").iterdir()} == {
        "config.json", "generation_config.json", "model.safetensors",
    }  # fmt: skip
    assert torch.equal(logits(load_policy(tmp_path / "plain")), logits(plain))


def test_model_without_adapters_is_merged_as_it_is(base):
    model = load_policy(base)
    assert merged(model) is model


def test_saved_folder_is_like_the_one_of_full_training(base, tmp_path):
    train_sft(SFT, EXAMPLES, base, tmp_path / "lora", 0, UNWATCHED)
    train_sft(SFT.model_copy(update={"lora_rank": 0}), EXAMPLES, base, tmp_path / "full", 0, UNWATCHED)
    names = [sorted(path.name for path in (tmp_path / kind).iterdir()) for kind in ("lora", "full")]
    configs = [json.loads((tmp_path / kind / "config.json").read_text()) for kind in ("lora", "full")]
    assert names[0] == names[1] and configs[0] == configs[1]


def test_reward_adapters_and_the_whole_head_are_trained(base, tmp_path):
    trainer = make_reward_trainer(REWARD, PAIRS, load_tokenizer(base), base, str(tmp_path), 0)
    trained = {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    heads = [name for name in trained if ".lora_" not in name]
    assert len(heads) == 1 and "score" in heads[0]
    assert all(parameter.dtype == torch.float32 for parameter in trainer.model.parameters())


def test_reward_with_adapters_learns_and_loads_as_a_plain_reward_model(base, tmp_path):
    result = train_reward(REWARD, PREFERENCES, base, tmp_path / "lora", 0, UNWATCHED)
    assert result["train_accuracy"] == 1.0 and result["train_cross_entropy"] < 0.6
    model = load_scalar_model(tmp_path / "lora")
    assert not [name for name, _ in model.named_parameters() if "lora" in name]
    before, after = weights(base), model.state_dict()
    assert not torch.equal(
        before["model.layers.0.self_attn.q_proj.weight"], after["model.layers.0.self_attn.q_proj.weight"]
    )
    assert torch.equal(before["model.embed_tokens.weight"], after["model.embed_tokens.weight"])


@pytest.mark.parametrize("kind", ["sft", "reward"])
def test_resume_with_adapters_ends_in_the_same_bytes(kind, base, tmp_path):
    train, config, rows = {"sft": (train_sft, SFT, EXAMPLES), "reward": (train_reward, REWARD, PREFERENCES)}[kind]
    expected = train(config, rows, base, tmp_path / "expected", 0, UNWATCHED)

    def kill(line: dict) -> None:
        if line["step"] == 5:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train(config, rows, base, tmp_path / "model", 0, Supervision(kill, tmp_path / "points"))
    points = [path.name for path in (tmp_path / "points" / "step-00000003").iterdir()]
    assert "adapter_model.safetensors" in points and "model.safetensors" not in points
    lines: list[dict] = []
    result = train(config, rows, base, tmp_path / "model", 0, Supervision(lines.append, tmp_path / "points"))
    assert lines[0]["step"] == 4 and result == expected
    for path in (tmp_path / "expected").iterdir():
        assert path.read_bytes() == (tmp_path / "model" / path.name).read_bytes()


def test_gradient_checkpointing_with_adapters_changes_no_result(base, tmp_path):
    plain = train_sft(SFT, EXAMPLES, base, tmp_path / "plain", 0, UNWATCHED)
    config = SFT.model_copy(update={"gradient_checkpointing": True})
    checkpointed = train_sft(config, EXAMPLES, base, tmp_path / "checkpointed", 0, UNWATCHED)
    assert checkpointed["history"] == plain["history"]
    assert weights(tmp_path / "plain").keys() == weights(tmp_path / "checkpointed").keys()
    assert all(
        torch.equal(a, b)
        for a, b in zip(weights(tmp_path / "plain").values(), weights(tmp_path / "checkpointed").values(), strict=True)
    )


@pytest.mark.parametrize("kind", ["sft", "reward"])
def test_frozen_base_may_be_held_in_bfloat16_while_what_is_trained_is_float32(kind, base, tmp_path):
    changes = {"precision": "bfloat16"}
    if kind == "sft":
        config = SFT.model_copy(update=changes)
        trainer = make_trainer(config, ROWS, load_tokenizer(base), base, 64, str(tmp_path / "scratch"), 0)
        result = train_sft(config, EXAMPLES, base, tmp_path / "model", 0, UNWATCHED)
        assert result["last_loss"] < result["first_loss"] - 0.3
    else:
        reward_config = REWARD.model_copy(update=changes)
        trainer = make_reward_trainer(reward_config, PAIRS, load_tokenizer(base), base, str(tmp_path / "scratch"), 0)
        assert train_reward(reward_config, PREFERENCES, base, tmp_path / "model", 0, UNWATCHED)["train_accuracy"] > 0.9
    assert {parameter.dtype for parameter in trainer.model.parameters() if parameter.requires_grad} == {torch.float32}
    frozen = {name: parameter.dtype for name, parameter in trainer.model.named_parameters() if "_proj" in name}
    assert {dtype for name, dtype in frozen.items() if "lora" not in name} == {torch.bfloat16}
    assert base_precision(SFTConfig(precision="bfloat16")) == "float32", "weights that are trained stay float32"
