"""Charts of the report: what is drawn, and that text in them is escaped."""

from tasks.report.charts import bin_counts, histogram, line_chart, thin
from tasks.report.svg import spread, ticks
from tasks.report.training import CURVES, curve_points, draw_curve
from tests.report_world import NASTY


def test_bin_counts_both_ends_are_inside() -> None:
    assert bin_counts([0.0, 0.1, 0.5, 1.0], 0, 1, 2) == [2, 2]


def test_ticks_are_round_and_inside() -> None:
    assert ticks(0, 1, 5) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(-3.4, 2.1, 5) == [-2, 0, 2]
    assert ticks(5, 5, 4) == [5]


def test_spread_labels_keep_their_distance_and_order() -> None:
    assert spread([50, 10, 12], 16) == [50, 10, 26]


def test_thin_many_points_keeps_the_last() -> None:
    points = [(float(i), 0.0) for i in range(5001)]
    assert len(thin(points)) <= 400 and thin(points)[-1] == points[-1]


def test_line_chart_flat_or_single_point_is_drawn() -> None:
    for points in ([(1.0, 2.0)], [(1.0, 0.0), (2.0, 0.0)]):
        assert "nan" not in line_chart("flat", points, "step") and "polyline" in line_chart("flat", points, "step")


def test_chart_text_is_escaped() -> None:
    assert NASTY not in histogram(NASTY, [0.5], 0, 1, 2, NASTY)


def test_curve_points_null_and_missing_values_are_left_out() -> None:
    history = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": None}, {"grad_norm": 1.0}, {"loss": 1.0}]
    assert curve_points(history, "loss", "step") == [(1.0, 2.0), (4.0, 1.0)]
    assert curve_points(None, "loss", "step") == []


def test_draw_curve_reward_shows_the_entropy_floor() -> None:
    reward = next(curve for curve in CURVES if curve.model == "models/reward")
    metrics = {"history": [{"step": 1, "loss": 0.7}], "final": {"train_entropy_floor": 0.31}}
    assert "entropy of the labels at 0.31" in str(draw_curve(reward, metrics).chart)
    missing = draw_curve(reward, {})
    assert missing.chart is None and "Missing" in missing.caption
