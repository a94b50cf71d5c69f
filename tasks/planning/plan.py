"""The plan of a run, as plain values: what a table shows and a script reads."""

from typing import Literal

from tasks.schema import Frozen

State = Literal["fresh", "kept", "stale", "stale_unless_reproduced"]

STATE_WORDS = {
    "fresh": "fresh",
    "kept": "kept by choice",
    "stale": "stale",
    "stale_unless_reproduced": "stale unless its input reproduces",
}


class Cost(Frozen):
    """What a stage is expected to take, from what earlier runs of it measured."""

    seconds: float
    gpu_hours: float
    num_tokens: int
    basis: str
    """The version that was measured, as `dataset/version`."""


class StagePlan(Frozen):
    """One stage of a plan."""

    stage: str
    dataset: str
    version: str
    """Version id; where an input is not there yet, the derivation id, which stands for it until then."""
    state: State
    reasons: list[str]
    """Why it is not fresh: each input, principle, setting, model or code version that changed."""
    rows: int
    """Rows the version has or will have; 0 for a model."""
    rows_to_make: int
    """Rows that a model has to write."""
    exact: bool
    """Whether `rows_to_make` is exact; if not, it is the most it can be."""
    spends: bool
    """Whether making it takes a model or a training; the others take seconds."""
    cost: Cost | None
    """None: nothing to spend, or no earlier run to measure by."""


class Plan(Frozen):
    """What a run of a config would do on a store."""

    store: str
    constitution: str
    stages: list[StagePlan]

    @property
    def is_fresh(self) -> bool:
        """Nothing would be made."""
        return all(stage.state == "fresh" for stage in self.stages)

    @property
    def rows_to_make(self) -> int:
        return sum(stage.rows_to_make for stage in self.stages)

    @property
    def seconds(self) -> float:
        return sum(stage.cost.seconds for stage in self.stages if stage.cost)

    @property
    def gpu_hours(self) -> float:
        return sum(stage.cost.gpu_hours for stage in self.stages if stage.cost)

    @property
    def unmeasured(self) -> list[str]:
        """Stages to spend on of which nothing is known but their rows: their time is missing in the sums."""
        return [stage.stage for stage in self.stages if stage.spends and stage.cost is None]
