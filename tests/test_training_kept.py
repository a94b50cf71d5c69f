"""Policies along the way of the trainings that TRL brings: plain models, none lost, unnoticed by the training."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.schema import Message
from tasks.training.config import PolicyTrainerConfig, RewardConfig, SFTConfig
from tasks.training.dpo import train_dpo
from tasks.training.examples import PreferenceExample, SFTExample
from tasks.training.group import train_group
from tasks.training.reward import train_reward
from tasks.training.rl_config import DPOConfig, GroupConfig
from tasks.training.sft import train_sft
from tasks.training.supervision import UNWATCHED, Supervision
from tests.tiny_model import make_tiny_model

SHARED: dict[str, Any] = {"batch_size": 4, "micro_batch_size": 2, "checkpoint_every": 3, "keep_every": 2}
SCORED: dict[str, Any] = {"batch_size": 4, "micro_batch_size": 4, "held_out_fraction": 0, "learning_rate": 1e-3}
CONFIGS: dict[str, PolicyTrainerConfig] = {
    "sft": SFTConfig(learning_rate=1e-2, max_tokens=64, epochs=2, **SHARED),
    "dpo": DPOConfig(learning_rate=1e-2, max_tokens=64, epochs=2, **SHARED),
    "rloo": GroupConfig(learning_rate=1e-2, num_steps=6, group_size=2, max_tokens=4, max_prompt_tokens=32, **SHARED),
}
PROMPTS = [[Message(role="user", content="go" * (1 + i))] for i in range(6)]
EXAMPLES = [SFTExample(prompt=PROMPTS[i % 6], completion="yes" * (1 + i % 3)) for i in range(12)]
PREFERENCES = [PreferenceExample(prompt=p, chosen="yes", rejected="no", target_prob=0.9) for p in PROMPTS * 2]

Train = Callable[[PolicyTrainerConfig, Path, Supervision], Any]


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def trainings(tmp_path_factory) -> dict[str, Train]:
    base = make_tiny_model(tmp_path_factory.mktemp("base"))
    reward = tmp_path_factory.mktemp("reward")
    train_reward(RewardConfig(**SCORED), PREFERENCES, base, reward, 0, UNWATCHED)

    def at(root: Path) -> dict[str, Path]:
        return {"output": root / "model", "kept": root / "kept"}

    return {
        "sft": lambda config, root, watched: train_sft(config, EXAMPLES, base, seed=0, watched=watched, **at(root)),
        "dpo": lambda config, root, watched: train_dpo(config, PREFERENCES, base, seed=0, watched=watched, **at(root)),
        "rloo": lambda config, root, watched: train_group(
            "rloo", config, PROMPTS, base, reward, seed=0, watched=watched, **at(root)
        ),
    }


def digest(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def kept(root: Path) -> dict[str, dict[str, str]]:
    return {path.name: digest(path) for path in sorted((root / "kept").iterdir())}


@pytest.fixture(scope="module")
def whole(trainings, tmp_path_factory) -> dict[str, Path]:
    """A folder with `model` and `kept`, by kind."""
    roots = {kind: tmp_path_factory.mktemp(kind) for kind in CONFIGS}
    for kind, root in roots.items():
        trainings[kind](CONFIGS[kind], root, UNWATCHED)
    return roots


@pytest.mark.parametrize("settings", [{}, {"lora_rank": 2, "gradient_checkpointing": True}], ids=str)
@pytest.mark.parametrize("kind", CONFIGS)
def test_policies_along_the_way_are_models_and_the_training_does_not_notice(kind, settings, trainings, tmp_path):
    config = CONFIGS[kind].model_copy(update=settings)
    trainings[kind](config, tmp_path / "keeping", UNWATCHED)
    trainings[kind](config.model_copy(update={"keep_every": 0}), tmp_path / "plain", UNWATCHED)
    result = digest(tmp_path / "plain" / "model")
    assert digest(tmp_path / "keeping" / "model") == result and not (tmp_path / "plain" / "kept").exists()
    policies = kept(tmp_path / "keeping")
    assert list(policies) == ["update-00000002", "update-00000004", "update-00000006"]
    assert policies["update-00000006"] == result
    assert len({each["model.safetensors"] for each in policies.values()}) == 3


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("step", [2, 3, 5])
def test_training_that_is_killed_tells_of_every_policy_by_its_end(kind, step, trainings, whole, tmp_path):
    """It is told before a resume point is written, so that whoever goes on from there finds what came before."""
    told: dict[int, dict[str, str]] = {}

    def tell(folder: Path, at: int) -> None:
        told[at] = digest(folder)

    def kill(line: dict) -> None:
        if line["step"] == step:
            raise Killed

    with pytest.raises(Killed):
        trainings[kind](CONFIGS[kind], tmp_path, Supervision(kill, tmp_path / "points", on_policy=tell))
    trainings[kind](CONFIGS[kind], tmp_path, Supervision(checkpoints=tmp_path / "points", on_policy=tell))
    assert list(told.values()) == list(kept(whole[kind]).values())
    assert digest(tmp_path / "model") == digest(whole[kind] / "model")
