"""Evaluation's figures as JSON lines, and in a tracker over the policies."""

import json

from tasks.evaluation.tracked import json_lines, track
from tasks.schema import Metric
from tasks.training.launch_config import LaunchConfig
from tests.test_train import scalars


def metric(policy: str, measure: str, value: float, judge: str = "", group: str = "all") -> Metric:
    fixed = {"reuse_key": "k", "low": value, "high": value, "num_samples": 3, "num_units": 3}
    where = {"policy": policy, "measure": measure, "judge": judge, "group": group}
    return Metric.model_validate({"row_id": "/".join(where.values()), "value": value, **where, **fixed})


METRICS = [
    metric("base", "evasion", 0.25),
    metric("rl", "evasion", 0.5),
    metric("rl", "evasion", 0.75, group="seen"),
    metric("base", "harmlessness_elo", 0.0, judge="feedback"),
    metric("sl@4", "harmlessness_elo", 64.0, judge="feedback"),
]


def test_track_tensorboard_draws_each_figure_over_the_policies_in_the_order_of_training(tmp_path):
    config = LaunchConfig(tracker="tensorboard", tracker_folder=str(tmp_path))
    track(config, "evaluate/abc", METRICS, ["base", "sl@4", "rl"])
    folder = tmp_path / "evaluate" / "abc"
    assert scalars(folder, "evasion") == [(0, 0.25), (2, 0.5)]
    assert scalars(folder, "evasion/seen") == [(2, 0.75)]
    assert scalars(folder, "harmlessness_elo/feedback") == [(0, 0.0), (1, 64.0)]


def test_track_without_a_tracker_writes_nothing(tmp_path):
    track(LaunchConfig(tracker="none", tracker_folder=str(tmp_path)), "evaluate/abc", METRICS, ["base", "rl"])
    assert list(tmp_path.iterdir()) == []


def test_track_that_cannot_be_opened_costs_no_run(tmp_path):
    (tmp_path / "file").write_text("in the way")
    track(LaunchConfig(tracker="wandb", tracker_folder=str(tmp_path / "file")), "evaluate/abc", METRICS, ["base"])


def test_json_lines_hold_every_figure_and_where_it_is_of():
    lines = [json.loads(line) for line in json_lines(METRICS).splitlines()]
    assert len(lines) == len(METRICS)
    assert lines[2] == {
        "policy": "rl", "measure": "evasion", "judge": "", "group": "seen", "value": 0.75, "low": 0.75, "high": 0.75,
        "num_samples": 3, "num_units": 3,
    }  # fmt: skip
