"""What the report's sentence claims, what it cautions of, and what its figures count."""

import random
import re

import pytest

from tasks.report.ledger import account, duration
from tasks.report.measures import answer, cautions, measure_tables, shares_chart
from tasks.report.ratings import agreements, frontiers, kendall, rating_table
from tasks.report.samples import MAX_CHARACTERS, clip, pick
from tasks.schema import (
    Label,
)
from tasks.store.identity import rows_to_table
from tests.report_world import (
    POLICIES,
    label_row,
    metric,
    rates,
    rating,
    ratings,
)


def test_answer_clear_fall_names_every_policy() -> None:
    assert answer(rates([0.86, 0.41, 0.05], [0.90, 0.92, 0.98]), POLICIES) == (
        "Harmful compliance on held-out prompts fell from 0.86 (base) to 0.41 (SL) and 0.05 (RL); "
        "benign helpfulness rose from 0.90 to 0.98."
    )


def test_answer_overlapping_intervals_claims_no_change() -> None:
    sentence = answer(rates([0.50, 0.48, 0.40], [0.97, 0.97, 0.98], half=0.06), POLICIES)
    assert "did not clearly change: 0.50 (base), 0.48 (SL) and 0.40 (RL)" in sentence
    assert "went from 0.97 to 0.98 (no clear change" in sentence
    assert "fell" not in sentence and "rose" not in sentence


def test_answer_more_harm_and_less_help_says_so() -> None:
    sentence = answer(rates([0.20, 0.30, 0.60], [0.98, 0.9, 0.5]), POLICIES)
    assert "rose from 0.20 (base) to 0.30 (SL) and 0.60 (RL)" in sentence
    assert "benign helpfulness fell from 0.98 to 0.50." in sentence


def test_answer_detour_does_not_read_as_a_straight_fall() -> None:
    sentence = answer(rates([0.5, 0.7, 0.1], [1, 1, 1]), POLICIES)
    assert "fell from 0.50 (base) to 0.10 (RL), by way of 0.70 (SL)" in sentence


def test_answer_without_oracle_reads_the_feedback_model() -> None:
    metrics = [metric(p, "harmlessness_win_prob", v) for p, v in zip(POLICIES, [0.5, 0.66, 0.83], strict=True)]
    metrics += [metric(p, "helpfulness_win_prob", v) for p, v in zip(POLICIES, [0.5, 0.5, 0.49], strict=True)]
    sentence = answer(metrics, POLICIES)
    assert "RL is judged more harmless than base" in sentence and "0.83 (SL: 0.66; 0.50 is a draw)" in sentence
    assert "neither clearly more nor less helpful (0.49)" in sentence


def test_answer_without_any_measure_shows_no_result() -> None:
    assert "shows no result" in answer([], POLICIES)


def test_answer_reads_all_prompts_not_a_group() -> None:
    metrics = [metric(p, "harmful_compliance", v, group="seen") for p, v in zip(POLICIES, [0.9, 0.5, 0.1], strict=True)]
    assert "shows no result" in answer(metrics, POLICIES)


def test_cautions_undecided_step_and_rising_evasion_are_told() -> None:
    metrics = rates([0.86, 0.06, 0.05], [0.9, 0.9, 0.9])
    metrics += [metric(p, "evasion", v) for p, v in zip(POLICIES, [0.01, 0.02, 0.6], strict=True)]
    notes = cautions(metrics, POLICIES)
    assert any("SL and RL overlap" in note for note in notes)
    assert any(note.startswith("Evasion rose from 0.01 (base)") for note in notes)
    assert cautions(rates([0.86, 0.41, 0.05], [0.9, 0.9, 0.9]), POLICIES) == []


def test_measure_tables_missing_cell_stays_in_its_column() -> None:
    metrics = [metric("base", "evasion", 0.1), metric("rl", "evasion", 0.2), metric("rl", "evasion", 0.3, group="seen")]
    (everything, (line,)), (seen, _) = measure_tables(metrics, POLICIES)
    assert (everything, seen) == ("all", "seen")
    assert [cell and cell.value for cell in line.cells] == ["0.100", None, "0.200"]
    assert line.num == "600 (200)"


def test_frontier_harmlessness_is_one_minus_compliance() -> None:
    chart = shares_chart(rates([0.9, 0.5, 0.1], [0.8, 0.7, 0.6]), POLICIES)
    assert chart is not None and "RL: benign helpfulness 0.6, harmlessness: 1 − harmful compliance 0.9" in chart
    assert shares_chart(rates([0.9, 0.5, 0.1], [0.8, 0.7, 0.6])[:3], POLICIES) is None


def test_frontier_of_each_judge_shows_every_policy_with_its_intervals_in_the_order_of_training() -> None:
    policies = ["base", "sl", "rl@4", "rl", "elsewhere"]
    elos = {"base": 0, "sl": 60, "rl@4": 100, "rl": 180, "elsewhere": 90}
    metrics = [rating(p, axis, elo) for axis in ("harmlessness", "helpfulness") for p, elo in elos.items()]
    (frontier,) = frontiers(metrics, policies)
    described = re.search(r"<desc[^>]*>(.*?)</desc>", str(frontier.chart))
    assert frontier.judge == "feedback" and described
    assert [part.split(":")[0] for part in described[1].split("; ")] == ["base", "SL", "RL@4", "RL", "elsewhere"]
    assert "RL: helpfulness, Elo 180, harmlessness, Elo 180" in described[1]
    assert str(frontier.chart).count('class="path"') == 3 and str(frontier.chart).count('class="interval') == 10
    assert [line.cells[0] for line in rating_table(metrics, policies)][3] == ("+180", "+150 to +210")


def test_frontier_needs_both_axes_of_a_judge() -> None:
    metrics = [rating(p, "harmlessness", 10.0) for p in POLICIES]
    assert frontiers(metrics, POLICIES) == [] and rating_table(metrics, POLICIES) == []


def test_answer_is_about_this_runs_own_policies_and_not_those_along_the_way_or_from_elsewhere() -> None:
    policies = ["base", "sl", "rl@4", "rl", "elsewhere"]
    metrics = [
        metric(policy, measure, value)
        for measure, values in (("harmful_compliance", [0.9, 0.5, 0.3, 0.1, 0.7]), ("benign_helpfulness", [0.8] * 5))
        for policy, value in zip(policies, values, strict=True)
    ]
    said = answer(metrics, policies)
    assert "from 0.90 (base) to 0.50 (SL) and 0.10 (RL)" in said and "elsewhere" not in said and "@" not in said


@pytest.mark.parametrize(
    ("group", "called"),
    [("small talk", "harmless small talk"), ("look-alikes", "harmless prompts that look harmful")],
)
def test_cautions_policy_that_declines_the_harmless_is_told_and_the_first_policy_is_not(group, called) -> None:
    def said(policy: str, value: float) -> list[str]:
        metrics = [metric(p, "refused_helpful", value if p == policy else 0.0, group=group) for p in POLICIES]
        return [note for note in cautions(metrics, POLICIES) if called in note]

    assert said("rl", 0.4) == [f"RL declines {called}: refusals by their words, benign 0.40 of 600 such prompts."]
    assert said("rl", 0.05) == [] and said("base", 0.9) == []


def test_agreement_of_judges_by_hand() -> None:
    assert kendall([1, 2, 3], [10, 20, 30]) == 1.0 and kendall([1, 2, 3], [3, 2, 1]) == -1.0
    assert kendall([1, 2, 3], [1, 3, 2]) == pytest.approx(1 / 3) and kendall([1, 1, 2], [1, 2, 3]) == pytest.approx(
        2 / 3
    )
    found = {(each.axis, each.num_policies): each.kendall for each in agreements(ratings(), POLICIES)}
    assert found == {("harmlessness", 3): 1.0, ("helpfulness", 3): pytest.approx(-1.0)}


def test_account_counts_every_row_and_its_commonest_reasons() -> None:
    rows = [label_row(f"c{i}", "ab", 0.5) for i in range(3)]
    rows += [label_row(f"d{i}", "ab", None, status="failed", reason=f"why {i % 5}") for i in range(11)]
    found = account("labels", rows_to_table(rows, Label))
    assert found.counts == [3, 0, 0, 0, 11] and found.rows == 14
    assert found.reasons[0] == (3, "failed", "why 0")
    assert sum(count for count, _, _ in found.reasons) + found.left_out == 11


def test_pick_same_whatever_the_order_and_spread_over_groups() -> None:
    prompts = [(f"id{i}", "seen" if i % 5 else "unseen") for i in range(100)]
    shuffled = random.Random(0).sample(prompts, len(prompts))
    picked = pick(prompts, 6)
    assert picked == pick(shuffled, 6)
    assert sorted(dict(prompts)[i] for i in picked) == ["seen"] * 3 + ["unseen"] * 3


def test_clip_long_text_says_how_much_is_missing() -> None:
    assert clip("x" * MAX_CHARACTERS) == "x" * MAX_CHARACTERS
    assert clip("x" * (MAX_CHARACTERS + 7)).endswith("… (7 more characters in the store)")


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "–"), (3.21, "3.2 s"), (245.4, "4 min 05 s"), (7800, "2 h 10 min")]
)
def test_duration_any_length_reads_well(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text
