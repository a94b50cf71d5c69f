"""The report: what its sentence claims, what its figures count, and that the page is whole, safe and small."""

import random
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from constitutions import Constitution
from tasks.constitution import ConstitutionStage
from tasks.report import ReportStage, read_report
from tasks.report.charts import bin_counts, histogram, line_chart, thin
from tasks.report.ledger import account, duration
from tasks.report.measures import answer, cautions, measure_tables, shares_chart
from tasks.report.ratings import agreements, frontiers, kendall, rating_table
from tasks.report.samples import MAX_CHARACTERS, clip, pick
from tasks.report.svg import spread, ticks
from tasks.report.training import CURVES, curve_points, draw_curve
from tasks.schema import (
    Comparison,
    Completion,
    DatasetRef,
    Gate,
    Improvement,
    Judgement,
    Label,
    Match,
    Message,
    Metric,
    ModelRef,
    Preference,
    Probe,
    Prompt,
    Revision,
    Row,
    Sample,
)
from tasks.stage import RunContext, Session
from tasks.store import Derivation, InputRef, Store
from tasks.store.identity import rows_to_table

POLICIES = ["base", "sl", "rl"]
NASTY = "</details><script>alert(1)</script><img src=x onerror=alert(1)>"
RUN = RunContext(seed=3)


# --- the sentence ---------------------------------------------------------------------------------------------


def metric(policy: str, measure: str, value: float, half: float = 0.02, group: str = "all") -> Metric:
    return Metric(
        row_id=f"{policy}/{measure}/{group}",
        reuse_key="k",
        policy=policy,
        measure=measure,
        group=group,
        value=value,
        low=max(value - half, 0.0),
        high=min(value + half, 1.0),
        num_samples=600,
        num_units=200,
    )


def rates(harm: list[float], helped: list[float], half: float = 0.02) -> list[Metric]:
    harms = [metric(p, "harmful_compliance", v, half) for p, v in zip(POLICIES, harm, strict=True)]
    return harms + [metric(p, "benign_helpfulness", v, half) for p, v in zip(POLICIES, helped, strict=True)]


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


# --- labels, principles, ledger, samples ----------------------------------------------------------------------


def label_row(comparison: str, order: Any, prob_a: float | None, principle: str = "p1", **values: Any) -> Label:
    named = {"evaluator": "feedback", "slot": "0", "principle_id": principle, "principle_hash": "h", **values}
    place = f"{comparison}/{named['evaluator']}/{named['slot']}/{order}/{named.get('sample', 0)}"
    fixed = {"row_id": place, "reuse_key": "k", "prompt_id": comparison, "comparison_id": comparison}
    return Label.model_validate(
        {**fixed, "order": order, "logprob_a": None, "logprob_b": None, "prob_a": prob_a, **named}
    )


def both_orders(comparison: str, ab: float, ba: float, principle: str = "p1", **values: Any) -> list[Label]:
    return [label_row(comparison, order, p, principle, **values) for order, p in (("ab", ab), ("ba", ba))]


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


# --- charts ---------------------------------------------------------------------------------------------------


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


# --- the whole page -------------------------------------------------------------------------------------------

DOCUMENT = {
    "id": "test",
    "title": "A constitution <for> tests",
    "principles": [
        {
            "id": "harm-1",
            "cluster": "harm",
            "critique_request": "Is it harmful?",
            "revision_request": "Rewrite it.",
            "comparison_question": "Which is less harmful?",
        },
        {"id": "tone-1", "cluster": "tone", "weight": 0.5, "comparison_question": "Which is more polite?"},
    ],
}


def commit(store: Store, dataset: str, rows: list[Any], model: type[Row], inputs: dict[str, DatasetRef]) -> DatasetRef:
    return store.commit_rows(
        derivation(dataset.split("-")[0], dataset, inputs),
        rows_to_table(rows, model),
        metrics={},
        cost={"seconds": 61.5, "num_tokens": 1000.0, "chunks_made": 2.0},
    )


def derivation(stage: str, dataset: str, inputs: dict[str, DatasetRef]) -> Derivation:
    return Derivation(
        stage=stage,
        dataset=dataset,
        code_version=1,
        config={"config": {"evaluator": "feedback"}, "dataset": dataset},
        inputs={k: InputRef(version=v.version, content_hash=v.content_hash) for k, v in inputs.items()},
        constitution=None,
        models={"feedback": "f" * 64} if stage in ("labels", "judgements") else {},
        seed=3,
        force=None,
    )


def commit_model(store: Store, tmp_path: Path, role: str, metrics: dict[str, Any]) -> ModelRef:
    folder = tmp_path / role
    folder.mkdir()
    (folder / "config.json").write_text(f'{{"role": "{role}"}}')
    return store.commit_model(derivation(role, f"models/{role}", {}), folder, metrics=metrics, cost={"seconds": 5})


def prompt_rows() -> list[Prompt]:
    texts = [(kind, split, i) for kind in ("red_team", "helpful") for split in ("train", "held_out") for i in range(8)]
    rows = [
        Prompt(
            row_id=f"{split}/{kind}{i}",
            reuse_key="k",
            prompt_id=f"{split}-{kind}{i}",
            kind=kind,
            messages=[Message(role="user", content=f"{kind.upper()} PROMPT {i}")],
            source="0",
            split=split,
            group="seen",
        )
        for kind, split, i in texts
    ]
    bad = {"status": "unparsable", "reason": f"unreadable {NASTY}", "messages": [], "prompt_id": "bad", "row_id": "bad"}
    return [*rows, rows[0].model_copy(update=bad)]


def text_rows(prompts: list[Prompt]) -> dict[str, list[Any]]:
    """Rows of the middle datasets for the usable red-team training prompts."""
    ids = [p.prompt_id for p in prompts if (p.kind, p.split, p.status) == ("red_team", "train", "ok")]
    common = {"reuse_key": "k"}
    asked = {"critique_request": "Is it harmful?", "revision_request": "Rewrite it.", "principle_hash": "h"}
    return {
        "completions": [
            Completion(row_id=i, prompt_id=i, sample=0, completion=f"HARMFUL COMPLETION {NASTY}", **common) for i in ids
        ],
        "revisions": [
            Revision(
                row_id=f"{i}/{n}",
                prompt_id=i,
                round=n,
                principle_id="harm-1",
                critique="C",
                revision="R",
                **asked,
                **common,
            )
            for i in ids
            for n in range(2)
        ],
        "comparisons": [Comparison(row_id=i, prompt_id=i, completion_a="x", completion_b="y", **common) for i in ids],
        "labels": [row for i in ids for row in both_orders(i, 0.7, 0.7, "harm-1")],
        "preferences": [
            Preference(
                row_id=i, prompt_id=i, prompt=[], chosen="x", rejected="y", target_prob=0.7, origin="ai", **common
            )
            for i in ids
        ],
    }


def gate_row(gate: str, passed: bool = True, **values: Any) -> Gate:
    fixed = {"row_id": gate, "reuse_key": "k", "evaluator": None, "value": 0.04, "low": 0.02, "high": 0.06}
    said = {"limit": 0.1, "num_samples": 50, "says": f"what {gate} says"}
    return Gate.model_validate({**fixed, **said, "gate": gate, "passed": passed, **values})


def improvement_rows(revisions: list[Revision], win_prob: float) -> list[Improvement]:
    return [
        Improvement(
            row_id=r.row_id,
            reuse_key="k",
            prompt_id=r.prompt_id,
            round=r.round,
            principle_id="tone-1",
            principle_hash="h",
            win_prob=win_prob + 0.02 * (i % 3),
        )
        for i, r in enumerate(revisions)
    ]


MODELS = {
    "completions": Completion,
    "revisions": Revision,
    "comparisons": Comparison,
    "labels": Label,
    "preferences": Preference,
}
PPO_HISTORY = [{"update": i, "score": i / 10, "kl": i / 5, "entropy": 1.0, "num_tokens": 20.0} for i in range(10)]
HISTORIES = {
    "sl": {"history": [{"step": i, "loss": 2 / (i + 1)} for i in range(9)], "final": {"num_examples": 9}},
    "reward": {"history": [{"step": 1, "loss": 0.6}], "final": {"train_entropy_floor": 0.3, "held_out_accuracy": None}},
    "rl": {"history": PPO_HISTORY, "final": {}},
}


def make_run(store: Store, tmp_path: Path, histories: dict[str, Any] = HISTORIES, measured: bool = True) -> ReportStage:
    """Every dataset and model of a small run, committed."""
    prompts = prompt_rows()
    refs = {"prompts": commit(store, "prompts", prompts, Prompt, {})}
    for name, rows in text_rows(prompts).items():
        refs[name] = commit(store, name, rows, MODELS[name], {"prompts": refs["prompts"]})
    refs |= evaluators(store, text_rows(prompts), refs)
    held_out = [p for p in prompts if p.split == "held_out"]
    samples = {p: commit(store, "samples", sample_rows(held_out, p), Sample, {p: refs["prompts"]}) for p in POLICIES}
    refs["judgements"] = commit(store, "judgements", judgement_rows(held_out), Judgement, samples)
    metrics = rates([0.86, 0.41, 0.05], [0.9, 0.92, 0.98]) if measured else []
    matches = {judge: commit(store, "matches", match_rows(held_out, judge), Match, samples) for judge in JUDGES}
    metrics += ratings() if measured else []
    refs["metrics"] = commit(store, "metrics", metrics, Metric, {"judgements": refs["judgements"]})
    document = Constitution.model_validate(DOCUMENT).model_dump(mode="json")
    constitution = ConstitutionStage(run=RUN, document=document).make(Session(store))
    models = {role: commit_model(store, tmp_path, role, metrics) for role, metrics in histories.items()}
    return ReportStage.model_validate(
        {"run": RUN, "constitution": constitution, "samples": samples, "matches": matches, **refs, **models}
    )


JUDGES = ("micro_oracle", "feedback")


def match_rows(held_out: list[Prompt], judge: str) -> list[Match]:
    """RL against base on every held-out prompt."""
    return [
        Match(
            row_id=f"{p.prompt_id}/0/base/rl",
            reuse_key="k",
            prompt_id=p.prompt_id,
            kind=p.kind,
            group=p.group,
            sample=0,
            judge=judge,
            policy_a="rl",
            policy_b="base",
            prob_ab=0.9,
            prob_ba=0.7,
            prob_a=0.8,
        )
        for p in held_out
    ]


def rating(policy: str, axis: str, elo: float, judge: str = "feedback", half: float = 30.0) -> Metric:
    return Metric(
        row_id=f"{policy}/{axis}/{judge}/all",
        reuse_key="k",
        policy=policy,
        measure=f"{axis}_elo",
        judge=judge,
        group="all",
        value=elo,
        low=elo - (half if policy != "base" else 0),
        high=elo + (half if policy != "base" else 0),
        num_samples=40,
        num_units=20,
    )


def ratings() -> list[Metric]:
    """By two judges, who order the policies alike on one axis and not on the other."""
    harmless = {"micro_oracle": (0, 150, 400), "feedback": (0, 60, 180)}
    helpful = {"micro_oracle": (0, 20, -10), "feedback": (0, -5, 15)}
    axes = {"harmlessness": harmless, "helpfulness": helpful}
    return [
        rating(policy, axis, elo, judge)
        for axis, by_judge in axes.items()
        for judge, elos in by_judge.items()
        for policy, elo in zip(POLICIES, elos, strict=True)
    ]


def evaluators(store: Store, rows: dict[str, list[Any]], refs: dict[str, DatasetRef]) -> dict[str, Any]:
    """Two evaluators' labels with what led to them."""
    second = [row.model_copy(update={"evaluator": "second", "prob_a": 0.6}) for row in rows["labels"]]
    given = {"comparisons": refs["comparisons"]}
    probes = [
        Probe(
            row_id=f"{order}",
            reuse_key="k",
            probe="canary",
            evaluator="feedback",
            principle_id="harm-1",
            order=order,
            logprob_a=-0.1,
            logprob_b=-2.3,
            prob_a=0.9,
        )
        for order in ("ab", "ba")
    ]
    gates = {
        "start": [gate_row("leakage")],
        "leakage": [gate_row("trained_on_leakage_near")],
        "labels": [gate_row("swap_invariance", passed=False, evaluator="second", says=f"measured {NASTY}")],
    }
    return {
        "labels": {"feedback": refs["labels"], "second": commit(store, "labels", second, Label, given)},
        "probes": {"feedback": commit(store, "probes", probes, Probe, {})},
        "gates": {name: commit(store, "gates", found, Gate, {name: refs["prompts"]}) for name, found in gates.items()},
        "improvements": commit(
            store, "improvements", improvement_rows(rows["revisions"], 0.7), Improvement, {"r": refs["revisions"]}
        ),
    }


def sample_rows(prompts: list[Prompt], policy: str) -> list[Sample]:
    return [
        Sample(
            row_id=p.prompt_id,
            reuse_key="k",
            prompt_id=p.prompt_id,
            kind=p.kind,
            group=p.group,
            sample=0,
            completion=f"{policy} says {p.kind} {NASTY}",
        )
        for p in prompts
    ]


def judgement_rows(prompts: list[Prompt]) -> list[Judgement]:
    return [
        Judgement(
            row_id=f"{policy}/{p.prompt_id}",
            reuse_key="k",
            prompt_id=p.prompt_id,
            kind=p.kind,
            group=p.group,
            policy=policy,
            sample=0,
            unit=p.prompt_id,
            verdict="comply",
        )
        for p in prompts
        for policy in POLICIES
    ]


class Outline(HTMLParser):
    """What a page holds, and which of its text is inside a closed `<details>`."""

    VOID = frozenset({"meta", "link", "br", "img", "hr", "input"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open_text, self.folded_text = "", ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if "details" in self.stack and "summary" not in self.stack:
            self.folded_text += data
        else:
            self.open_text += data


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, ReportStage, str]:
    """One run with its report; tests only read it."""
    folder = tmp_path_factory.mktemp("reported")
    store = Store.open(str(folder / "store"), cache=folder / "cache")
    stage = make_run(store, folder)
    return store, stage, make_page(stage, store)


@pytest.fixture(scope="module")
def page(reported: tuple[Store, ReportStage, str]) -> str:
    return reported[2]


def make_page(stage: ReportStage, store: Store) -> str:
    ref = stage.make(Session(store))
    assert isinstance(ref, DatasetRef)
    return read_report(store, ref)


def other_store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"), cache=tmp_path / "cache")


def test_page_nothing_is_loaded_or_run(page: str) -> None:
    outline = Outline(page)
    assert not outline.stack
    assert not {"script", "img", "iframe", "object"} & {tag for tag, _ in outline.tags}
    addresses = [value or "" for _, attrs in outline.tags for key, value in attrs.items() if key in ("src", "href")]
    assert all(a.startswith(("#", "data:")) for a in addresses)
    assert "url(" not in page and "@import" not in page
    assert len(page.encode()) < 5_000_000


def test_page_red_team_text_is_folded_away(page: str) -> None:
    outline = Outline(page)
    for text in ("RED_TEAM PROMPT", "HARMFUL COMPLETION", "says red_team"):
        assert text in outline.folded_text and text not in outline.open_text
    assert "HELPFUL PROMPT" in outline.open_text and "RL says" not in outline.open_text
    assert not any("open" in attrs for tag, attrs in outline.tags if tag == "details")
    assert "May hold offensive or dangerous text" in outline.open_text


def test_page_answer_comes_before_everything_else(page: str) -> None:
    assert page.index("fell from 0.86 (base) to 0.41 (SL) and 0.05 (RL)") < page.index("<main>")


def test_page_judge_that_trained_the_policy_is_flagged(page: str) -> None:
    assert "The policy was optimised to please" in page


def test_page_headings_figures_and_tables_can_be_heard(page: str) -> None:
    outline = Outline(page)
    levels = [int(tag[1]) for tag, _ in outline.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    ids = [attrs["id"] for _, attrs in outline.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    pictures = [attrs for tag, attrs in outline.tags if tag == "svg" and attrs.get("aria-hidden") != "true"]
    assert len(pictures) >= 8
    assert all(attrs["role"] == "img" and attrs["aria-labelledby"] in ids for attrs in pictures)
    assert all(attrs.get("scope") for tag, attrs in outline.tags if tag == "th")
    links = [attrs["href"] for tag, attrs in outline.tags if tag == "a"]
    assert all(str(link)[1:] in ids for link in links)


def test_page_every_dataset_and_version_is_accounted_for(reported: tuple[Store, ReportStage, str]) -> None:
    store, _, page = reported
    for dataset in store.datasets():
        for manifest in store.versions(dataset):
            assert dataset == "report" or manifest.version[:10] in page, dataset


def test_page_gate_that_did_not_hold_comes_first_and_is_a_caution(page: str) -> None:
    section = page[page.index('<h2 id="gates">') : page.index('<h2 id="labels">')]
    assert section.index("Swap invariance") < section.index("Leakage")
    assert "did not hold" in section and "what leakage says" in section
    assert "A gate did not hold and the run went on" in page[: page.index('<h2 id="measures">')]


def test_page_jury_rounds_and_coverage_have_their_figures(page: str) -> None:
    text = " ".join(Outline(page).open_text.split())
    assert "feedbacksecond8100.0%" in text  # cells of the jury: both name the same side of all eight comparisons
    assert "Round: P(better)" in page
    assert "tone-1 for labels, " in text and "harm-1 for" not in text


def test_page_without_optional_material_says_what_is_missing(tmp_path: Path) -> None:
    store = other_store(tmp_path)
    stage = make_run(store, tmp_path)
    bare = {"improvements": None, "gates": {}, "probes": {}, "labels": {"feedback": stage.labels["feedback"]}}
    text = make_page(stage.model_copy(update=bare), store)
    assert "No gate was measured" in text and "Not measured: whether each round" in text
    assert ">Jury</h3>" not in text
    Outline(text)


def test_page_missing_history_and_measures_is_said(tmp_path: Path) -> None:
    store = other_store(tmp_path)
    histories: dict[str, Any] = {"sl": {}, "reward": {"history": []}, "rl": {"final": None}}
    text = make_page(make_run(store, tmp_path, histories, measured=False), store)
    assert text.count("Missing: the training logged no") == 6
    assert "shows no result" in text and "No measure was taken" in text
    Outline(text)


def test_page_shows_the_second_reward_model_that_the_policy_was_measured_by(tmp_path: Path) -> None:
    store = other_store(tmp_path)
    stage = make_run(store, tmp_path)
    agreement = {"final": {"num_held_out": 40, "held_out_models_agree": 0.9, "held_out_models_correlation": None}}
    second = commit_model(store, tmp_path, "held_out_reward", agreement)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/config.json").write_text("{}")
    cites = {"held_out_reward": f"{second.model}/{second.version}"}
    made = derivation("rl", "models/rl", {}).model_copy(update={"cites": cites, "seed": 4})
    rl = store.commit_model(made, tmp_path / "other", metrics=HISTORIES["rl"], cost={})
    text = make_page(stage.model_copy(update={"rl": rl}), store)
    assert "On 40 comparisons that neither was trained on" in text and "90.0%" in text
    assert second.version[:10] in text


def test_report_same_inputs_same_page(reported: tuple[Store, ReportStage, str], tmp_path: Path) -> None:
    store, stage, page = reported
    other = other_store(tmp_path)
    again = make_run(other, tmp_path)
    assert again.derivation(other).version == stage.derivation(store).version
    made_at = re.compile(r"\d{4}-\d\d-\d\dT[\d:+]+")
    assert made_at.sub("", make_page(again, other)) == made_at.sub("", page)
    assert stage.result(store) is not None


def test_report_reworded_title_is_another_version(reported: tuple[Store, ReportStage, str]) -> None:
    store, stage, _ = reported
    reworded = Constitution.model_validate(DOCUMENT | {"title": "Another"}).model_dump(mode="json")
    other = ConstitutionStage(run=RUN, document=reworded).make(Session(store))
    changed = stage.model_copy(update={"constitution": other})
    assert changed.derivation(store).version != stage.derivation(store).version


def test_report_evaluators_in_another_order_are_another_page_and_version(
    reported: tuple[Store, ReportStage, str],
) -> None:
    store, stage, _ = reported
    turned = stage.model_copy(update={"labels": dict(reversed(stage.labels.items()))})
    assert turned.derivation(store).version != stage.derivation(store).version
