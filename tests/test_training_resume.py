"""Trainers of TRL under supervision: a killed training goes on to the same bytes, leaves when asked, stops on NaN."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tasks.schema import Message
from tasks.training.checkpoints import run_name
from tasks.training.config import RewardConfig, SFTConfig
from tasks.training.examples import PreferenceExample, SFTExample
from tasks.training.reward import train_reward
from tasks.training.sft import train_sft
from tasks.training.supervision import UNWATCHED, Leaving, Supervision
from tasks.training.trainer_state import from_plain, from_tree, to_plain, to_tree
from tasks.training.trl_trainer import accumulation
from tasks.training.watching import finite_figures
from tests.tiny_model import make_tiny_model

SFT = SFTConfig(epochs=3, learning_rate=1e-2, batch_size=8, micro_batch_size=4, max_tokens=64, checkpoint_every=2)
REWARD = RewardConfig(epochs=3, learning_rate=3e-3, batch_size=8, micro_batch_size=4, max_tokens=64, checkpoint_every=2)
STEPS = 12
"""Of either: 27 rows are four batches a pass, the last one of three rows."""

Train = Callable[[Path, Supervision], dict]


class Killed(Exception):
    pass


def user(text: str) -> list[Message]:
    return [Message(role="user", content=text)]


EXAMPLES = [SFTExample(prompt=user(f"say {i}"), completion="abc" * (1 + i % 3)) for i in range(27)]
PREFERENCES = [
    PreferenceExample(
        prompt=user(f"say {i}"), chosen="a" * (1 + i % 3), rejected="b", target_prob=0.6 + i / 100, weight=1 + i % 2
    )
    for i in range(30)
]


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def trainers(base) -> dict[str, Train]:
    return {
        "sft": lambda output, watched: train_sft(SFT, EXAMPLES, base, output, 3, watched),
        "reward": lambda output, watched: train_reward(REWARD, PREFERENCES, base, output, 3, watched),
    }


@pytest.fixture(scope="module")
def uninterrupted(trainers, tmp_path_factory) -> dict[str, tuple[Path, dict]]:
    """A folder with `model` and `points`, and the result, by kind."""
    done = {}
    for kind, train in trainers.items():
        root = tmp_path_factory.mktemp(kind)
        done[kind] = root, train(root / "model", Supervision(checkpoints=root / "points"))
    return done


def contents(folder: Path) -> dict[str, bytes]:
    """Every file, but for the state of Python's own random numbers: no trainer draws from them, while whatever else
    this process of the tests has running may."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: without_python(data) if name.endswith("rng_state.json") else data for name, data in found.items()}


def without_python(rng_state: bytes) -> bytes:
    said = json.loads(rng_state)
    said["tree"]["dict"] = [[name, value] for name, value in said["tree"]["dict"] if name != "python"]
    return json.dumps(said).encode()


def killed_at(step: int) -> Callable[[dict], None]:
    def log(line: dict) -> None:
        if line["step"] == step:
            raise Killed

    return log


@pytest.mark.parametrize("kind", ["sft", "reward"])
@pytest.mark.parametrize(("killed", "resumed"), [(2, 1), (4, 3), (5, 5), (8, 7), (12, 11)])
def test_resume_killed_training_ends_in_the_same_bytes(kind, killed, resumed, trainers, uninterrupted, tmp_path):
    """Killed within the first pass before and after its first resume point, at a pass's end, later, at the last step.

    A step's figures come before its resume point: killed while step 4 is logged, it resumes after step 2.
    """
    root, expected = uninterrupted[kind]
    with pytest.raises(Killed):
        trainers[kind](tmp_path / "model", Supervision(killed_at(killed), tmp_path / "points"))
    assert not (tmp_path / "model").exists()
    lines: list[dict] = []
    result = trainers[kind](tmp_path / "model", Supervision(lines.append, tmp_path / "points"))
    assert lines == expected["history"][resumed - 1 :]
    assert result == expected
    assert contents(tmp_path / "model") == contents(root / "model")
    assert contents(tmp_path / "points") == contents(root / "points")


def test_resume_killed_again_and_again_ends_in_the_same_bytes(trainers, uninterrupted, tmp_path):
    """And while it wrote a resume point, half of which is left."""
    for step in (3, 5, 7, 9, 11):
        with pytest.raises(Killed):
            trainers["sft"](tmp_path / "model", Supervision(killed_at(step), tmp_path / "points"))
        for half in (".trainer/checkpoint-99/optimizer.pt", ".partial-step-00000099/model.safetensors"):
            (tmp_path / "points" / half).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "points" / half).write_bytes(b"cut off")
    assert trainers["sft"](tmp_path / "model", Supervision(checkpoints=tmp_path / "points"))
    assert contents(tmp_path) == contents(uninterrupted["sft"][0])


def test_watching_changes_nothing(trainers, uninterrupted, tmp_path):
    assert trainers["sft"](tmp_path / "model", UNWATCHED) == uninterrupted["sft"][1]
    assert contents(tmp_path / "model") == contents(uninterrupted["sft"][0] / "model")


def test_history_has_a_line_a_step_with_its_figures(uninterrupted):
    for kind, names in {"sft": {"entropy", "num_tokens"}, "reward": {"accuracy", "margin", "num_tokens"}}.items():
        history = uninterrupted[kind][1]["history"]
        assert [line["step"] for line in history] == list(range(1, STEPS + 1))
        assert all(line["num_steps"] == STEPS and names < set(line) for line in history)
        tokens = [line["num_tokens"] for line in history]
        assert tokens == sorted(tokens) and tokens[-1] > 11 * tokens[0] / 2


def test_resume_point_holds_safetensors_and_json_alone(uninterrupted):
    for root, _ in uninterrupted.values():
        assert sorted(path.name for path in (root / "points").iterdir()) == ["step-00000010", "step-00000012"]
        assert {path.suffix for path in (root / "points").rglob("*") if path.is_file()} == {".safetensors", ".json"}


def test_leaving_writes_a_resume_point_at_the_steps_end_and_goes_on_from_it(trainers, uninterrupted, tmp_path):
    lines: list[dict] = []
    points: list[str] = []
    watched = Supervision(
        lines.append, tmp_path / "points", lambda point: points.append(point.name), lambda: len(lines) >= 4
    )
    with pytest.raises(Leaving, match="left after step 5 of 12"):
        trainers["sft"](tmp_path / "model", watched)
    assert points == ["step-00000002", "step-00000004", "step-00000005"] and not (tmp_path / "model").exists()
    result = trainers["sft"](tmp_path / "model", Supervision(lines.append, tmp_path / "points"))
    assert lines == result["history"] == uninterrupted["sft"][1]["history"]
    assert contents(tmp_path / "model") == contents(uninterrupted["sft"][0] / "model")


def test_leaving_without_resume_points_is_left_all_the_same(trainers, tmp_path):
    with pytest.raises(Leaving, match="step 1 of 12"):
        trainers["reward"](tmp_path / "model", Supervision(leaving=lambda: True))


def test_resume_point_of_another_training_is_refused(base, uninterrupted, tmp_path):
    points = Path(shutil.copytree(uninterrupted["sft"][0] / "points", tmp_path / "points"))
    for config, examples, seed in (
        (SFT.model_copy(update={"learning_rate": 1e-3}), EXAMPLES, 3),
        (SFT, EXAMPLES[1:], 3),
        (SFT, EXAMPLES, 4),
    ):
        with pytest.raises(ValueError, match="another config, seed, model or set of examples"):
            train_sft(config, examples, base, tmp_path / "model", seed, Supervision(checkpoints=points))


def test_resume_with_rarer_points_is_the_same_training(base, uninterrupted, tmp_path):
    points = Path(shutil.copytree(uninterrupted["sft"][0] / "points", tmp_path / "points"))
    shutil.rmtree(points / "step-00000012")
    config = SFT.model_copy(update={"checkpoint_every": 50})
    lines: list[dict] = []
    train_sft(config, EXAMPLES, base, tmp_path / "model", 3, Supervision(lines.append, points))
    assert [line["step"] for line in lines] == [11, 12]
    assert contents(tmp_path / "model") == contents(uninterrupted["sft"][0] / "model")


@pytest.mark.parametrize("kind", ["sft", "reward"])
def test_diverged_training_stops_and_names_the_remedy(kind, base, tmp_path):
    train, config, rows = {"sft": (train_sft, SFT, EXAMPLES), "reward": (train_reward, REWARD, PREFERENCES)}[kind]
    config = config.model_copy(update={"learning_rate": 1e30, "checkpoint_every": 1})
    lines: list[dict] = []
    with pytest.raises(FloatingPointError, match=r"loss is nan and grad_norm is nan at step 2, .* lower learning_rate"):
        train(config, rows, base, tmp_path / "model", 3, Supervision(lines.append, tmp_path / "points"))
    assert not (tmp_path / "model").exists()
    assert all(math.isfinite(line["loss"]) for line in lines)
    kept = json.loads((max((tmp_path / "points").iterdir()) / "trainer_state.json").read_text())["global_step"]
    assert kept == len(lines), "no resume point of a step that was not a number"


def test_figure_that_has_no_value_is_none_and_stops_nothing():
    line = {"step": 3, "loss": 0.5, "kl": math.nan, "num_tokens": 7}
    assert finite_figures(line, 1e-3) == line | {"kl": None}


def test_run_name_tells_apart_all_but_how_often_points_are_written():
    name = run_name(SFT, 0, "a", [1, 2])
    assert name == run_name(SFT.model_copy(update={"checkpoint_every": 7}), 0, "a", [1, 2])
    others = [run_name(SFT, 1, "a", [1, 2]), run_name(SFT, 0, "a", [1, 3]), run_name(SFT, 0, "a[1,", 2)]
    others += [run_name(SFT.model_copy(update={"lora_rank": 4}), 0, "a", [1, 2]), run_name(REWARD, 0, "a", [1, 2])]
    assert len({name, *others}) == 6


def test_batch_that_the_processes_cannot_share_is_refused():
    assert accumulation(SFT, 1) == 2 and accumulation(SFT, 2) == 1
    with pytest.raises(ValueError, match=r"batch_size is 8, expected a multiple of micro_batch_size \(4\) times .*3"):
        accumulation(SFT, 3)


STATE = {
    "state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.arange(6.0).reshape(2, 3).T}},
    "groups": [{"lr": 1e-3, "betas": (0.9, 0.999), "foreach": None, "fused": True, "params": [0, 1]}],
    "python": (3, (2**31, 2**40), None),
    "numpy": np.array([1, 2**32 - 1], dtype=np.uint32),
    "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "odd": [float("inf"), -0.0, 0.1, True, "text", {}, (), []],
}


def same(one: object, two: object) -> bool:
    if isinstance(one, torch.Tensor | np.ndarray):
        return type(one) is type(two) and one.dtype == two.dtype and bool((one == two).all())
    if isinstance(one, dict):
        return isinstance(two, dict) and list(one) == list(two) and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return type(one) is type(two) and len(one) == len(two) and all(map(same, one, two))
    return type(one) is type(two) and repr(one) == repr(two)


def test_state_comes_back_as_it_was():
    tensors: dict[str, torch.Tensor] = {}
    tree = json.loads(json.dumps(to_tree(STATE, "optimizer", tensors), allow_nan=False))
    assert same(STATE, from_tree(tree, tensors))


def test_state_that_needs_a_pickle_is_refused_by_name():
    with pytest.raises(ValueError, match=r"optimizer/groups/0/lr is a complex, expected numbers, text, tensors"):
        to_tree({"groups": [{"lr": 1j}]}, "optimizer", {})


def test_trainer_folder_comes_back_as_it_was(tmp_path):
    for name in ("trainer", "plain"):
        (tmp_path / name).mkdir()
    torch.save(STATE, tmp_path / "trainer" / "optimizer.pt")
    torch.save({"last_epoch": 3}, tmp_path / "trainer" / "scheduler.pt")
    (tmp_path / "trainer" / "trainer_state.json").write_text('{"global_step": 3}')
    (tmp_path / "trainer" / "training_args.bin").write_bytes(b"a pickle")
    to_plain(tmp_path / "trainer", tmp_path / "plain")
    assert {path.suffix for path in (tmp_path / "plain").iterdir()} == {".json", ".safetensors"}
    from_plain(tmp_path / "plain", tmp_path / "again")
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == [
        "optimizer.pt", "scheduler.pt", "trainer_state.json",
    ]  # fmt: skip
    with torch.serialization.safe_globals([]):
        assert torch.load(tmp_path / "again" / "scheduler.pt", weights_only=True) == {"last_epoch": 3}


@pytest.mark.parametrize("name", ["optimizer_0/__0_0.distcp", "global_step5/mp_rank_00.pt", "something.pkl"])
def test_sharded_or_unknown_state_is_refused_by_name(name, tmp_path):
    (tmp_path / "trainer" / name).parent.mkdir(parents=True)
    (tmp_path / "trainer" / name).write_bytes(b"")
    with pytest.raises(ValueError, match=rf"{name.split('/')[0]} of the trainer .* FULL_STATE_DICT"):
        to_plain(tmp_path / "trainer", tmp_path)


def test_state_that_would_run_code_is_not_read(tmp_path):
    class Runs:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "ran",))

    (tmp_path / "trainer").mkdir()
    torch.save({"state": Runs()}, tmp_path / "trainer" / "optimizer.pt")
    with pytest.raises(Exception, match=r"[Ww]eights.only"):
        to_plain(tmp_path / "trainer", tmp_path)
    assert not (tmp_path / "ran").exists()
