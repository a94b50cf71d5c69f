"""A small run of every kind of dataset, for tests of its report."""

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from constitutions import Constitution
from tasks.constitution import ConstitutionStage
from tasks.report import ReportStage
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


def label_row(comparison: str, order: Any, prob_a: float | None, principle: str = "p1", **values: Any) -> Label:
    named = {"evaluator": "feedback", "slot": "0", "principle_id": principle, "principle_hash": "h", **values}
    place = f"{comparison}/{named['evaluator']}/{named['slot']}/{order}/{named.get('sample', 0)}"
    fixed = {"row_id": place, "reuse_key": "k", "prompt_id": comparison, "comparison_id": comparison}
    return Label.model_validate(
        {**fixed, "order": order, "logprob_a": None, "logprob_b": None, "prob_a": prob_a, **named}
    )


def both_orders(comparison: str, ab: float, ba: float, principle: str = "p1", **values: Any) -> list[Label]:
    return [label_row(comparison, order, p, principle, **values) for order, p in (("ab", ab), ("ba", ba))]


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


def other_store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"), cache=tmp_path / "cache")
