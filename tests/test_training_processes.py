"""Two processes over gloo make what one makes, but for the order in which floats are added."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tasks.schema import Message
from tasks.training.config import RewardConfig, SFTConfig
from tasks.training.examples import PreferenceExample, SFTExample
from tasks.training.reward import train_reward
from tasks.training.sft import train_sft
from tasks.training.supervision import UNWATCHED
from tests.tiny_model import make_tiny_model

ROOT = Path(__file__).parents[1]
LOSS_TOLERANCE = 1e-6
"""Relative, of a step's loss; measured: 1.5e-7."""
WEIGHT_TOLERANCE = 1e-5
"""Absolute, of weights that moved by up to 0.09 in nine steps; measured: 1.6e-7."""

SFT = SFTConfig(epochs=3, learning_rate=1e-2, batch_size=16, micro_batch_size=4, max_tokens=64, checkpoint_every=2)
REWARD = RewardConfig(
    epochs=3, learning_rate=3e-3, batch_size=16, micro_batch_size=4, max_tokens=64, held_out_fraction=0
)


def user(text: str) -> list[Message]:
    return [Message(role="user", content=text)]


# 41 rows: the last batch of a pass is nine, three micro-batches, the last of one row; one process gets two of them
EXAMPLES = [SFTExample(prompt=user(f"say {i}"), completion="abc" * (1 + i % 3)) for i in range(41)]
PREFERENCES = [
    PreferenceExample(
        prompt=user(f"say {i}"), chosen="a" * (1 + i % 3), rejected="b", target_prob=0.6, weight=1 + i % 2
    )
    for i in range(41)
]


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("base"))


def job_for(kind: str, model: Path, root: Path, **changes: Any) -> Path:
    """A job file in `root`, where the model goes as well."""
    root.mkdir(exist_ok=True)
    config, examples = {"sft": (SFT, EXAMPLES), "reward": (REWARD, PREFERENCES)}[kind]
    job = {"kind": kind, "config": config.model_dump(), "examples": [row.model_dump() for row in examples]}
    job |= {"model": str(model), "output": str(root / "model"), "points": None, "seed": 3, "told": str(root / "told")}
    path = root / "job.json"
    path.write_text(json.dumps(job | changes))
    return path


def in_two_processes(*jobs: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.run(
        [*torchrun, "tests/training_process.py", *map(str, jobs)],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr[-3000:]


def told(root: Path) -> list[dict[str, Any]]:
    """What each process told: `result` and log `lines`."""
    return [json.loads((root / f"told.{rank}.json").read_text()) for rank in range(2)]


def assert_near(one: list[dict], two: list[dict]) -> None:
    assert [line["step"] for line in one] == [line["step"] for line in two]
    for a, b in zip(one, two, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=LOSS_TOLERANCE), a["step"]


def assert_weights_near(one: Path, two: Path) -> None:
    first, second = (load_file(folder / "model.safetensors") for folder in (one, two))
    for name, weight in first.items():
        assert torch.allclose(weight, second[name], atol=WEIGHT_TOLERANCE, rtol=0), name


@pytest.fixture(scope="module")
def by_two(base, tmp_path_factory) -> Path:
    """Folders `sft`, `reward` and `cut`, an SFT of which one process is asked to leave in the second pass."""
    root = tmp_path_factory.mktemp("two")
    cut = job_for("sft", base, root / "cut", points=str(root / "points"), leave_after=5)
    in_two_processes(job_for("sft", base, root / "sft"), job_for("reward", base, root / "reward"), cut)
    return root


def test_sft_two_processes_make_what_one_makes_and_the_first_alone_speaks(base, by_two, tmp_path):
    expected = train_sft(SFT, EXAMPLES, base, tmp_path, 3, UNWATCHED)
    first, second = told(by_two / "sft")
    assert first["lines"] == first["result"]["history"] == second["result"]["history"] and second["lines"] == []
    assert_near(expected["history"], first["result"]["history"])
    assert_weights_near(tmp_path, by_two / "sft" / "model")
    figures = ("num_examples", "num_rows", "num_steps")
    assert [first["result"][name] for name in figures] == [expected[name] for name in figures]


def test_reward_two_processes_make_what_one_makes(base, by_two, tmp_path):
    expected = train_reward(REWARD, PREFERENCES, base, tmp_path, 3, UNWATCHED)
    first, second = told(by_two / "reward")
    assert second["result"] == {}
    assert_near(expected["history"], first["result"]["history"])
    assert_weights_near(tmp_path, by_two / "reward" / "model")
    for name in ("train_cross_entropy", "score_std"):
        assert first["result"][name] == pytest.approx(expected[name], rel=1e-3)


def test_sft_two_processes_leave_together_and_go_on_to_the_same_bytes(base, by_two):
    assert [each["result"] for each in told(by_two / "cut")] == [{"left": "left after step 5 of 9"}] * 2
    names = {path.name for path in (by_two / "points" / "step-00000005").iterdir()}
    assert {"rng_state_0.json", "rng_state_1.json", "model.safetensors", "optimizer.safetensors"} < names
    in_two_processes(job_for("sft", base, by_two / "cut", points=str(by_two / "points")))
    rest, whole = told(by_two / "cut")[0], told(by_two / "sft")[0]
    assert [line["step"] for line in rest["lines"]] == [6, 7, 8, 9]
    assert rest["result"] == whole["result"]
    weights = "model/model.safetensors"
    assert (by_two / "cut" / weights).read_bytes() == (by_two / "sft" / weights).read_bytes()
