"""Trainings that are killed at a few points and go on; `python -m tests.faults.training` has many more."""

from pathlib import Path

import pytest

from tests.faults.training import check
from tests.faults.training_cases import KINDS, Kind


@pytest.mark.parametrize("kind", KINDS)
def test_killed_training_goes_on_to_the_very_same_result(kind: Kind, tmp_path: Path) -> None:
    told: list[str] = []
    assert check(kind, points=3, seed=1, folder=tmp_path, tell=told.append) == [], told
    kills = [line for line in told if ": killed after step" in line]
    assert len(kills) == 3 and any("while a resume point is written" in line for line in kills)
    assert any("before optimizer step" in line for line in kills)
