"""How well a reward model says what its labels say, by who gave them, and how far two such models agree.

Scores come as one pair a comparison, chosen and rejected; `sigmoid(chosen - rejected)` is the model's P(chosen is
better). Weights do not enter: they are about learning.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.calibration.figures import Array, Form, calibration_error, error_by_chance, reliability
from tasks.training.scoring import raw_scores

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Row = Mapping[str, Any]
"""`chosen_ids`, `rejected_ids`, `target_prob` and `origin` of a comparison."""
Figures = dict[str, Any]
ORIGINS = ("ai", "human")
MEASURES = ("cross_entropy", "entropy_floor", "accuracy", "ece", "ece_by_chance")


def side_scores(reward: "PreTrainedModel", rows: Sequence[Row]) -> Array:
    """Raw scores (comparisons, 2): chosen, rejected."""
    scores = raw_scores(reward, [row[side] for row in rows for side in ("chosen_ids", "rejected_ids")])
    return np.array(scores, dtype=np.float64).reshape(-1, 2)


def measure(rows: Sequence[Row], scores: Array, prefix: str) -> Figures:
    """The figures of all comparisons, of the AI's as `<prefix>ai_*` and of people's as `<prefix>human_*`."""
    origins = np.array([row["origin"] for row in rows], dtype=object)
    margins, targets = scores[:, 0] - scores[:, 1], np.array([row["target_prob"] for row in rows], dtype=np.float64)
    found = named(fit_figures(margins, targets), prefix)
    for origin in ORIGINS:
        mine = origins == origin
        found |= named(fit_figures(margins[mine], targets[mine]), f"{prefix}{origin}_")
        found[f"num_{prefix}{origin}"] = int(mine.sum())
    return found


def named(figures: Figures, prefix: str) -> Figures:
    return {prefix + name: value for name, value in figures.items()}


def fit_figures(margins: Array, targets: Array) -> Figures:
    """What margins r_chosen - r_rejected make of the labels' probabilities; every figure None without a comparison.

    `cross_entropy` beside `entropy_floor`, the least that these labels allow, in nats a comparison; `accuracy` as
    `agreement`; `ece` is the expected calibration error, with what chance alone gives where labels are sure.
    """
    if not len(margins):
        return dict.fromkeys(MEASURES)
    form = form_of_margins(margins, targets)
    return {
        "cross_entropy": float(cross_entropy(margins, targets).mean()),
        "entropy_floor": float(entropy(targets).mean()),
        "accuracy": agreement(margins.tolist(), targets.tolist()),
        "ece": float(calibration_error(form, np.ones((1, len(margins))))[0]),
        "ece_by_chance": error_by_chance(form, seed=0),
    }


def cross_entropy(margins: Array, targets: Array) -> Array:
    """-p log s(m) - (1 - p) log s(-m), (comparisons), without overflow."""
    return targets * np.logaddexp(0, -margins) + (1 - targets) * np.logaddexp(0, margins)


def entropy(targets: Array) -> Array:
    """Of each label in nats; 0 for a sure one."""
    sure = np.array([0.0, 1.0])
    inside = np.where(np.isin(targets, sure), 0.5, targets)
    nats = -(inside * np.log(inside) + (1 - inside) * np.log1p(-inside))
    return np.where(np.isin(targets, sure), 0.0, nats)


def agreement(margins: Sequence[float], targets: Sequence[float]) -> float | None:
    """Share of comparisons whose margin r_chosen - r_rejected is on the label's side.

    Undecided labels (0.5) are left aside; None if no label is decided.
    """
    decided = [(margin > 0) == (target > 0.5) for margin, target in zip(margins, targets, strict=True) if target != 0.5]
    return sum(decided) / len(decided) if decided else None


def form_of_margins(margins: Array, targets: Array) -> Form:
    """The model's probabilities, and as "right" the label's own probability of the side that the model prefers."""
    return Form("reward", np.where(margins > 0, targets, 1 - targets), sigmoid(margins))


def calibration(rows: Sequence[Row], scores: Array) -> list[dict[str, float]]:
    """Bins by rising confidence of the model; `accuracy` is the labels' mean probability of what it prefers."""
    if not rows:
        return []
    targets = np.array([row["target_prob"] for row in rows], dtype=np.float64)
    return [found._asdict() for found in reliability(form_of_margins(scores[:, 0] - scores[:, 1], targets))]


def models_agreement(scores: Array, others: Array) -> Figures:
    """How two reward models compare on the same comparisons: which side they prefer, and how their margins go along.

    `held_out_models_agree` is the share of comparisons with the same side preferred, `held_out_models_correlation`
    Pearson's of the margins. None without a comparison, or where all margins of a model are equal.
    """
    mine, theirs = scores[:, 0] - scores[:, 1], others[:, 0] - others[:, 1]
    varies = len(mine) > 1 and mine.std() > 0 and theirs.std() > 0
    return {
        "held_out_models_agree": float(np.mean((mine > 0) == (theirs > 0))) if len(mine) else None,
        "held_out_models_correlation": float(np.corrcoef(mine, theirs)[0, 1]) if varies else None,
    }


def scale_of(rows: Sequence[Row], scores: Array) -> dict[str, float]:
    """Mean and standard deviation of the scores of the policy's own samples: what AI labels are about.

    Where there are none of these, of all completions: people's comparisons are of other models' samples, often
    further apart than any two that the policy would sample.

    Raises: ValueError: all scores are equal.
    """
    sampled = scores[[row["origin"] == "ai" for row in rows]]
    used = sampled if len(sampled) else scores
    scale = {"mean": float(used.mean()), "std": float(used.std())}
    if not scale["std"] > 1e-6:
        raise ValueError(
            f"reward: all {used.size} training completions score {scale['mean']:.4g}, expected different ones; "
            "are the comparisons' two sides equal, or is the learning rate far off?"
        )
    return scale


def sigmoid(values: Array) -> Array:
    return 0.5 * (1 + np.tanh(values / 2))
