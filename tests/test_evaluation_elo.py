import random

import pytest

from tasks.evaluation.elo import Result, rate, tail_of

TRUTH = {"base": 0.0, "sl": 60.0, "rl@4": 120.0, "rl": 260.0, "evasive": -90.0}


def won(better: float, worse: float) -> float:
    return 1 / (1 + 10 ** ((worse - better) / 400))


def tournament(truth, num_prompts, rng, repeats=1):
    names = list(truth)
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    return [
        Result(a, b, outcome, str(prompt))
        for prompt in range(num_prompts)
        for a, b in pairs
        for outcome in [float(rng.random() < won(truth[a], truth[b]))] * repeats
    ]


@pytest.mark.parametrize(
    ("num_tournaments", "num_resamples", "least", "most"),
    # where 95 % hold, so many come out between these in all but one case of a hundred
    [(30, 300, 0.88, 0.995), pytest.param(200, 1000, 0.923, 0.975, marks=pytest.mark.long)],
)
def test_elo_known_ratings_lie_within_their_intervals_as_often_as_these_say(
    num_tournaments, num_resamples, least, most
):
    held = of = 0
    for number in range(num_tournaments):
        results = tournament(TRUTH, 120, random.Random(number))
        for rating in rate(results, list(TRUTH), number, num_resamples)[1:]:
            held += rating.low <= TRUTH[rating.policy] <= rating.high
            of += 1
    print(f"{held} of {of} within their interval: {held / of:.1%}")
    assert of == 4 * num_tournaments and least <= held / of <= most


def test_elo_of_many_results_is_the_truth_and_the_first_policy_is_zero():
    ratings = rate(tournament(TRUTH, 4000, random.Random(0)), list(TRUTH), num_resamples=20)
    assert ratings[0][:4] == ("base", 0.0, 0.0, 0.0)
    assert {r.policy: r.elo for r in ratings} == pytest.approx(TRUTH, abs=12)
    assert all(r.num_results == 16_000 and r.num_units == 4000 for r in ratings)


def test_elo_probabilities_count_as_parts_of_a_win():
    ratings = rate([Result("a", "b", 0.25, str(i)) for i in range(10_000)], ["a", "b"], num_resamples=20)
    assert ratings[1].elo == pytest.approx(190.8, abs=0.1)  # 400 log10 of the odds 3 to 1
    assert ratings[1].low == ratings[1].high == pytest.approx(ratings[1].elo)


def test_elo_draws_move_nobody():
    results = [r._replace(prob_a=0.5) for r in tournament(TRUTH, 10, random.Random(0))]
    assert all(r.elo == pytest.approx(0, abs=1e-6) and r.high - r.low < 1e-6 for r in rate(results, list(TRUTH)))


def test_elo_policy_that_always_wins_has_a_finite_rating_above_all():
    results = [Result("base", "sl", 0.5, str(i)) for i in range(50)]
    results += [Result("rl", other, 1.0, str(i)) for other in ("base", "sl") for i in range(50)]
    base, sl, rl = rate(results, ["base", "sl", "rl"])
    assert base.elo == 0 and sl.elo == pytest.approx(0, abs=1e-6) and 600 < rl.elo < 1200
    assert rl.low > 0


def test_elo_interval_of_few_prompts_starts_further_out_than_a_fortieth():
    tails = [tail_of(n) for n in (1, 5, 40, 120, 100_000)]
    assert tails == sorted(tails) and tails[0] == 0 and tails[-1] == pytest.approx(0.025, abs=1e-5)
    assert tails[2] == pytest.approx(0.0203, abs=1e-3)  # t with 39 degrees 2.023, times sqrt(40/39) is 2.048


def test_elo_comparisons_of_one_prompt_do_not_narrow_the_interval():
    once = rate(tournament(TRUTH, 60, random.Random(0)), list(TRUTH))
    copied = rate(tournament(TRUTH, 60, random.Random(0), repeats=10), list(TRUTH))
    for a, b in zip(once[1:], copied[1:], strict=True):
        assert b.high - b.low == pytest.approx(a.high - a.low, rel=0.1)
        assert b.num_units == a.num_units


def test_elo_policy_that_never_met_the_first_is_left_out():
    results = [Result("base", "sl", 1.0, "p"), Result("x", "y", 1.0, "p")]
    assert [r.policy for r in rate(results, ["base", "sl", "x", "y"])] == ["base", "sl"]
    assert rate([], ["base", "sl"]) == []


def test_elo_unknown_policy_is_an_error_that_names_it():
    with pytest.raises(ValueError, match="stranger"):
        rate([Result("base", "stranger", 1.0, "p")], ["base"])


def test_elo_same_seed_same_interval():
    results = tournament(TRUTH, 40, random.Random(3))
    assert rate(results, list(TRUTH), seed=7) == rate(results, list(TRUTH), seed=7)
