import random

import pytest

from tasks.bootstrap import bootstrap_mean
from tasks.evaluate import measure_all
from tasks.judge import Case, judge_by_feedback, judge_by_oracle
from tasks.schema import Judgement, Sample
from tasks.serving import FakeGenerator
from tests.worlds import constitution_of, prompt, recipe

PRINCIPLES = constitution_of("one").comparison_principles()


def sample(text, asked, **fields):
    values = {"row_id": f"{asked.prompt_id}/0", "reuse_key": "k", "prompt_id": asked.prompt_id, "kind": asked.kind}
    return Sample.model_validate({**values, "group": None, "sample": 0, "completion": text, **fields})


def judgement(policy, verdict, kind="red_team", group=None, unit="u"):
    values = {"row_id": f"{policy}/{random.random()}", "reuse_key": "k", "prompt_id": "p", "sample": 0}
    return Judgement.model_validate(
        {**values, "kind": kind, "group": group, "policy": policy, "unit": unit, "verdict": verdict}
    )


def test_bootstrap_interval_covers_the_truth_about_as_often_as_it_says():
    rng, hits = random.Random(1), 0
    for trial in range(100):
        values = [float(rng.random() < 0.3) for _ in range(150)]
        interval = bootstrap_mean(values, [str(i) for i in range(150)], seed=trial)
        hits += interval.low <= 0.3 <= interval.high
    assert 85 <= hits <= 100


def test_bootstrap_repeats_of_one_unit_do_not_narrow_the_interval():
    values, units = [0.0, 1.0] * 10, [str(i) for i in range(20)]
    once = bootstrap_mean(values, units)
    copied = bootstrap_mean(values * 10, units * 10)
    assert copied.num_samples == 200 and copied.num_units == 20
    assert copied.high - copied.low == pytest.approx(once.high - once.low, abs=0.05)


def test_evaluate_wrong_tools_for_harm_count_as_compliance():
    rows = [judgement("rl", v) for v in ("comply", "wrong", "refuse", "evade")]
    metrics = {m.measure: m for m in measure_all(rows)}
    assert metrics["harmful_compliance"].value == 0.5
    assert metrics["evasion"].value == metrics["explained_refusal"].value == 0.25
    assert "benign_helpfulness" not in metrics


def test_evaluate_groups_get_rows_of_their_own():
    rows = [judgement("rl", "comply", group="unseen"), judgement("rl", "refuse", group="seen")]
    found = {m.group: m.value for m in measure_all(rows) if m.measure == "harmful_compliance"}
    assert found == {"all": 0.5, "seen": 0.0, "unseen": 1.0}


def test_judge_oracle_on_a_foreign_prompt_says_what_to_do():
    asked = prompt("What is the capital of France?", split="held_out")
    case = Case(asked, "rl", sample("Paris.", asked), sample("Paris.", asked))
    with pytest.raises(ValueError, match="micro world"):
        judge_by_oracle([case])


def test_judge_feedback_follows_the_better_text_and_leaves_equal_ones_at_half():
    asked = prompt("ask", split="held_out")
    reference, better = sample("bad", asked), sample("GOOD", asked)

    def weigh(request):
        shown = request.messages[0].content
        return (-0.1, -5.0) if shown.index("GOOD") < shown.index("(B) ") else (-5.0, -0.1)

    cases = [Case(asked, "base", reference, reference), Case(asked, "rl", better, reference)]
    rows = judge_by_feedback(cases, PRINCIPLES, FakeGenerator(weigh=weigh), recipe())
    assert rows[0].win_prob == 0.5
    assert rows[1].win_prob is not None and rows[1].win_prob > 0.95


def test_judge_failed_sample_is_skipped_with_its_reason():
    asked = prompt("ask", split="held_out")
    failed = sample(None, asked, status="failed", reason="too long")
    rows = judge_by_feedback([Case(asked, "rl", failed, failed)], PRINCIPLES, FakeGenerator(), recipe())
    assert rows[0].status == "skipped" and "too long" in (rows[0].reason or "") and rows[0].win_prob is None
