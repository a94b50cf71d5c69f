"""A feedback model with a planted fault is caught by the gate that is meant for it; a good one passes all."""

import math

import pytest

from tasks.gates import GatesConfig
from tasks.gates.intervals import correlation, mean, ratio, share
from tasks.gates.labels import label_gates
from tasks.gates.pairs import LabelSet, Pair, read_label_set
from tasks.gates.probing import probe_gates
from tasks.schema import Comparison, Label
from tasks.stage import StageFailed
from tests.planted_judges import (
    Judged,
    agreeing,
    always_a,
    at_random,
    contradicting,
    failed,
    good,
    judge,
    longer,
    refusing,
    silent,
)

LABEL_GATES = {
    "failures", "refusals", "contradictions", "swap_invariance", "position_bias", "chance", "length_bias",
}  # fmt: skip
ORDER_GATES = {"position_bias", "swap_invariance", "chance"}
PROBE_GATES = {"identical_pair", "identical_order", "canaries"}


@pytest.mark.parametrize(
    ("generator", "form", "caught"),
    [
        (judge(good), "soft", set()),
        (judge(good, agreeing), "reasoned", set()),
        (judge(always_a), "soft", {*ORDER_GATES, "identical_order", "canaries", "length_bias"}),  # decides nothing
        (judge(longer), "soft", {"length_bias", "canaries"}),
        (judge(at_random), "soft", {"chance", "canaries", "swap_invariance"}),
        (judge(good, contradicting), "reasoned", {"contradictions"}),
        (judge(good, refusing), "reasoned", {"refusals", "contradictions"}),
        (silent(), "soft", {"failures", "refusals", *LABEL_GATES - {"contradictions"}, *PROBE_GATES}),
    ],
    ids=["good", "good reasoned", "always A", "longer", "random", "contradicting", "refusing", "silent"],
)
def test_gates_planted_fault_is_caught_by_its_gate(tmp_path, generator, form, caught):
    judged = Judged(tmp_path)
    judged.ask("feedback", generator, form)
    gates = judged.gates()
    assert {gate.gate for gate in gates.values()} == LABEL_GATES | PROBE_GATES
    assert failed(gates) == caught
    assert all((gate.status == "failed") == (not gate.passed) for gate in gates.values())


@pytest.mark.parametrize("caught", ["swap_invariance", "identical_pair"])
def test_gates_answers_that_are_not_swapped_back_are_caught(tmp_path, caught):
    """A pipeline's fault, not a model's: the letter is taken for the completion in both orders."""
    judged = Judged(tmp_path)
    judged.ask("feedback", judge(lambda a, b: 0.05 + 0.9 * good(a, b) if a != b else 0.8))
    comparisons, labels, probes = judged.rows("feedback")

    def broken(row):
        return row.model_copy(update={"prob_a": 1 - row.prob_a}) if row.order == "ba" else row

    gates = label_gates(read_label_set(comparisons, map(broken, labels)), "feedback", judged.config)
    gates += probe_gates([broken(row) for row in probes], "feedback", judged.config)
    assert caught in {gate.gate for gate in gates if not gate.passed}
    assert failed(judged.gates()) == set()


def test_gates_of_a_jury_name_the_one_that_fails(tmp_path):
    judged = Judged(tmp_path)
    judged.ask("good", judge(good))
    judged.ask("partial", judge(always_a))
    assert {gate.evaluator for gate in judged.gates().values() if not gate.passed} == {"partial"}


def test_gates_that_only_warn_do_not_pass_and_do_not_fail(tmp_path):
    judged = Judged(tmp_path, on_failure="warn")
    judged.ask("feedback", judge(always_a))
    gate = judged.gates()["position_bias/feedback"]
    assert (gate.passed, gate.status, gate.reason) == (False, "ok", None)


def test_gates_limit_is_part_of_the_version_and_how_canaries_are_asked_is_not(tmp_path):
    judged = Judged(tmp_path)
    judged.ask("feedback", judge(good))
    first = judged.stage().derivation(judged.store).version
    for change, same in (({"num_canary_principles": 9, "canaries": "x"}, True), ({"max_longer": 0.8}, False)):
        judged.config = judged.config.model_copy(update=change)
        assert (judged.stage().derivation(judged.store).version == first) is same


@pytest.mark.parametrize("num", [0, 19])
def test_gates_with_too_few_samples_do_not_pass_silently(num):
    found = counted([Pair(0.9, 0.8, 1), Pair(0.2, 0.1, 1)] * (num // 4))
    gates = label_gates(found, "f", GatesConfig())
    measured = [gate for gate in gates if gate.gate != "contradictions"]
    assert not any(gate.passed for gate in measured)
    assert all("at least 20 are needed" in gate.says for gate in measured)


def test_gates_of_scores_have_no_order_to_measure():
    found = read_label_set([comparison("c")], [label("c", order, "0", form="score", prob_a=None) for order in "ab"])
    gates = {gate.gate: gate for gate in label_gates(found, "f", GatesConfig(min_samples=1))}
    for name in ("swap_invariance", "position_bias", "chance", "length_bias"):
        assert (gates[name].passed, gates[name].status) == (True, "skipped")
        assert "scored alone" in (gates[name].reason or "")


# what is read from labels


def comparison(name, a="aa", b="b"):
    return Comparison(row_id=name, reuse_key="k", prompt_id="p", completion_a=a, completion_b=b)


def label(name, order, slot="0", prob_a=0.5, **fields):
    values = {"prompt_id": "p", "comparison_id": name, "evaluator": "f", "principle_id": "x", "principle_hash": "x"}
    row_id = f"{name}/f/{slot}/{order}/{fields.get('sample', 0)}"
    values |= {"row_id": row_id, "reuse_key": "k", "logprob_a": -1.0, "logprob_b": -1.0}
    return Label.model_validate({**values, "order": order, "slot": slot, "prob_a": prob_a, **fields})


def test_label_set_averages_samples_then_slots_and_leaves_hard_constraints_out():
    rows = [
        label("c", "ab", "0", 0.9, sample=0),
        label("c", "ab", "0", 0.7, sample=1),
        label("c", "ba", "0", 0.4),
        label("c", "ab", "1", 0.2),
        label("c", "ba", "1", 0.2),
        label("c", "ab", "2", 0.9),  # its other order is missing
        label("c", "ab", "hard/x", 0.0),
        label("c", "ba", "hard/x", 0.0),
        label("c", "a", "consistency", None, form="consistency", prob_consistent=0.1),
    ]
    (pair,) = read_label_set([comparison("c")], rows).pairs
    assert pair == pytest.approx((0.5, 0.3, 1))


def test_label_set_skips_comparisons_without_labels_and_counts_how_rows_ended():
    skipped = {"status": "skipped", "reason": "identical pair", "prob_a": None}
    refused = {"status": "refused", "reason": "the server refused", "prob_a": None}
    rows = [label("c2", "ab", **skipped), label("c2", "ba", **skipped), label("c3", "ab"), label("c3", "ba", **refused)]
    found = read_label_set([comparison(f"c{i}") for i in range(4)], rows)
    assert (found.num_asked, found.num_bad, found.num_refusing, found.pairs) == (2, 1, 1, [])
    assert found.reasons == {"the server refused": 1}


def test_label_set_of_other_comparisons_raises():
    with pytest.raises(StageFailed, match="'c9'"):
        read_label_set([comparison("c0"), comparison("c1")], [label("c9", "ab")])


def test_position_bias_of_a_model_that_knows_a_tie_is_none():
    tie, biased = Pair(0.53, 0.47, 0), Pair(0.7, 0.3, 0)
    gates = [label_gates(counted([pair] * 40), "f", GatesConfig()) for pair in (tie, biased)]
    values = [next(gate.value for gate in each if gate.gate == "position_bias") for each in gates]
    assert values == [0.0, 1.0]


def test_length_bias_counts_decided_pairs_of_unequal_length():
    pairs = [Pair(0.9, 0.9, 1), Pair(0.1, 0.1, 1), Pair(0.1, 0.1, -1), Pair(0.9, 0.1, 1), Pair(0.9, 0.9, 0)]
    gate = next(g for g in label_gates(counted(pairs * 20), "f", GatesConfig()) if g.gate == "length_bias")
    assert (gate.num_samples, gate.value) == (60, pytest.approx(2 / 3))


def counted(pairs):
    found = LabelSet(pairs=list(pairs), num_shown_together=2 * len(pairs))
    found.statuses["ok"] = 2 * len(pairs)
    return found


def test_refusing_reasoning_is_counted_and_a_quoted_refusal_is_not():
    quoted = 'Option (A) says "I\'m sorry, but I cannot help", which is safer. So (A) is better.'
    rows = [label("c", "ab", form="reasoned", reasoning=text) for text in ("I cannot judge such texts.", quoted)]
    assert read_label_set([comparison("c")], rows).num_refusing == 1


# intervals


def test_share_is_wilsons_interval():
    assert share(20, 24) == pytest.approx((20 / 24, 0.6415, 0.9332, 24), abs=1e-4)
    assert share(0, 10)[:3] == pytest.approx((0.0, 0.0, 0.2775), abs=1e-4)
    assert share(0, 0) == (0.0, 0.0, 0.0, 0)


def test_mean_is_the_normal_interval():
    assert mean([0.0, 1.0, 0.0, 1.0]) == pytest.approx((0.5, 0.5 - 1.96 * 0.288675, 0.5 + 1.96 * 0.288675, 4), abs=1e-4)


def test_ratio_is_of_the_sums_and_sure_where_it_never_varies():
    assert ratio([1.0, 0.0, 2.0], [2.0, 2.0, 2.0]) == pytest.approx((0.5, -0.0658, 1.0658, 3), abs=1e-4)
    assert ratio([0.4, 0.8], [0.4, 0.8]) == pytest.approx((1.0, 1.0, 1.0, 2))
    assert ratio([0.0, 0.0], [0.0, 0.0]) == (0.0, 0.0, 0.0, 2)


def test_correlation_is_pearsons_with_fishers_interval():
    xs, ys = [1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 1.0, 4.0, 3.0, 5.0]
    half = 1.959964 / math.sqrt(2)
    expected = (0.8, math.tanh(math.atanh(0.8) - half), math.tanh(math.atanh(0.8) + half), 5)
    assert correlation(xs, ys) == pytest.approx(expected)
    assert correlation(xs, [0.5] * 5) == (0.0, 0.0, 0.0, 5)
    assert correlation(xs, xs).value == pytest.approx(1)
