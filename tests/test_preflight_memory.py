"""The estimate against what torch really keeps, and by hand."""

from pathlib import Path
from typing import Any

import pytest

from tasks.training.config import RewardConfig, SFTConfig
from tasks.training.launch_config import LaunchConfig
from tasks.training.preflight import activations as act
from tasks.training.preflight import memory
from tasks.training.preflight.device import Device
from tasks.training.preflight.memory import Lengths, Training, default_lengths, memory_parts, peak
from tasks.training.preflight.shape import LLAMA_7B, ModelShape, read_shape
from tasks.training.rl_config import DPOConfig, GroupConfig, PPOConfig
from tests.tiny_model import make_tiny_model

GPU = Device(kind="cuda", name="GPU", count=8, bytes=40 * 2**30, source="test")
CPU = Device(kind="cpu", name="CPU", count=1, bytes=8 * 2**30, source="test")
SHAPE = ModelShape(
    num_parameters=1000,
    num_linear=600,
    num_head=150,
    num_embedding=200,
    largest_matrix=200,
    largest_layer=300,
    adapter_width=40,
    hidden=10,
    num_layers=2,
    queries=10,
    keys=5,
    inner=30,
    vocabulary=15,
    context=64,
)
"""A model small enough for sums by hand."""


def training(kind: Any, config: Any, launch: LaunchConfig | None = None, device: Device = GPU) -> Training:
    rewards = (SHAPE,) if kind in ("ppo", "rloo", "grpo") else ()
    return Training(
        kind=kind,
        config=config,
        policy=SHAPE,
        rewards=rewards,
        lengths=Lengths(prompt=6, row=8),
        launch=launch or LaunchConfig(),
        device=device,
    )


def parts_of(*of: Any, **named: Any) -> dict[str, int]:
    return {part.name: part.bytes for part in memory_parts(training(*of, **named))}


def test_shape_counts_what_the_real_model_has(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    folder = make_tiny_model(tmp_path / "m", hidden=64, layers=3)
    policy, scalar = read_shape(folder, "tokens"), read_shape(folder, "scalar")
    real = AutoModelForCausalLM.from_pretrained(folder)
    assert policy.num_parameters == sum(p.numel() for p in real.parameters())
    assert policy.largest_layer == sum(p.numel() for p in real.model.layers[0].parameters())
    assert (policy.hidden, policy.num_layers, policy.inner, policy.vocabulary) == (64, 3, 192, 320)
    real = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1)
    assert scalar.num_parameters == sum(p.numel() for p in real.parameters())
    assert scalar.num_head == 64


def test_shape_tied_embedding_counts_once() -> None:
    from transformers import LlamaConfig

    from tasks.training.preflight.shape import shape_of

    sizes: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "vocab_size": 100}
    tied, untied = (
        shape_of(LlamaConfig(**sizes, num_attention_heads=1, tie_word_embeddings=tie), "tokens")
        for tie in (True, False)
    )
    assert untied.num_parameters - tied.num_parameters == 100 * 32
    assert tied.num_head == untied.num_head == tied.num_embedding == 100 * 32


def test_shape_of_a_7b_llama_is_read_without_any_weights() -> None:
    assert read_shape(Path(LLAMA_7B), "tokens").num_parameters == 6_738_415_616


def test_shape_folder_without_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no config.json that transformers knows"):
        read_shape(tmp_path, "tokens")


@pytest.mark.parametrize("rank", [0, 4])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_saved_by_layer_is_what_torch_keeps(tmp_path: Path, rank: int, precision: Any) -> None:
    few, many = (kept_by_forward(tmp_path / f"{n}", n, rank, precision, checkpointing=False) for n in (1, 3))
    shape = read_shape(tmp_path / "1", "tokens")
    numbers = training("sft", SFTConfig(precision=precision, lora_rank=rank)).numbers
    expected = 2 * ROWS * TOKENS * act.saved_by_layer(shape, numbers)
    assert many - few == pytest.approx(expected, rel=0.03)


def test_activations_checkpointing_keeps_the_input_of_each_layer(tmp_path: Path) -> None:
    few, many = (kept_by_forward(tmp_path / f"{n}", n, 0, "float32", checkpointing=True) for n in (1, 3))
    shape = read_shape(tmp_path / "1", "tokens")
    deeper = shape.model_copy(update={"num_layers": 3})
    numbers = act.Arithmetic(inner=4, stream=4, adapters=False)
    said = [act.activations(of, ROWS * TOKENS, numbers, checkpointing=True) for of in (shape, deeper)]
    assert many - few == said[1] - said[0]


def test_saved_by_layer_by_hand() -> None:
    # h 10, q 10, f 30: norms 4h + results 2h + attention 4q + feed-forward 4f = 40 + 20 + 40 + 120 numbers of 4 bytes
    assert act.saved_by_layer(SHAPE, act.Arithmetic(4, 4, False)) == 4 * 220
    # norms 4h of 4 bytes; five casts of h, 4q and 4f of 2
    assert act.saved_by_layer(SHAPE, act.Arithmetic(2, 4, False)) == 4 * 40 + 2 * (50 + 40 + 120)


def test_adapters_count_is_that_of_peft(tmp_path: Path) -> None:
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    from tasks.training.adapters import lora_config

    folder = make_tiny_model(tmp_path / "m", hidden=64)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(folder), lora_config(SFTConfig(lora_rank=3), "CAUSAL_LM")
    )
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert read_shape(folder, "tokens").num_adapter(3) == trained


def test_sft_all_weights_by_hand() -> None:
    parts = parts_of("sft", SFTConfig(micro_batch_size=2, batch_size=2))
    assert parts["policy: weights"] == 4000
    assert parts["policy: optimizer state"] == 8000
    assert parts["policy: gradients"] == 4000
    # 16 tokens: 2 layers of 880, the last norm's 3h and the flow's 2h + 2f of 4 bytes
    assert parts["policy: activations"] == 16 * (2 * 880 + 4 * 30 + 4 * 80)
    # on a GPU one tile of 16 by 15 in place, and float32 gradients of head and input
    assert parts["logits"] == 16 * 15 * 4 + 4 * (16 * 10 + 150)
    assert not [name for name in parts if name.startswith(("reference", "reward", "value"))]


def test_ppo_holds_four_models_of_which_two_learn() -> None:
    parts = parts_of("ppo", PPOConfig(batch_size=2, mini_batch_size=2, micro_batch_size=2, max_tokens=2))
    for name in ("policy", "value model"):
        assert [parts[f"{name}: {part}"] for part in ("weights", "optimizer state", "gradients")] == [4000, 8000, 4000]
    assert parts["reference model: weights"] == parts["reward model: weights"] == 4000
    assert parts["logits"] == 2 * 2 * 15 * 4 * 4  # completion tokens alone, four float32 copies
    assert parts["keys and values"] == 3 * (2 * 8) * 5 * 8  # 2 layers and a copy, 16 tokens, 5 wide, key and value


def test_ppo_with_adapters_has_no_reference_and_small_optimizer_state() -> None:
    parts = parts_of("ppo", PPOConfig(lora_rank=2, precision="bfloat16"))
    assert "reference model: weights" not in parts
    assert parts["policy: optimizer state"] == 8 * 2 * 40
    assert parts["value model: optimizer state"] == 8 * (2 * 40 + 150)  # and the scalar head
    # frozen linear layers in bfloat16, embeddings in float32, adapters in float32
    assert parts["policy: weights"] == 4 * 200 + 2 * 800 + 4 * 80


def test_ppo_keeps_the_best_policy_where_the_machine_is_the_device() -> None:
    assert parts_of("ppo", PPOConfig(), device=CPU)["best policy so far"] == 4000
    assert "best policy so far" not in parts_of("ppo", PPOConfig())
    assert "best policy so far" not in parts_of("ppo", PPOConfig(eval_prompts=0), device=CPU)


def test_bfloat16_keeps_float32_weights_and_adds_copies() -> None:
    parts = parts_of("sft", SFTConfig(precision="bfloat16"))
    assert parts["policy: weights"] == 4000
    assert parts["policy: bfloat16 copies"] == 2 * 600


def test_held_out_reward_model_is_counted() -> None:
    one = training("ppo", PPOConfig())
    two = one.model_copy(update={"rewards": (SHAPE, SHAPE)})
    names = {part.name: part.bytes for part in memory_parts(two)}
    assert names["held-out reward model: weights"] == 4000
    assert peak(memory_parts(two)) >= peak(memory_parts(one)) + 4000


def test_comparisons_count_both_sides() -> None:
    one = parts_of("sft", SFTConfig(micro_batch_size=2, batch_size=2))["policy: activations"]
    assert parts_of("dpo", DPOConfig(micro_batch_size=2))["policy: activations"] == 2 * one
    assert parts_of("reward", RewardConfig(micro_batch_size=2))["reward model: activations"] == 2 * one


def test_group_samples_a_whole_step_and_drops_the_reference_without_kl() -> None:
    config = GroupConfig(batch_size=16, group_size=4, micro_batch_size=4)
    parts = parts_of("grpo", config)
    assert parts["keys and values"] == 3 * (16 * 8) * 5 * 8
    assert parts["reference model: weights"] == 4000
    assert "reference model: weights" not in parts_of("grpo", config.model_copy(update={"kl_coef": 0.0}))


def test_sharding_divides_what_it_divides() -> None:
    full = parts_of("sft", SFTConfig())
    fsdp, zero2 = (
        parts_of("sft", SFTConfig(), LaunchConfig(num_processes=4, sharding=kind)) for kind in ("fsdp2", "zero2")
    )
    for part in ("optimizer state", "gradients"):
        assert fsdp[f"policy: {part}"] == zero2[f"policy: {part}"] == full[f"policy: {part}"] // 4
    assert fsdp["policy: weights"] == full["policy: weights"] // 4
    assert zero2["policy: weights"] == full["policy: weights"]
    assert fsdp["policy: activations"] == full["policy: activations"]
    assert "policy: gathered layers" in fsdp


def test_processes_that_share_nothing_exchange_gradients_through_a_copy() -> None:
    parts = parts_of("sft", SFTConfig(), LaunchConfig(num_processes=2))
    assert parts["policy: gradients in exchange"] == parts["policy: gradients"]
    assert "policy: gradients in exchange" not in parts_of("ppo", PPOConfig(), LaunchConfig(num_processes=2))


def test_vllm_takes_its_share_of_a_gpu_instead_of_a_cache() -> None:
    parts = parts_of("ppo", PPOConfig(rollouts="vllm", rollout_memory_share=0.25))
    assert parts["vLLM server"] == 10 * 2**30
    assert "keys and values" not in parts


def test_peak_is_what_is_always_there_and_the_largest_phase() -> None:
    parts = [
        memory.Part(name=str(i), phase=phase, bytes=size)
        for i, (phase, size) in enumerate([("always", 5), ("learning", 3), ("learning", 4), ("sampling", 6)])
    ]
    assert peak(parts) == 5 + 7


def test_default_lengths_end_at_the_context() -> None:
    assert default_lengths(SFTConfig(max_tokens=100), 64) == Lengths(prompt=64, row=64)
    assert default_lengths(PPOConfig(max_prompt_tokens=100, max_tokens=20), 64) == Lengths(prompt=44, row=64)


def test_constants_are_those_of_the_trainers() -> None:
    from trl.kernels import chunked_logprob
    from trl.trainer import utils

    from tasks.training.ppo import episodes, rollout

    assert memory.SAMPLING_TOKENS == rollout.TOKENS_PER_BATCH
    assert memory.MEASURING_FACTOR == episodes.FORWARD_FACTOR
    assert chunked_logprob.TOKEN_CHUNK_SIZE == act.TILE_TOKENS
    assert utils._CHUNKED_LOGPROB_CHUNK_SIZE == act.TILE_VOCABULARY


ROWS, TOKENS = 3, 64


def kept_by_forward(folder: Path, layers: int, rank: int, precision: Any, checkpointing: bool) -> int:
    """Bytes that autograd keeps of a forward pass of the body, weights and adapters aside."""
    import torch
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    from tasks.training.adapters import lora_config

    make_tiny_model(folder, hidden=96, layers=layers)
    base = getattr(torch, precision) if rank else torch.float32
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=base)
    if rank:
        model = get_peft_model(model, lora_config(SFTConfig(lora_rank=rank), "CAUSAL_LM"))
        model.enable_input_require_grads()
    if checkpointing:
        model.train().gradient_checkpointing_enable({"use_reentrant": False})
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        is_matrix_copy = tensor.ndim == 2 and tensor.shape[0] != ROWS * TOKENS  # autocast's, a part of its own
        if storage.data_ptr() not in weights and not is_matrix_copy:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    ids = torch.zeros(ROWS, TOKENS, dtype=torch.long)
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16"),
    ):
        (model.get_base_model() if rank else model).model(input_ids=ids, use_cache=False)
    return sum(kept.values())
