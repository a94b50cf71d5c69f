"""What the three trainings looked like. What a trainer did not log is said to be missing, and is no error."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from tasks.report.charts import line_chart
from tasks.store import Manifest

Reference = tuple[float, str]


class Curve(NamedTuple):
    """One logged figure of one training."""

    model: str
    key: str
    title: str
    x: str
    """The key that the horizontal axis shows."""
    caption: str


CURVES = (
    Curve("models/sl", "loss", "SFT: loss", "step", "nats a completion token"),
    Curve("models/reward", "loss", "Reward model: loss", "step", "nats a comparison, with the centring term"),
    Curve("models/rl", "score", "PPO: score", "update", "mean of an update's episodes, in standard deviations"),
    Curve("models/rl", "kl", "PPO: KL from the SL policy", "update", "nats an episode"),
    Curve("models/rl", "num_tokens", "PPO: length", "update", "tokens an episode"),
    Curve("models/rl", "entropy", "PPO: entropy", "update", "nats a token"),
)
FIT = {
    "Comparisons": ("num_train", "num_held_out"),
    "Cross entropy, nats": ("train_cross_entropy", "held_out_cross_entropy"),
    "Entropy of the labels, nats": ("train_entropy_floor", "held_out_entropy_floor"),
    "Accuracy": ("train_accuracy", "held_out_accuracy"),
}
LEFT_OUT = {"models/sl": "SFT examples", "models/reward": "comparisons", "models/rl": "PPO prompts"}


class Drawn(NamedTuple):
    """A curve to show; `chart` is None where nothing was logged."""

    title: str
    caption: str
    chart: Markup | None


def training_charts(manifests: Mapping[str, Manifest]) -> list[Drawn]:
    return [draw_curve(curve, manifests[curve.model].metrics) for curve in CURVES]


def draw_curve(curve: Curve, metrics: Mapping[str, Any]) -> Drawn:
    points = curve_points(metrics.get("history"), curve.key, curve.x)
    if not points:
        return Drawn(curve.title, f"Missing: the training logged no “{curve.key}”.", None)
    floor = floors(metrics) if curve.model == "models/reward" else []
    ends = f"{points[0][1]:.3g} → {points[-1][1]:.3g}".replace("-", "−")
    return Drawn(curve.title, f"{ends} {curve.caption}", line_chart(curve.title, points, curve.x, floor))


def curve_points(history: Any, key: str, x: str) -> list[tuple[float, float]]:
    """(position, value) of each log line that has the figure; a line without `x` counts from 1."""
    lines = history if isinstance(history, Sequence) else []
    found = [(line.get(x), number(line.get(key)), i) for i, line in enumerate(lines, 1)]
    return [(i if at is None else float(at), value) for at, value, i in found if value is not None]


def floors(metrics: Mapping[str, Any]) -> list[Reference]:
    """The entropy of the labels: no reward model can have a smaller loss on them."""
    floor = number((metrics.get("final") or {}).get("train_entropy_floor"))
    return [] if floor is None else [(floor, "entropy of the labels")]


def reward_fit(manifests: Mapping[str, Manifest]) -> list[tuple[str, str, str]]:
    """Name, value on what the reward model was trained on, value on what was held out; empty where unknown."""
    final = manifests["models/reward"].metrics.get("final") or {}
    return [(name, shown(final.get(a)), shown(final.get(b))) for name, (a, b) in FIT.items() if a in final]


def left_out(manifests: Mapping[str, Manifest]) -> str:
    """How much each training left out as too long, in a sentence; empty where no trainer said."""
    finals = {what: manifests[model].metrics.get("final") or {} for model, what in LEFT_OUT.items()}
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
