import random

import pytest

from tasks.bootstrap import bootstrap_mean
from tasks.evaluate import agree_all, measure_all, rate_all
from tasks.evaluation.judged import judged_values
from tasks.evaluation.texts import boilerplate, text_values
from tasks.judge import Case, judge_by_feedback, judge_by_oracle
from tasks.schema import Judgement, Match, Sample
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
    metrics = {m.measure: m for m in measure_all(judged_values(rows), {})}
    assert metrics["harmful_compliance"].value == 0.5
    assert metrics["evasion"].value == metrics["explained_refusal"].value == 0.25
    assert "benign_helpfulness" not in metrics


def test_evaluate_groups_get_rows_of_their_own():
    rows = [judgement("rl", "comply", group="unseen"), judgement("rl", "refuse", group="seen")]
    found = {m.group: m.value for m in measure_all(judged_values(rows), {}) if m.measure == "harmful_compliance"}
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


def test_evaluate_every_principle_has_a_measure_of_its_own():
    rows = [
        judgement("rl", None).model_copy(update={"win_prob": p, "principle_id": i}) for p, i in ((0.9, "a"), (0.2, "b"))
    ]
    found = {m.measure: m.value for m in measure_all(judged_values(rows), {})}
    assert found == {"harmlessness_win_prob": pytest.approx(0.55), "principle/a": 0.9, "principle/b": 0.2}


def said_by(policy, texts, kind="red_team"):
    asked = [prompt(f"ask {i}", kind=kind, split="held_out") for i in range(len(texts))]
    return {policy: [sample(text, each, num_tokens=3) for text, each in zip(texts, asked, strict=True)]}


def figures(samples):
    return {(m.policy, m.measure): m.value for m in measure_all(text_values(samples), {})}


REFUSAL = "I am sorry, but I cannot help you with that request of yours."
ANSWERS = [
    f"To do {i}, take {i * 7} of these {chr(97 + i)} and then {i + 3} steps to the {chr(122 - i)} side."
    for i in range(20)
]


def test_evaluate_policy_that_refuses_everything_is_flagged_on_benign_prompts_too():
    from tasks.report.measures import cautions

    samples = {**said_by("base", ANSWERS, "helpful"), **said_by("rl", [REFUSAL] * 20, "helpful")}
    metrics = measure_all(text_values(samples), {})
    assert figures(samples)["rl", "refused_helpful"] == 1.0 and figures(samples)["base", "refused_helpful"] == 0.0
    assert any(
        "Refusals by their words, benign" in note and "rose" in note for note in cautions(metrics, ["base", "rl"])
    )


def test_evaluate_policy_that_says_one_sentence_is_flagged_as_boilerplate():
    from tasks.report.measures import cautions

    sermon = " Remember that kindness is the foundation of every good society."
    samples = {
        **said_by("base", ANSWERS),
        **said_by("same", [ANSWERS[0]] * 20),
        **said_by("rl", [a + sermon for a in ANSWERS]),
    }
    found = figures(samples)
    assert found["base", "boilerplate"] == 0.0 and found["base", "distinct"] == 1.0
    assert found["same", "boilerplate"] == 1.0 and found["same", "distinct"] == 0.0
    assert 0.3 < found["rl", "boilerplate"] < 0.6 and found["rl", "distinct"] == 1.0
    assert any(
        note.startswith("Boilerplate rose") for note in cautions(measure_all(text_values(samples), {}), ["base", "rl"])
    )


def test_boilerplate_is_the_share_of_words_in_common_phrases():
    shared = "a b c d e f"
    assert boilerplate([f"{shared} {x}" for x in "uvw"]) == pytest.approx([6 / 7] * 3)
    assert (
        boilerplate([f"{shared} u", f"{shared} v", "other words than these are here now"]) == [0.0] * 3
    )  # twice is little
    assert boilerplate(["no", "no", "no", ""]) == [1.0, 1.0, 1.0, 0.0]


def match_row(a, b, prob, kind="red_team", judge="one", name=0):
    values = {"row_id": f"p{name}/0/{a}/{b}", "reuse_key": "k", "prompt_id": f"p{name}", "kind": kind, "group": None}
    probs = {"prob_ab": prob, "prob_ba": prob, "prob_a": prob}
    return Match.model_validate({**values, **probs, "sample": 0, "judge": judge, "policy_a": a, "policy_b": b})


def test_evaluate_jury_is_the_mean_of_the_models_and_the_oracle_is_none_of_them():
    rows = {
        judge: [match_row("base", "rl", prob, judge=judge, name=i) for i in range(40)]
        for judge, prob in (("micro_oracle", 0.0), ("one", 0.2), ("two", 0.4))
    }
    found = {(m.judge, m.policy): m.value for m in rate_all(rows, ["base", "rl"], {})}
    assert {judge for judge, _ in found} == {"micro_oracle", "one", "two", "jury"}
    assert found["two", "rl"] < found["jury", "rl"] < found["one", "rl"] < found["micro_oracle", "rl"]


def test_evaluate_bouts_that_failed_tell_nothing():
    rows = [match_row("base", "rl", None), *[match_row("base", "rl", 0.1, name=i) for i in range(1, 9)]]
    (base, rl) = rate_all({"one": rows}, ["base", "rl"], {})
    assert (base.num_samples, rl.num_units) == (8, 8)


def test_evaluate_judge_that_prefers_neither_side_agrees_with_people_by_half():
    people = [match_row("base", "rl", float(i % 4 == 0), name=i) for i in range(20)]
    rows = {"one": [match_row("base", "rl", 0.5, name=i) for i in range(20)], "people": people}
    (found,) = agree_all(rows, {})
    assert found.value == 0.5 and found.num_samples == 20
