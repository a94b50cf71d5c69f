"""Whether the policy learnt what is good or what the reward model likes (2204.05862, section 4.2).

Two reward models were trained on different comparisons. What both score higher is an improvement; what only the one
that trained the policy does is that model's mistakes. Reward grows about as the square root of the KL divergence.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tasks.report.training import RL, Drawn, final_figures, number
from tasks.report.training_charts import Measured, measured_chart
from tasks.store import Manifest

TITLE = "Reward against distance"
NOTABLE = 0.1
"""Standard deviations of the SL policy's samples: a smaller rise or fall is told as none."""


LEAST_CONFIRMED = 0.5
"""Of a rise: below, it is called over-optimisation."""


class Point(NamedTuple):
    """One measured policy."""

    update: int
    root_kl: float
    """Square root of the KL from the SL policy, in nats an episode."""
    score: float
    held_out: float | None
    """By the reward model that only measures."""


def measured_points(manifests: Mapping[str, Manifest]) -> list[Point]:
    """Every policy that was measured, in the order of training; none by an algorithm that measures none."""
    lines = final_figures(manifests, RL).get("evaluations") or []
    return [point for line in lines if (point := point_of(line)) is not None]


def point_of(line: Mapping[str, Any]) -> Point | None:
    kl, score = number(line.get("kl")), number(line.get("score"))
    if kl is None or score is None:
        return None
    return Point(line["update"], math.sqrt(max(kl, 0.0)), score, number(line.get("held_out_score")))


def over_optimisation_chart(manifests: Mapping[str, Manifest]) -> Drawn | None:
    """Both models' scores over the square root of the KL; None where fewer than two policies were measured."""
    points = measured_points(manifests)
    if len(points) < 2:
        return None
    curve = [(p.root_kl, p.score) for p in points]
    beside = [(p.root_kl, p.held_out) for p in points if p.held_out is not None]
    measured = [Measured(0, "by the reward model", curve)]
    measured += [Measured(1, "by the second reward model", beside)] if beside else []
    best = final_figures(manifests, RL).get("best_update")
    at = next((p.root_kl for p in points if p.update == best), None)
    names = "; ".join(f"{shape}: {each.name}" for shape, each in zip(("circles", "squares"), measured, strict=False))
    caption = f"Mean score of prompts set aside over the square root of the KL from the SL policy, in nats. {names}."
    return Drawn(TITLE, caption, measured_chart(TITLE, curve, "√KL", measured, at))


def over_optimised(manifests: Mapping[str, Manifest]) -> str:
    """What the two models' scores say of the training, in words; empty where only one measured."""
    points = [p for p in measured_points(manifests) if p.held_out is not None]
    if len(points) < 2:
        return ""
    first, last = points[0], points[-1]
    rises = last.score - first.score, (last.held_out or 0.0) - (first.held_out or 0.0)
    said = (
        f"From the SL policy to update {last.update} the score by the reward model {went(rises[0])}, that by the "
        f"second one, which trains nothing, {went(rises[1])}"
    )
    said = f"{said}.{confirmed(*rises)}"
    turn = turning_point(points)
    if turn is None:
        return said
    return (
        f"{said} The reward model was exploited: from update {turn.update} on its score went up by "
        f"{last.score - turn.score:.2f} while the second one's went down by {turn.held_out - last.held_out:.2f}."  # type: ignore[operator]
    )


def confirmed(rise: float, held_out_rise: float) -> str:
    """How much of a rise the second model sees too: both scores are in spreads of the SL policy's samples."""
    if rise < NOTABLE:
        return ""
    share = max(held_out_rise, 0.0) / rise
    rest = (
        ": the reward model was over-optimised, most of the rise is its own liking" if share < LEAST_CONFIRMED else ""
    )
    return f" The second one confirms {min(share, 1.0):.0%} of the rise{rest}."


def turning_point(points: Sequence[Point]) -> Point | None:
    """Where the second model's score was highest, if it has clearly fallen since while the first one's rose."""
    best, last = max(points, key=lambda p: p.held_out or -math.inf), points[-1]
    assert best.held_out is not None and last.held_out is not None
    exploited = best.held_out - last.held_out > NOTABLE and last.score - best.score > 0
    return best if exploited else None


def went(rise: float) -> str:
    if abs(rise) < NOTABLE:
        return f"did not clearly change ({rise:+.2f})"
    return f"{'rose' if rise > 0 else 'fell'} by {abs(rise):.2f}"
