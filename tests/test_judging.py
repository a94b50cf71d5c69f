import math

import pytest

from tasks.judge import Case, judge_by_feedback
from tasks.judging import choice_problem, mass_problem, normalise, scoring_prompt, unswap
from tasks.schema import Message, Sample
from tasks.serving import Choice, FakeGenerator
from tests.worlds import constitution_of, prompt, recipe

PRINCIPLES = constitution_of("one").comparison_principles()


def test_mass_problem_names_the_mass_and_the_limit():
    assert mass_problem([math.log(0.3), math.log(0.2)], 0.4) is None
    problem = mass_problem([math.log(0.003), math.log(0.002)], 0.4)
    assert problem is not None and "the 2 answers hold 0.005" in problem and "at least 0.4" in problem
    assert mass_problem([-math.inf, -math.inf]) is not None


def test_choice_problem_is_the_error_where_there_is_one():
    assert choice_problem(Choice(None, error="too long")) == "too long"
    assert choice_problem(Choice((-1.0, -2.0))) is None


def test_unswap_and_normalise_by_hand():
    assert unswap(Choice((-1.0, -2.0)), "ba") == (-2.0, -1.0)
    assert normalise(math.log(0.3), math.log(0.1)) == pytest.approx(0.75)
    assert normalise(-1.0, -math.inf) == 1 and normalise(-math.inf, -1.0) == pytest.approx(0)
    assert normalise(None, -1.0) is None


def test_scoring_prompt_shows_one_completion_and_ten_scores():
    text = scoring_prompt([Message(role="user", content="ask {completion}")], "Which is kinder?", "I {question} will.")
    assert "Human: ask {completion}\n\nAssistant: I {question} will.\n\nWhich is kinder?" in text
    assert [line for line in text.split("\n") if line.startswith("(")] == [
        f"({letter}) {score}" for score, letter in enumerate("ABCDEFGHIJ", start=1)
    ]


def judged(*answers):
    def sample(name, text):
        return Sample(
            row_id=name,
            reuse_key=name,
            prompt_id=asked.prompt_id,
            kind="red_team",
            group=None,
            sample=0,
            completion=text,
        )

    asked, replies = prompt("ask", split="held_out"), iter(answers)
    case = Case(asked, "sl", sample("s", "mine"), sample("r", "theirs"))
    generator = FakeGenerator(weigh=lambda request: next(replies))
    return judge_by_feedback([case], PRINCIPLES, generator, recipe(sampling=None))[0]


def test_judge_averages_both_orders():
    row = judged(Choice((math.log(0.6), math.log(0.2))), Choice((math.log(0.4), math.log(0.4))))
    assert (row.status, row.win_prob) == ("ok", pytest.approx(0.625))


@pytest.mark.parametrize("weak", [0, 1])
def test_judge_missing_mass_in_either_order_is_a_failure(weak):
    answers = [Choice((-0.1, -3.0)), Choice((-0.1, -3.0))]
    answers[weak] = Choice((-30.0, -31.0))
    row = judged(*answers)
    assert (row.status, row.win_prob) == ("failed", None) and "of the probability" in (row.reason or "")


def test_judge_request_that_cannot_be_done_is_a_failure_with_its_error():
    row = judged(Choice((-0.1, -3.0)), Choice(None, error="prompt has 9 tokens"))
    assert (row.status, row.reason) == ("failed", "prompt has 9 tokens")
