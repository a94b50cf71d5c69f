"""Policies along the way of PPO: which are written, that the training does not notice, and that none gets lost."""

from pathlib import Path

import pytest

from tasks.training.ppo.trainer import train_ppo
from tasks.training.supervision import UNWATCHED, Supervision
from tests.ppo_leaving import PROMPTS
from tests.ppo_world import CONFIG, Models, digest, models_in, same_weights

KEEPING = CONFIG.model_copy(update={"num_updates": 6, "keep_every": 2, "eval_prompts": 0, "checkpoint_every": 3})


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Models:
    return models_in(tmp_path_factory.getbasetemp())


def given(models: Models, config=KEEPING):
    return config, PROMPTS, models.policy, models.likes_a


@pytest.fixture(scope="module")
def whole(models, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    train_ppo(*given(models), folder / "model", 0, UNWATCHED, kept=folder / "kept")
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_policies_along_the_way_are_models_and_the_last_is_the_result(whole):
    assert names(whole / "kept") == ["update-00000002", "update-00000004", "update-00000006"]
    first, second, last = (whole / "kept" / name for name in names(whole / "kept"))
    assert names(first) == names(whole / "model")
    assert digest(last) == digest(whole / "model")
    assert not same_weights(first, second) and not same_weights(second, last)


def test_training_does_not_notice_that_policies_are_kept(models, whole, tmp_path):
    config = KEEPING.model_copy(update={"keep_every": 0})
    result = train_ppo(*given(models, config), tmp_path / "model", 0, UNWATCHED, kept=tmp_path / "kept")
    assert digest(tmp_path / "model") == digest(whole / "model")
    assert result["num_updates"] == 6 and not (tmp_path / "kept").exists()


def test_training_with_adapters_keeps_plain_models_and_does_not_notice(models, tmp_path):
    adapters = {"lora_rank": 2, "num_updates": 4}
    for keep_every in (0, 2):
        config = KEEPING.model_copy(update={**adapters, "keep_every": keep_every})
        folder = tmp_path / str(keep_every)
        train_ppo(*given(models, config), folder / "model", 0, UNWATCHED, kept=folder / "kept")
    assert digest(tmp_path / "0" / "model") == digest(tmp_path / "2" / "model")
    assert digest(tmp_path / "2" / "kept" / "update-00000004") == digest(tmp_path / "2" / "model")


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5, 6])
def test_training_that_is_killed_tells_of_every_policy_by_its_end(models, whole, tmp_path, step):
    """It is told before a resume point is written, so that whoever goes on from there finds what came before."""
    told: dict[int, str] = {}

    def tell(folder: Path, update: int) -> None:
        told[update] = digest(folder)

    def kill(line: dict) -> None:
        if line["step"] == step:
            raise Killed

    with pytest.raises(Killed):
        watched = Supervision(kill, tmp_path / "points", on_policy=tell)
        train_ppo(*given(models), tmp_path / "model", 0, watched, kept=tmp_path / "kept")
    watched = Supervision(checkpoints=tmp_path / "points", on_policy=tell)
    train_ppo(*given(models), tmp_path / "model", 0, watched, kept=tmp_path / "kept")
    assert told == {update: digest(whole / "kept" / f"update-{update:08d}") for update in (2, 4, 6)}
    assert digest(tmp_path / "model") == digest(whole / "model")
