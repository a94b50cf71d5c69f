"""Figures of labels against hand-computed ones."""

import math

import numpy as np
import pytest

from tasks.calibration import (
    summarise,
)
from tasks.calibration.figures import bin_numbers, form_of, preference


def test_bins_equal_confidences_share_one_and_others_have_equal_mass():
    assert len(set(bin_numbers(np.full(100, 0.6)))) == 1
    numbers = bin_numbers(np.linspace(0.5, 1, 300))
    assert sorted(np.bincount(numbers)) == [20] * 15


def test_summarise_hand_computed_figures():
    (found,) = summarise([form_of("soft", np.array([0.9, 0.9, 0.9, 0.1]))])
    values = {name: figure.value for name, figure in found.figures.items()}
    assert values["accuracy"] == pytest.approx(0.75)
    assert values["ece"] == pytest.approx(0.15)  # confident 0.9, right in three of four
    assert values["brier"] == pytest.approx((3 * 0.01 + 0.81) / 4)
    assert values["log_loss"] == pytest.approx(-(3 * math.log(0.9) + math.log(0.1)) / 4)


def test_summarise_ece_of_bins_that_err_both_ways_does_not_cancel():
    (found,) = summarise([form_of("soft", np.array([0.6, 0.6, 0.1, 0.1]))])  # 0.6 and right, 0.9 and wrong
    assert found.figures["ece"].value == pytest.approx((0.4 + 0.9) / 2)


def test_summarise_ece_interval_lies_around_it_though_resamples_have_more():
    rng = np.random.default_rng(1)
    confidence = rng.uniform(0.5, 1, 150)
    prob = np.where(rng.random(150) < confidence, confidence, 1 - confidence)
    ece = summarise([form_of("soft", prob)])[0].figures["ece"]
    assert abs((ece.low + ece.high) / 2 - ece.value) < 0.1 * (ece.high - ece.low)


def test_summarise_undecided_label_counts_half_and_stays_out_of_ece():
    (found,) = summarise([form_of("soft", np.array([0.5, 0.5, 1.0, 1.0]))])
    assert found.figures["accuracy"].value == pytest.approx(0.75) and found.num_undecided == 2
    assert found.figures["ece"].value == 0.0 and [b.num_labels for b in found.bins] == [2]


def test_summarise_intervals_hold_the_truth_as_often_as_they_say():
    rng, held = np.random.default_rng(0), 0
    for _ in range(40):
        right = rng.random(200) < 0.7
        (found,) = summarise([form_of("hard", right.astype(float))])
        held += found.figures["accuracy"].low <= 0.7 <= found.figures["accuracy"].high
    assert held >= 34


def test_summarise_differences_are_paired():
    rng = np.random.default_rng(0)
    prob = rng.uniform(0.2, 0.9, 400)
    better = np.where(rng.random(400) < 0.1, np.maximum(prob, 1 - prob), prob)
    first, second = summarise([form_of("a", prob), form_of("b", better)])
    width = second.differences["accuracy"].high - second.differences["accuracy"].low
    unpaired = first.figures["accuracy"].high - first.figures["accuracy"].low
    assert width < 0.6 * unpaired and second.differences["accuracy"].low > 0
    assert first.differences == {}


def test_summarise_repeated_questions_of_a_unit_widen_the_interval():
    prob = np.repeat(np.random.default_rng(0).random(40), 10)
    tens = [str(i // 10) for i in range(400)]
    alone, together = (summarise([form_of("a", prob)], units)[0] for units in (None, tens))
    widths = [s.figures["accuracy"].high - s.figures["accuracy"].low for s in (alone, together)]
    assert widths[1] > 2 * widths[0]


def test_summarise_chance_error_is_that_of_few_questions():
    few, many = (summarise([form_of("a", np.full(n, 0.5) + np.linspace(0.1, 0.4, n))])[0] for n in (60, 6000))
    assert few.error_by_chance > 5 * many.error_by_chance > 0


def test_preference_half_is_no_preference():
    assert preference(np.array([0.2, 0.5, 0.8])).tolist() == [0, 0.5, 1]
