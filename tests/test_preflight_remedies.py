"""Settings that are proposed fit, exist, and are the mildest of their kind."""

from typing import Any

import pytest

from flows.config import load_config
from tasks.training.config import RewardConfig, SFTConfig
from tasks.training.launch_config import LaunchConfig
from tasks.training.preflight.memory import Training
from tasks.training.preflight.remedies import SECTION, changed, needed, remedies
from tasks.training.rl_config import DPOConfig, GroupConfig, PPOConfig
from tests.test_preflight_memory import CPU, GPU, SHAPE, training

BIG = SHAPE.model_copy(
    update={"num_parameters": 3 * 10**9, "num_linear": 10**9, "hidden": 4096, "inner": 8192, "num_layers": 30}
)
CONFIGS: dict[str, Any] = {
    "sft": SFTConfig(batch_size=64),
    "reward": RewardConfig(),
    "ppo": PPOConfig(),
    "rloo": GroupConfig(),
    "grpo": GroupConfig(),
    "dpo": DPOConfig(),
}


def big(kind: str, gib: float, **settings: Any) -> Training:
    """A training of three billion parameters on a GPU of so many GiB, with rows of 512 tokens."""
    of = training(
        kind, CONFIGS[kind].model_copy(update=settings), device=GPU.model_copy(update={"bytes": int(gib * 2**30)})
    )
    lengths = of.lengths.model_copy(update={"prompt": 384, "row": 512})
    rewards = (BIG,) * len(of.rewards)
    return of.model_copy(update={"policy": BIG, "rewards": rewards, "lengths": lengths})


@pytest.mark.parametrize("kind", CONFIGS)
def test_remedies_fit_by_the_same_sum_and_exist(kind: Any) -> None:
    of = big(kind, 40)
    assert needed(of) > of.device.bytes
    found = remedies(of)
    assert found
    for remedy in found:
        changes = {name.rsplit(".", 1)[1]: value for name, value in remedy.settings.items()}
        assert needed(changed(of, changes)) <= of.device.bytes
        settings = [f"{name}={str(value).lower()}" for name, value in remedy.settings.items()]
        load_config(["paper"], None, settings)  # every name and value is a setting of a run


def test_remedies_the_same_results_come_first_and_mildest() -> None:
    ways: list[dict[str, Any]] = [{"gradient_checkpointing": True}, {"micro_batch_size": 4}]  # both fit
    fits = max(needed(changed(big("sft", 1), way)) for way in ways) / 2**30
    first = remedies(big("sft", fits + 0.01))[0]
    assert first.settings == {"sft.training.gradient_checkpointing": True}
    assert "same results" in first.effect


def test_remedies_do_not_name_what_is_set_already() -> None:
    for remedy in remedies(big("sft", 30, gradient_checkpointing=True, precision="bfloat16", micro_batch_size=1)):
        assert not {"sft.training.gradient_checkpointing", "sft.training.precision"} & set(remedy.settings)


def test_remedies_ppo_is_never_sharded_and_others_only_on_gpus() -> None:
    def sharded(of: Training) -> list[Any]:
        return [remedy for remedy in remedies(of) if "run.training.sharding" in remedy.settings]

    assert sharded(big("sft", 40))
    assert not sharded(big("ppo", 40))
    assert not sharded(big("sft", 40).model_copy(update={"device": CPU.model_copy(update={"bytes": 40 * 2**30})}))


def test_remedies_nothing_helps_a_device_that_is_far_too_small() -> None:
    assert remedies(big("sft", 0.5)) == []


def test_needed_processes_without_a_gpu_share_the_machine() -> None:
    one, two = (training("sft", SFTConfig(), LaunchConfig(num_processes=n), CPU) for n in (1, 2))
    assert needed(two) > 1.9 * needed(one)
    apart = training("sft", SFTConfig(), LaunchConfig(num_processes=2), GPU)
    assert needed(apart) < 1.5 * needed(training("sft", SFTConfig(), device=GPU))


def test_sections_are_those_of_a_run() -> None:
    config = load_config(["micro"], None, [])
    for kind, section in SECTION.items():
        of: Any = config
        for name in section.split("."):
            of = getattr(of, name)
        assert type(of) is type(CONFIGS[kind])
