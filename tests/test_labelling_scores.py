import random

import pytest

from tasks.labelling.scores import expected_score, prob_from_scores


def at(score):
    return [float(i == score) for i in range(1, 11)]


def test_expected_score_of_a_certain_score_is_that_score():
    assert [expected_score(at(score)) for score in (1, 7, 10)] == [1, 7, 10]


def test_expected_score_is_the_mean():
    assert expected_score([0.5, 0, 0, 0, 0, 0, 0, 0, 0, 0.5]) == 5.5


def test_prob_from_scores_by_hand():
    # P(a > b) = P(a=2, b=1) = 0.75 * 0.4 = 0.3; equal: 0.25 * 0.4 + 0.75 * 0.6 = 0.55
    assert prob_from_scores([0.25, 0.75], [0.4, 0.6]) == pytest.approx(0.3 + 0.55 / 2)


def test_prob_from_scores_of_certain_scores_is_the_comparison():
    assert [prob_from_scores(at(a), at(b)) for a, b in ((9, 2), (2, 9), (5, 5))] == [1, 0, 0.5]


def test_prob_from_scores_swapped_is_the_complement_and_equal_is_half():
    rng = random.Random(0)
    for _ in range(20):
        raw = [[rng.random() for _ in range(10)] for _ in "ab"]
        a, b = ([weight / sum(weights) for weight in weights] for weights in raw)
        assert prob_from_scores(a, b) == pytest.approx(1 - prob_from_scores(b, a))
        assert prob_from_scores(a, a) == pytest.approx(0.5)


def test_prob_from_scores_over_other_scores_is_refused():
    with pytest.raises(ValueError, match="2 probabilities for a and 3 for b"):
        prob_from_scores([0.5, 0.5], [0.2, 0.3, 0.5])
