"""What a stage will take, from what earlier versions measured: hand-computed."""

from pathlib import Path
from typing import Any

import pytest

from tasks.planning.costs import forecast_cost
from tasks.store import Derivation, Store
from tests.small_versions import completions

GPUS = {"gpus": 2, "num_tokens": 600}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"), cache=tmp_path / "cache")


def derivation(seed: int = 0, stage: str = "respond", model: str = "a", **config: Any) -> Derivation:
    return Derivation(
        stage=stage, dataset="completions", code_version=1, config=config, inputs={}, constitution=None,
        models={"writer": model}, seed=seed, force=None,
    )  # fmt: skip


def measure(store: Store, made: Derivation, **cost: float) -> None:
    store.commit_rows(made, completions([str(made.seed)]), metrics={}, cost=cost)


def test_cost_is_the_start_and_a_rate_a_row(store):
    measure(store, derivation(1), seconds=130, seconds_starting=30, rows_made=200, **GPUS)
    found = forecast_cost(store, derivation(2), 50)
    assert found.seconds == pytest.approx(30 + 100 / 200 * 50)
    assert found.gpu_hours == pytest.approx(55 * 2 / 3600)
    assert found.num_tokens == 150 and found.basis.startswith("completions/")


def test_cost_of_what_makes_no_rows_is_that_of_the_whole(store):
    measure(store, derivation(1), seconds=90)
    assert forecast_cost(store, derivation(2), 50).seconds == 90


def test_cost_is_by_the_most_alike_version_with_something_to_make(store):
    measure(store, derivation(1, model="a"), seconds=10, rows_made=10)
    measure(store, derivation(2, model="b"), seconds=99, rows_made=10)
    measure(store, derivation(3, model="a"), seconds=50, rows_made=0)
    measure(store, derivation(4, stage="other", model="a"), seconds=70, rows_made=10)
    assert forecast_cost(store, derivation(5, model="a"), 10).seconds == pytest.approx(10)


def test_cost_of_what_was_never_measured_is_unknown(store):
    assert forecast_cost(store, derivation(), 10) is None
