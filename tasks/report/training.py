"""What the trainings looked like. What a trainer did not log is said to be missing, and is no error."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from tasks.report.charts import line_chart
from tasks.report.training_charts import Bin, Measured, measured_chart, reliability_chart
from tasks.store import Manifest

SL, REWARD, RL, SECOND = "models/sl", "models/reward", "models/rl", "models/held_out_reward"
SMOOTH_POINTS = 50
"""Of a curve, however many steps there were."""

Metrics = Mapping[str, Any]
Reference = tuple[float, str]


class Curve(NamedTuple):
    """One logged figure of one training."""

    model: str
    key: str
    title: str
    x: str
    """The key that the horizontal axis shows."""
    caption: str


SCORE = "mean of {}, in standard deviations of the SL policy's samples"
CURVES = (
    Curve(SL, "loss", "SFT: loss", "step", "nats a completion token"),
    Curve(REWARD, "loss", "Reward model: loss", "step", "nats a comparison, with the centring term"),
)
PPO_CURVES = (
    Curve(RL, "score", "PPO: score", "update", SCORE.format("an update's episodes")),
    Curve(RL, "kl", "PPO: KL from the SL policy", "update", "nats an episode"),
    Curve(RL, "num_tokens", "PPO: length", "update", "tokens an episode"),
    Curve(RL, "entropy", "PPO: entropy", "update", "nats a token"),
)
ALGORITHM_CURVES = {
    "ppo": PPO_CURVES,
    **{
        name: (
            Curve(RL, "score", f"{name.upper()}: score", "step", SCORE.format("a step's completions")),
            Curve(RL, "kl", f"{name.upper()}: KL from the SL policy", "step", "nats a completion"),
            Curve(RL, "num_tokens", f"{name.upper()}: length", "step", "tokens a completion"),
        )
        for name in ("rloo", "grpo")
    },
    "dpo": (
        Curve(RL, "loss", "DPO: loss", "step", "nats a comparison; it starts at log 2"),
        Curve(RL, "accuracy", "DPO: accuracy", "step", "share of decided labels whose side the policy takes"),
        Curve(RL, "margin", "DPO: margin", "step", "log odds of the chosen side, by the policy's own P"),
    ),
}
"""Of the second phase, by its algorithm."""
FIT = {
    "Comparisons": "num_{}",
    "Cross entropy, nats": "{}_cross_entropy",
    "Entropy of the labels, nats": "{}_entropy_floor",
    "Accuracy": "{}_accuracy",
    "Calibration error": "{}_ece",
    "Calibration error by chance": "{}_ece_by_chance",
}
FITTED = {
    "Trained on": "train",
    "Held out": "held_out",
    "of these AI": "held_out_ai",
    "of these human": "held_out_human",
}
"""Columns of the fit, and what the trainer's figures of each begin with."""


class Drawn(NamedTuple):
    """A curve to show; `chart` is None where nothing was logged."""

    title: str
    caption: str
    chart: Markup | None


def final_figures(manifests: Mapping[str, Manifest], model: str) -> Metrics:
    """What the model's trainer returned; empty where it is unknown or there is no such model."""
    return (manifests[model].metrics.get("final") or {}) if model in manifests else {}


def training_charts(manifests: Mapping[str, Manifest]) -> list[Drawn]:
    curves = (*CURVES, *ALGORITHM_CURVES[final_figures(manifests, RL).get("algorithm", "ppo")])
    drawn = [draw_curve(curve, manifests[curve.model].metrics) for curve in curves]
    calibration = draw_calibration(final_figures(manifests, REWARD))
    return [*drawn, calibration] if calibration else drawn


def draw_curve(curve: Curve, metrics: Metrics) -> Drawn:
    points = smoothed(curve_points(metrics.get("history"), curve.key, curve.x))
    if not points:
        return Drawn(curve.title, f"Missing: the training logged no “{curve.key}”.", None)
    ends = f"{points[0][1]:.3g} → {points[-1][1]:.3g}".replace("-", "−")
    caption, final = f"{ends} {curve.caption}", metrics.get("final") or {}
    measured = measured_beside(curve, final) if curve.model == RL else []
    if not measured:
        floor = floors(metrics) if curve.model == REWARD else []
        return Drawn(curve.title, caption, line_chart(curve.title, points, curve.x, floor))
    names = "; ".join(f"{('circles', 'squares')[each.place]}: {each.name}" for each in measured)
    chart = measured_chart(curve.title, points, curve.x, measured, number(final.get("best_update")))
    return Drawn(curve.title, f"{caption}. On prompts set aside, {names}", chart)


def smoothed(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Means of neighbours, so that at most `SMOOTH_POINTS` are left: one step's loss is mostly the luck of its rows."""
    each = -(-len(points) // SMOOTH_POINTS)
    groups = [points[start : start + each] for start in range(0, len(points), each or 1)]
    return [(group[-1][0], statistics.fmean(value for _, value in group)) for group in groups]


def measured_beside(curve: Curve, final: Metrics) -> list[Measured]:
    """What evaluations say of a curve's figure; of the score also what the reward model that does not train says."""
    named = {curve.key: "by the same measure"}
    if curve.key == "score":
        named = {"score": "by the reward model", "held_out_score": "by the second reward model"}
    evaluations = final.get("evaluations") or []
    found = [(name, curve_points(evaluations, key, "update")) for key, name in named.items()]
    return [Measured(place, name, points) for place, (name, points) in enumerate(found) if points]


def draw_calibration(final: Metrics) -> Drawn | None:
    """None where nothing was held out, or by a trainer that did not say."""
    bins = [Bin(**found) for found in final.get("held_out_calibration") or []]
    if not bins:
        return None
    title = "Reward model: calibration"
    caption = "Held-out comparisons of like confidence: what the model says, and what the labels say of the same side."
    return Drawn(title, f"{caption} Error {shown(final.get('held_out_ece'))}.", reliability_chart(title, bins))


def curve_points(history: Any, key: str, x: str) -> list[tuple[float, float]]:
    """(position, value) of each log line that has the figure; a line without `x` counts from 1."""
    lines = history if isinstance(history, Sequence) else []
    found = [(line.get(x), number(line.get(key)), i) for i, line in enumerate(lines, 1)]
    return [(i if at is None else float(at), value) for at, value, i in found if value is not None]


def floors(metrics: Metrics) -> list[Reference]:
    """The entropy of the labels: no reward model can have a smaller loss on them."""
    floor = number((metrics.get("final") or {}).get("train_entropy_floor"))
    return [] if floor is None else [(floor, "entropy of the labels")]


def reward_fit(manifests: Mapping[str, Manifest]) -> list[tuple[str, list[str]]]:
    """Name and a value for each of `FITTED`; empty where the trainer reported none of it."""
    final = final_figures(manifests, REWARD)
    rows = [(name, [key.format(column) for column in FITTED.values()]) for name, key in FIT.items()]
    return [(name, [shown(final.get(key)) for key in keys]) for name, keys in rows if set(keys) & set(final)]


def second_model(manifests: Mapping[str, Manifest]) -> str:
    """How the two reward models agree, in a sentence; empty where there is no second or it was not measured."""
    final = final_figures(manifests, SECOND)
    agree, correlation = number(final.get("held_out_models_agree")), number(final.get("held_out_models_correlation"))
    if agree is None:
        return ""
    along = "" if correlation is None else f"; their margins correlate with {correlation:.3f}"
    return (
        f"On {final['num_held_out']} comparisons that neither was trained on, the second reward model prefers the same "
        f"side as the first in {agree:.1%}{along}."
    )


def ending(manifests: Mapping[str, Manifest]) -> list[str]:
    """How the second phase ended, in sentences: by which rule, and which policy is the result."""
    final = final_figures(manifests, RL)
    stopped, outcome = final.get("stopped"), final.get("outcome")
    sentences = []
    if stopped:
        best = final["best_update"]
        result = f"update {best}" if best else "the SL policy, no update of it"
        what = f"Stopped by the rule {stopped['rule']} after update {stopped['update']}; the result is {result}."
        sentences += [what, f"{stopped['message']}."]
    elif outcome:
        sentences.append(f"The result is {outcome}.")
    return sentences


def left_out(manifests: Mapping[str, Manifest]) -> str:
    """How much each training left out as too long, in a sentence; empty where no trainer said."""
    second = "comparisons (DPO)" if final_figures(manifests, RL).get("algorithm") == "dpo" else "prompts"
    names = {SL: "SFT examples", REWARD: "comparisons", RL: second}
    finals = {what: final_figures(manifests, model) for model, what in names.items()}
    counts = [f"{final['num_too_long']} {what}" for what, final in finals.items() if "num_too_long" in final]
    return f"Left out of training as too long: {', '.join(counts)}." if counts else ""


def number(value: Any) -> float | None:
    """The value as a number; None for anything else (the store writes a NaN as null)."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def shown(value: Any) -> str:
    known = number(value)
    if known is None:
        return "not measured"
    return f"{known:.3f}" if isinstance(value, float) else f"{value}"
