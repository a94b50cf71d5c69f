"""The report on labels, rounds and principles: what its figures count."""

from typing import Any

import pytest

from constitutions import Constitution
from tasks.report.coverage import Conflict, clusters, conflicts, critiques_of, dead_principles, verdicts_of
from tasks.report.gates import gate_cautions, gate_rows, outcome
from tasks.report.judged import Judged, answers_of, judged_pairs
from tasks.report.labels import biases, decided_figures, jury, label_figures
from tasks.report.rounds import ENDINGS, rounds
from tasks.report.samples import step_of
from tasks.schema import Comparison, Gate, Improvement, Label, Preference, Revision
from tasks.store.identity import rows_to_table
from tests.report_world import DOCUMENT, both_orders, gate_row, improvement_rows, label_row

SCORES = [0.0] * 10


def table_of(*rows: list[Label]) -> Any:
    return rows_to_table([row for each in rows for row in each], Label)


def pairs_in(*rows: list[Label], evaluator: str = "feedback") -> list[Judged]:
    return judged_pairs({evaluator: table_of(*rows)})


def told(ab: float, ba: float, comparison: str = "c", principle: str = "p1", **values: Any) -> Judged:
    fixed = {"evaluator": "feedback", "slot": "0", "shown_together": True, **values}
    return Judged(comparison=comparison, principle=principle, ab=ab, ba=ba, **fixed)


def at(score: int) -> list[float]:
    return [float(i == score - 1) for i in range(10)]


# --- labels --------------------------------------------------------------------------------------------------


def test_judged_pairs_one_order_only_does_not_count() -> None:
    rows = [*both_orders("c1", 0.9, 0.3), label_row("c2", "ab", 0.8), label_row("c3", "ab", 0.8)]
    rows += [label_row("c3", "ba", None, status="failed", reason="too long")]
    assert pairs_in(rows) == [told(0.9, 0.3, "c1")]


def test_judged_pairs_samples_are_averaged_and_slots_kept_apart() -> None:
    rows = [row for n, p in enumerate((0.2, 0.4)) for row in both_orders("c1", p, p, form="reasoned", sample=n)]
    rows += both_orders("c1", 0.9, 0.9, "p2", slot="1") + both_orders("c1", 0.1, 0.1, "p3", slot="hard/p3")
    found = pairs_in(rows)
    assert [(p.slot, round(p.mean, 6)) for p in found] == [("0", 0.3), ("1", 0.9), ("hard/p3", 0.1)]
    assert answers_of(found) == {"c1": {"feedback": pytest.approx(0.6)}}  # the hard constraint is no drawn principle


def test_judged_pairs_scores_make_a_probability_and_no_position() -> None:
    shown = {"form": "score", "status": "ok"}
    rows = [label_row("c1", o, None, score_probs=at(s), **shown) for o, s in (("a", 8), ("b", 3))]
    rows += [label_row("c2", o, None, score_probs=at(4), **shown) for o in ("a", "b")]
    found = pairs_in(rows)
    assert [(p.mean, p.shown_together) for p in found] == [(1.0, False), (0.5, False)]
    (bias,) = biases(found, {"feedback": table_of(rows)})
    assert bias.same_position is None and bias.num_pairs == 0


def test_judged_pairs_consistency_rows_are_no_judgement() -> None:
    rows = [label_row("c1", o, None, slot="consistency", form="consistency", prob_consistent=0.2) for o in ("a", "b")]
    assert pairs_in(rows) == []


def test_biases_same_position_twice_counts_each_way() -> None:
    # first twice, second twice, firm for a, firm for b, undecided
    answers = [(0.9, 0.2), (0.1, 0.7), (0.9, 0.8), (0.1, 0.2), (0.5, 0.5)]
    rows = [row for i, pair in enumerate(answers) for row in both_orders(f"c{i}", *pair)]
    (bias,) = biases(pairs_in(rows), {"feedback": table_of(rows)})
    assert bias.same_position is not None and bias.same_position.value == pytest.approx(0.4)
    assert (bias.first_twice, bias.second_twice) == (0.2, 0.2)
    assert bias.distance == pytest.approx((0.7 + 0.6 + 0.1 + 0.1) / 5)


def test_biases_principles_of_a_comparison_are_averaged_and_constraints_left_out() -> None:
    rows = both_orders("c1", 0.9, 0.2) + both_orders("c1", 0.9, 0.9, "p2", slot="1")
    rows += both_orders("c1", 0.9, 0.0, "p3", slot="hard/p3")
    (bias,) = biases(pairs_in(rows), {"feedback": table_of(rows)})
    assert bias.num_pairs == 1 and bias.first_twice == 0  # 0.9 and 0.55
    assert bias.distance == pytest.approx(0.35)


def test_biases_judge_that_always_says_a_is_all_position() -> None:
    rows = [row for i in range(5) for row in both_orders(f"c{i}", 0.9, 0.1)]
    (bias,) = biases(pairs_in(rows), {"feedback": table_of(rows)})
    assert bias.same_position is not None and bias.same_position.value == bias.first_twice == 1.0


def test_biases_evaluators_have_a_line_each_with_their_contradictions() -> None:
    good = both_orders("c1", 0.8, 0.8)
    odd = [
        label_row("c1", order, 0.8, evaluator="odd", form="reasoned", contradicts=said)
        for order, said in (("ab", True), ("ba", None))
    ]
    labels = {"feedback": table_of(good), "odd": table_of(odd)}
    assert [(b.evaluator, b.contradictions) for b in biases(judged_pairs(labels), labels)] == [
        ("feedback", "–"),
        ("odd", "100.0% of 1"),
    ]


def test_jury_agreement_takes_chance_off_and_needs_two() -> None:
    first = [row for i in range(4) for row in both_orders(f"c{i}", *([0.9] * 2 if i < 2 else [0.1] * 2))]
    second = [row for i in range(4) for row in both_orders(f"c{i}", *([0.9] * 2 if i % 2 else [0.1] * 2))]
    found = jury(judged_pairs({"one": table_of(first), "two": table_of(second)}))
    assert found is not None and (found.pairs[0].agreement, found.pairs[0].kappa) == (0.5, 0.0)
    assert found.num_common == 4 and found.kappa == pytest.approx(0.0)
    assert jury(pairs_in(first)) is None


def preference(decided_by: str, status: str = "ok") -> Preference:
    fixed = {"row_id": "r", "reuse_key": "k", "prompt_id": "p", "prompt": [], "chosen": "x", "rejected": "y"}
    more = {"target_prob": 0.9, "origin": "ai", "status": status, "decided_by": decided_by}
    return Preference.model_validate({**fixed, **more})


def test_decided_figures_name_what_overrode_the_labels() -> None:
    rows = [preference(by) for by in ("labels", "hard/harm", "hard/harm", "priority")]
    rows.append(preference("priority", "skipped"))
    assert [(name, value) for name, value, _ in decided_figures(rows_to_table(rows, Preference))] == [
        ("… decided by hard/harm", "2"),
        ("… decided by priority", "1"),
    ]


def test_label_figures_comparison_counts_once_whatever_was_asked_of_it() -> None:
    rows = both_orders("c1", 0.9, 0.7) + both_orders("c1", 0.6, 0.6, "p2", slot="1")
    comparisons = [Comparison(row_id="c1", reuse_key="k", prompt_id="c1", completion_a="x", completion_b="y")]
    tables = rows_to_table(comparisons, Comparison), rows_to_table([preference("labels")], Preference)
    figures = {name: value for name, value, _ in label_figures(pairs_in(rows), *tables)}
    assert figures["Labelled"] == "1" and figures["Mean distance from 0.5"] == "0.200"


# --- rounds --------------------------------------------------------------------------------------------------


def revision(number: int, prompt: str, principle: str, status: str = "ok", reason: str | None = None) -> Revision:
    texts = {"critique_request": "?", "critique": "C", "revision_request": "!", "revision": "R", "principle_hash": "h"}
    names = {"row_id": f"{prompt}/{number}", "reuse_key": "k", "prompt_id": prompt, "principle_id": principle}
    return Revision.model_validate({**names, **texts, "round": number, "status": status, "reason": reason})


ENDED = [
    revision(0, "a", "harm-1"),
    revision(0, "b", "harm-1", "skipped", "no-op: the revision repeats the text"),
    revision(0, "c", "harm-1", "skipped", "all four checks passed: nothing to revise"),
    revision(0, "d", "harm-1", "unparsable", "point-of-view confusion: it repeats the completion"),
    revision(0, "e", "harm-1", "failed", "too long"),
    revision(0, "f", "harm-1", "skipped", "completion is failed: too long"),
    revision(1, "a", "harm-1"),
]


def test_rounds_every_way_to_end_is_counted_apart() -> None:
    first, second = rounds(rows_to_table(ENDED, Revision), None)
    assert dict(zip(ENDINGS, first.counts, strict=True)) == dict.fromkeys(ENDINGS, 1)
    assert (first.not_asked, second.counts[0], first.improved) == (1, 1, None)


def test_rounds_reasons_are_those_that_the_stage_writes() -> None:
    """The stage's own words, not a copy of them."""
    from tasks.revision.verdicts import ALL_PASSED, NO_OP, confusion

    ends = [NO_OP, ALL_PASSED, confusion("it repeats the completion")]
    rows = [revision(0, str(i), "harm-1", str(end["status"]), end["reason"]) for i, end in enumerate(ends)]
    (found,) = rounds(rows_to_table(rows, Revision), None)
    assert found.counts == [0, 1, 1, 1, 0] and found.not_asked == 0


def test_rounds_improvement_is_of_its_own_round() -> None:
    rows = [revision(n, str(i), "harm-1") for n in range(2) for i in range(30)]
    better = improvement_rows(rows[:30], 0.8) + improvement_rows(rows[30:], 0.4)
    better.append(better[0].model_copy(update={"win_prob": None, "status": "skipped"}))
    first, second = rounds(rows_to_table(rows, Revision), rows_to_table(better, Improvement))
    assert first.improved is not None and first.improved.value == pytest.approx(0.82)
    assert second.improved is not None and second.improved.high < 0.5


# --- principles ----------------------------------------------------------------------------------------------


def test_critiques_of_a_round_without_a_text_was_not_asked() -> None:
    (found,) = critiques_of(rows_to_table(ENDED, Revision)).values()
    assert found == (6, 2, 1, 1, 1, 1)


def test_verdicts_of_flips_and_margins_by_drawn_principle() -> None:
    pairs = [told(0.9, 0.1), told(0.9, 0.7, "d"), told(0.2, 0.2, "e", "p2"), told(0.1, 0.1, "f", "p3", slot="hard/p3")]
    found = verdicts_of(pairs)
    assert found.keys() == {"p1", "p2"}
    assert (found["p1"].asked, found["p1"].flip_rate, found["p1"].margin) == (2, 0.5, pytest.approx(0.15))


def test_clusters_first_line_is_the_sum_of_its_principles() -> None:
    constitution = Constitution.model_validate(DOCUMENT)
    pairs = [told(0.9, 0.9, str(i), "harm-1") for i in range(3)] + [told(0.6, 0.6, "x", "tone-1")]
    (harm, harm_1), (tone, tone_1) = clusters(constitution, rows_to_table(ENDED, Revision), pairs)
    assert harm.verdicts == harm_1.verdicts and harm.verdict_share == 0.75
    assert harm.critiques is not None and harm.critiques.asked == 6 and harm.principle is None
    assert tone.critiques is None and tone_1.critiques is None  # it has no critique request
    assert tone.verdicts is not None and tone.verdicts.asked == 1


def test_dead_principles_are_named_with_the_draws_expected() -> None:
    constitution = Constitution.model_validate(DOCUMENT)
    pairs = [told(0.9, 0.9, str(i), "harm-1") for i in range(30)]
    (dead,) = dead_principles(constitution, rows_to_table(ENDED, Revision), pairs)
    assert dead == ("tone-1", "labels", pytest.approx(10))  # of weights 1 and 0.5


def test_dead_principles_none_where_all_were_asked_at_once() -> None:
    constitution = Constitution.model_validate(DOCUMENT)
    pairs = [told(0.9, 0.9, "c", "all", slot="all")]
    assert dead_principles(constitution, rows_to_table(ENDED, Revision), pairs) == []


def test_conflicts_only_clear_and_opposite_answers_of_one_evaluator() -> None:
    pairs = [
        told(0.9, 0.9, "c1", "p1"),
        told(0.1, 0.1, "c1", "p2", slot="1"),
        told(0.9, 0.9, "c2", "p2"),
        told(0.48, 0.48, "c2", "p1", slot="1"),
        told(0.1, 0.1, "c3", "p3"),
        told(0.9, 0.9, "c3", "p1", slot="1", evaluator="other"),
        told(0.1, 0.1, "c1", "p4", slot="hard/p4"),
    ]
    assert conflicts(pairs) == [Conflict("p1", "p2", 2, 1)]


def test_conflicts_many_of_many_come_before_one_of_one() -> None:
    often = [told(0.9 if i else 0.1, 0.9 if i else 0.1, f"c{i}", "p1") for i in range(10)]
    often += [told(0.1, 0.1, f"c{i}", "p2", slot="1") for i in range(10)]
    once = [told(0.9, 0.9, "d", "o1"), told(0.1, 0.1, "d", "o2", slot="1")]
    assert conflicts([*once, *often]) == [Conflict("p1", "p2", 10, 9), Conflict("o1", "o2", 1, 1)]


# --- gates ---------------------------------------------------------------------------------------------------


def test_gate_rows_failed_ones_first_and_cautions_name_them() -> None:
    start = [gate_row("leakage"), gate_row("helpful_only", status="skipped", reason="nothing to see", num_samples=0)]
    late = [gate_row("canaries", passed=False, evaluator="second")]
    tables = {"gates/start": rows_to_table(start, Gate), "gates/labels": rows_to_table(late, Gate)}
    found = gate_rows({**tables, "prompts": rows_to_table([], Gate)})
    assert [gate.gate for gate in found] == ["canaries", "leakage", "helpful_only"]
    assert [outcome(gate) for gate in found] == ["did not hold", "held", "nothing to measure"]
    (caution,) = gate_cautions(found)
    assert "canaries (second)" in caution and "leakage" not in caution
    assert gate_cautions(found[1:]) == []


# --- samples -------------------------------------------------------------------------------------------------


def test_step_of_critique_free_revision_shows_what_was_asked() -> None:
    row = revision(0, "a", "harm-1").model_copy(update={"critique_request": "", "critique": None})
    step = step_of(row)
    assert (step.request, step.critique, step.revision) == ("!", "", "R")
