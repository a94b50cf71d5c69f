"""Evaluation's figures for other tools: as JSON lines, and as curves over the policies in the tracker in use."""

import json
import logging
from collections.abc import Iterator, Sequence

from tasks.schema import Metric
from tasks.training.launch_config import LaunchConfig
from tasks.training.trackers import open_curves

FIELDS = ("policy", "measure", "judge", "group", "value", "low", "high", "num_samples", "num_units")

logger = logging.getLogger(__name__)


def json_lines(metrics: Sequence[Metric]) -> str:
    """One figure a line."""
    return "".join(json.dumps(metric.model_dump(include=set(FIELDS)), ensure_ascii=False) + "\n" for metric in metrics)


def track(config: LaunchConfig, run: str, metrics: Sequence[Metric], policies: Sequence[str]) -> None:
    """Tell the tracker of `config`: the step is a policy's place in `policies`, which is among the run's settings.

    A tracker that cannot be opened costs a warning: the figures are in the store.
    """
    try:
        curves = open_curves(config, run, {"policies": list(policies)})
    except Exception as error:  # the border: whatever a tracker does, the run has its figures and its report
        logger.warning("tracker: the figures are not told to %s; %s: %s", config.tracker, type(error).__name__, error)
        return
    for line in lines_of(metrics, policies):
        curves.add(line)
    curves.close()


def lines_of(metrics: Sequence[Metric], policies: Sequence[str]) -> Iterator[dict[str, float]]:
    """A line a policy: its figures by `measure`, `measure/judge` or `measure/judge/group`."""
    for step, policy in enumerate(policies):
        own = [metric for metric in metrics if metric.policy == policy]
        yield {"step": step, "num_steps": len(policies), **{curve_name(metric): metric.value for metric in own}}


def curve_name(metric: Metric) -> str:
    parts = [metric.measure, metric.judge, "" if metric.group == "all" else metric.group]
    return "/".join(part for part in parts if part)
