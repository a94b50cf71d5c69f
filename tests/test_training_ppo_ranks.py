"""PPO in two processes over gloo gives what one gives, but for rounding."""

import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tasks.training.ppo.episodes import check_shares
from tasks.training.ranks import Ranks
from tests.ppo_ranks import CONFIG, STORED, make_models, one_update, train

ROOT = Path(__file__).parents[1]
SAME = 5e-6
"""Of one update on the same rollouts, relative to the largest of a tensor. Measured: episodes differ by up to 7e-7,
gradients (Adam's first moment) by up to 1.1e-6, with adapters 1.7e-6: sums of float32 in another order."""
NEAR = 1e-4
"""Of parameters after four updates, the last two of which move one by up to 8e-3. Measured: 6e-6. Adam divides small
gradients by themselves, rounding and all."""
LAST = "points/step-00000004/model.safetensors"


@dataclass
class Runs:
    """Two processes' findings, and the folder they left."""

    folder: Path
    tensors: list[dict[str, torch.Tensor]]
    told: list[dict]


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> tuple[Path, Path]:
    return make_models(tmp_path_factory.mktemp("ranks"))


@pytest.fixture(scope="module")
def alone(models, tmp_path_factory) -> tuple[Path, dict]:
    """A whole training by one process: where it is, and its result."""
    folder = tmp_path_factory.mktemp("alone")
    return folder, train(*models, folder)[0]


@pytest.fixture(scope="module")
def runs(models, alone) -> Runs:
    """Of the one-process training, the two resume at its half."""
    folder = models[0].parent
    shutil.copytree(alone[0] / "points" / "step-00000002", folder / "resumed" / "points" / "step-00000002")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, "-m", "tests.ppo_ranks", str(folder)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    tensors = [load_file(folder / f"rank-{rank}.safetensors") for rank in range(2)]
    return Runs(folder, tensors, [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(2)])


def parts(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def assert_same(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], tolerance: float) -> None:
    assert actual.keys() == expected.keys() and actual
    for name, tensor in expected.items():
        off = (actual[name] - tensor).abs().max() / tensor.abs().max().clamp(min=1e-6)
        assert off <= tolerance, f"{name} is off by {off:.3g}"


def assert_near(trained: Path, expected: Path) -> None:
    """Policies and value models after the last update, within `NEAR`, and far from where they were at the half."""
    end, half = load_file(expected / LAST), load_file(expected / LAST.replace("04", "02"))
    assert max((end[name] - half[name]).abs().max() for name in end) > 10 * NEAR
    for name, tensor in load_file(trained / LAST).items():
        assert (tensor - end[name]).abs().max() < NEAR, name


def test_exchanges_of_two_processes_match_hand_computation(runs):
    first, second = (told["exchanges"] for told in runs.told)
    assert (first.pop("shares"), second.pop("shares")) == (["a", "c", "e"], ["b", "d"])
    assert first == second
    # the rows that stood at the first process at 0 and 2, at the second at 1 and 3
    assert first["sequences"] == [[0], [1], [7, 7], [7, 7, 7]]
    assert first["added"] == [2.0, 1.0]
    assert first["gradients"] == [[2.0, 21.0], [5.0, 5.0]]
    assert first["any"] == [True, False]


def test_whitening_over_processes_counts_each_token_once(runs):
    """Three tokens 1, 2, 3 at one process and one token 6 at the other: mean 12/4 = 3, variance (4+1+0+9)/4 = 3.5.

    A mean of the processes' means would be (2 + 6)/2 = 4.
    """
    std = math.sqrt(3.5)
    white = runs.told[0]["exchanges"]["whitened"]
    assert torch.allclose(torch.tensor(white), torch.tensor([[-2 / std, -1 / std, 0.0], [3 / std, 0.0, 0.0]]))


def test_two_processes_given_stored_rollouts_make_the_update_of_one(models, runs):
    tensors, figures = one_update(*models)
    assert sum(map(len, STORED[0::2])) < 0.8 * sum(map(len, STORED[1::2]))  # unequal numbers of tokens
    for rank in range(2):
        assert_same(parts(runs.tensors[rank], "episodes/"), parts(tensors, "episodes/"), SAME)
        assert_same(parts(runs.tensors[rank], "moments/"), parts(tensors, "moments/"), SAME)
        assert runs.told[rank]["figures"] == pytest.approx(figures, rel=1e-5, abs=1e-6)


def test_processes_hold_equal_bits_after_an_update(runs):
    first, second = runs.tensors
    assert first.keys() == second.keys()
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    assert runs.told[0]["whole"] == runs.told[1]["whole"]


def test_adapters_in_two_processes_make_the_update_of_one(models, runs):
    tensors, _ = one_update(*models, lora_rank=2)
    assert_same(parts(parts(runs.tensors[0], "lora/"), "moments/"), parts(tensors, "moments/"), SAME)


def test_whole_training_by_two_processes_ends_near_that_by_one(alone, runs):
    whole = runs.told[0]["whole"]
    assert whole["num_eval_prompts"] == 1 and whole["evaluations"][-1]["update"] == CONFIG.num_updates
    assert 2 < whole["history"][0]["num_tokens"] < 5 and whole["history"][0]["eos_share"] < 1
    for line, same in zip(whole["history"], alone[1]["history"], strict=True):
        assert line == pytest.approx(same, rel=1e-3, abs=1e-4)
    assert_near(runs.folder / "whole", alone[0])


def test_first_process_alone_logs_and_writes(runs):
    assert runs.told[0]["steps"][-1] == CONFIG.num_updates
    assert runs.told[1]["steps"] == []
    points = sorted(path.name for path in (runs.folder / "whole" / "points").iterdir())
    assert points == ["step-00000002", "step-00000004"]


def test_resume_point_of_one_process_goes_on_in_two(alone, runs):
    assert runs.told[0]["resumed_steps"] == [3, 4]
    assert runs.told[0]["resumed"]["history"][:2] == alone[1]["history"][:2]
    assert_near(runs.folder / "resumed", alone[0])


@pytest.mark.parametrize(("setting", "size"), [("batch_size", 3), ("mini_batch_size", 8)])
def test_batch_that_cannot_be_shared_is_refused(setting, size):
    with pytest.raises(
        ValueError, match=rf"{setting} is \d, expected a multiple of the number of processes \({size}\)"
    ):
        check_shares(CONFIG, Ranks(0, size))
