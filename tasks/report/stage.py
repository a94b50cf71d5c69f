"""The report as a stage: read a run, render the page, commit it as one row."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from tasks.constitution import read_constitution
from tasks.report.material import ANSWERS, EVALUATOR_ANSWERS, QUESTION_SETS, read_material
from tasks.report.page import render
from tasks.schema import DatasetRef, ModelRef, Row
from tasks.stage import Session, Stage
from tasks.store import Store
from tasks.store.identity import digest, rows_to_table, table_to_rows


class ReportRow(Row):
    """`report`: the page."""

    html: str
    """A whole HTML document."""


class ReportStage(Stage):
    """One page about a whole run."""

    stage: ClassVar[str] = "report"
    dataset: ClassVar[str] = "report"
    code_version: ClassVar[int] = 5
    cheap: ClassVar[bool] = True

    constitution: DatasetRef
    prompts: DatasetRef
    completions: DatasetRef
    revisions: DatasetRef
    improvements: DatasetRef | None = None
    """Whether each round made its text better; None where that was not measured."""
    comparisons: DatasetRef
    probes: dict[str, DatasetRef]
    """By evaluator: what it makes of pairs whose answer is known."""
    labels: dict[str, DatasetRef]
    """By evaluator."""
    gates: dict[str, DatasetRef]
    """`start`: what had to hold before anything was made; `labels`: before they could train anything; `leakage`: before
    anything was evaluated."""
    preferences: DatasetRef
    sl: ModelRef
    reward: ModelRef
    rl: ModelRef
    samples: dict[str, DatasetRef]
    """By policy, in the order of training; the first is the one the others are compared with."""
    judgements: DatasetRef
    matches: dict[str, DatasetRef]
    """By judge."""
    assessments: DatasetRef | None = None
    """What a judge said of completions alone; None where it was asked nothing."""
    question_sets: dict[str, DatasetRef] = Field(default_factory=dict)
    """By name; empty where none is asked."""
    answers: dict[str, dict[str, DatasetRef]] = Field(default_factory=dict)
    """By policy and question set."""
    evaluator_answers: dict[str, dict[str, DatasetRef]] = Field(default_factory=dict)
    """By model that labels and question set."""
    metrics: DatasetRef

    def extra_identity(self, store: Store) -> dict[str, Any]:
        # the page shows the whole constitution, its title too, so no slice of it and no hash of its rows will do
        shown = read_constitution(store, self.constitution).hash
        return {
            "constitution": shown,
            "policies": list(self.samples),
            "evaluators": list(self.labels),
            "judges": list(self.matches),
        }

    def make(self, session: Session) -> DatasetRef:
        derivation = self.derivation(session.store)
        html = render(read_material(session.store, self.datasets(), self.models(), self.run))
        row = ReportRow(row_id="report", reuse_key=digest(derivation.version), html=html)
        table = rows_to_table([row], ReportRow)
        return session.store.commit_rows(derivation, table, metrics={"bytes": len(html.encode())}, cost={})

    def datasets(self) -> dict[str, DatasetRef]:
        """Every dataset in the order of the method; one of several as `samples/<policy>`, `labels/<evaluator>`."""
        return {
            "constitution": self.constitution,
            "prompts": self.prompts,
            **{QUESTION_SETS + name: ref for name, ref in self.question_sets.items()},
            "completions": self.completions,
            **self.gate("start"),
            "revisions": self.revisions,
            **({"improvements": self.improvements} if self.improvements else {}),
            "comparisons": self.comparisons,
            **{f"probes/{evaluator}": ref for evaluator, ref in self.probes.items()},
            **{f"labels/{evaluator}": ref for evaluator, ref in self.labels.items()},
            **self.gate("labels"),
            "preferences": self.preferences,
            **self.gate("leakage"),
            **{f"samples/{policy}": ref for policy, ref in self.samples.items()},
            **asked(ANSWERS, self.answers),
            **asked(EVALUATOR_ANSWERS, self.evaluator_answers),
            "judgements": self.judgements,
            **{f"matches/{judge}": ref for judge, ref in self.matches.items()},
            **({"assessments": self.assessments} if self.assessments else {}),
            "metrics": self.metrics,
        }

    def gate(self, name: str) -> dict[str, DatasetRef]:
        return {f"gates/{name}": self.gates[name]} if name in self.gates else {}

    def models(self) -> dict[str, ModelRef]:
        return {"models/sl": self.sl, "models/reward": self.reward, "models/rl": self.rl}


def asked(prefix: str, answers: Mapping[str, Mapping[str, DatasetRef]]) -> dict[str, DatasetRef]:
    """Answers to question sets, each as `<prefix><who>/<set>`."""
    return {f"{prefix}{who}/{name}": ref for who, sets in answers.items() for name, ref in sets.items()}


def read_report(store: Store, ref: DatasetRef) -> str:
    """The page that `ref` names, as HTML text."""
    (row,) = table_to_rows(store.read(ref), ReportRow)
    return row.html
