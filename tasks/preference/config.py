"""Settings of the preferences stage: how labels are combined, and what human comparisons are mixed in."""

from typing import Literal, Self

from pydantic import Field, model_validator

from tasks.schema import Settings

Contradictions = Literal["keep", "down_weight", "drop"]
Clamp = Literal["0.4-0.6", "0.2-0.8", "off"]


class PreferencesConfig(Settings):
    """How labels become preferences. None of it asks a model: labels are kept, and combined anew in seconds."""

    combine: Literal["mean", "majority"] = "mean"
    """Of several evaluators: `mean` of their probabilities, or `majority`: the share of votes for a side, half a vote
    for each from an evaluator that is at 0.5. A tie falls back to the mean; one evaluator's vote is a hard label."""
    contradictions: Contradictions = "drop"
    """Of a reasoning that concludes otherwise than its answer: `drop` it, or `down_weight` it to a quarter: among the
    samples of its order, and, where that leaves less than whole weight, in the jury and the reward model's loss."""
    clamp: Clamp = "0.4-0.6"
    """Where probabilities after reasoning are cut off, once both orders are averaged; reasoning makes a model surer
    than it is right (section 4.1). Other labels are never clamped."""
    labels: Literal["soft", "hard"] = "soft"
    """`hard` sets the likelier side's probability to 1. A comparison at 0.5 has no side and is skipped."""
    min_margin: float = Field(0.0, ge=0, lt=0.5)
    """Skip AI labels whose averaged probability is nearer to 0.5 than this."""
    hard_margin: float = Field(0.4, gt=0, lt=0.5)
    """A completion breaks a hard constraint where the constraint's question finds it worse by this much in both
    orders. The question compares, so a pair that is near 0.5 may both keep it or both break it."""
    human: str = ""
    """Human helpfulness comparisons, a file or hub dataset in the HH format; empty mixes none in."""
    human_limit: int | None = Field(None, ge=1)
    """Take only the first so many. Empty: all."""
    human_fraction: float | None = Field(None, gt=0, lt=1)
    """Share of human comparisons among the usable ones: the first so many of the file. Empty: all of it."""
    human_target_prob: float = Field(1.0, ge=0.5, le=1)
    """P(chosen is better) that a human choice stands for."""
    human_weight: float = Field(1.0, gt=0, allow_inf_nan=False)
    """Of a human comparison in the reward model's loss, where an AI label has 1."""

    @model_validator(mode="after")
    def _has_a_file(self) -> Self:
        if self.human_fraction is not None and not self.human:
            raise ValueError(f"human_fraction is {self.human_fraction} but human is empty: name a file to take it from")
        return self
