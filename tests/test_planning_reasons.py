"""Why a stage has to be made, in words: each change of a constitution is told to the stages that it reaches."""

from pathlib import Path
from typing import Any

import pytest

from constitutions import Constitution
from tasks.planning.reasons import principle_changes
from tasks.store import Store
from tests.lineage_world import World, derivation, small_constitution

OLD = small_constitution()
SHOWN = {
    "id": "d", "conversation": "Hello", "completion_a": "Hi.", "completion_b": "What?", "answer": "A",
}  # fmt: skip
WITH_EXAMPLE = Constitution.model_validate(OLD.model_dump() | {"comparison_demonstrations": [SHOWN]})


@pytest.mark.parametrize(
    ("new", "stage", "expected"),
    [
        (small_constitution(harm_1={"comparison_question": "?"}), "label", ["principle harm-1 reworded"]),
        (
            small_constitution(harm_1={"hard_constraint": True}),
            "label",
            ["principle harm-1: hard_constraint False -> True"],
        ),
        (
            small_constitution(harm_1={"hard_constraint": True}),
            "revise",
            ["principle harm-1: hard_constraint False -> True"],
        ),
        (small_constitution(harm_1={"priority": 3}), "preferences", ["principle harm-1: priority 0 -> 3"]),
        (small_constitution(harm_1={"priority": 3, "weight": 2.0}), "label", ["principle harm-1: weight 1.0 -> 2.0"]),
        (WITH_EXAMPLE, "label", ["comparison demonstrations changed"]),
        (WITH_EXAMPLE, "revise", []),
    ],
)
def test_reason_names_what_reaches_the_stage_and_nothing_else(
    tmp_path: Path, new: Any, stage: str, expected: list[str]
):
    world = World(Store.open(str(tmp_path / "store"), cache=tmp_path / "cache"), tmp_path)
    made = [derivation(stage, "any", {"constitution": world.constitution(c)}) for c in (OLD, new)]
    assert principle_changes(world.store, *made) == expected
