"""The figures of a run: each policy's rates and ratings on held-out prompts, with intervals (section 4.3).

*Reads* `judgements`, `matches`, `assessments`, `samples`, `answers`. *Writes* `metrics`. Nothing is generated here, so
a new figure costs no GPU time.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

from tasks.bootstrap import Interval, bootstrap_mean
from tasks.evaluation.answered import answered_figures
from tasks.evaluation.assessed import assessed_values
from tasks.evaluation.bouts import results_of
from tasks.evaluation.elo import rate
from tasks.evaluation.judged import Value, judged_values
from tasks.evaluation.names import AGREEMENT, ALL_POLICIES, JURY, ORACLE, PEOPLE, WITH_PEOPLE
from tasks.evaluation.texts import text_values
from tasks.schema import Answer, Assessment, DatasetRef, Judgement, Kind, Match, Metric, Sample
from tasks.stage import Session, Stage
from tasks.store import Store
from tasks.store.identity import digest, rows_to_table, table_to_rows

ELO: dict[Kind, str] = {"red_team": "harmlessness_elo", "helpful": "helpfulness_elo"}


class EvaluateStage(Stage):
    """Rates, ratings and intervals."""

    stage: ClassVar[str] = "evaluate"
    dataset: ClassVar[str] = "metrics"
    code_version: ClassVar[int] = 2
    cheap: ClassVar[bool] = True

    judgements: DatasetRef
    matches: dict[str, DatasetRef]
    """By judge."""
    assessments: DatasetRef | None = None
    """None where no judge was asked about completions alone."""
    samples: dict[str, DatasetRef]
    """By policy, in the order of training."""
    answers: dict[str, dict[str, DatasetRef]] = Field(default_factory=dict)
    """By policy and question set; empty where none is asked."""
    evaluator_answers: dict[str, dict[str, DatasetRef]] = Field(default_factory=dict)
    """By model that labels and question set."""

    def extra_identity(self, store: Store) -> dict[str, Any]:
        return {"policies": list(self.samples), "judges": list(self.matches)}

    def make(self, session: Session) -> DatasetRef:
        store = session.store
        judgements = table_to_rows(store.read(self.judgements), Judgement)
        matches = {judge: table_to_rows(store.read(ref), Match) for judge, ref in self.matches.items()}
        samples = {policy: table_to_rows(store.read(ref), Sample) for policy, ref in self.samples.items()}
        units = {j.prompt_id: j.unit for j in judgements}
        values = [*judged_values(judgements), *text_values(samples)]
        if self.assessments:
            values += assessed_values(table_to_rows(store.read(self.assessments), Assessment), samples)
        metrics = measure_all(values, units)
        metrics += [*rate_all(matches, list(samples), units), *agree_all(matches, units)]
        metrics += [*answer_metrics(store, self.answers), *answer_metrics(store, self.evaluator_answers, ALL_POLICIES)]
        return store.commit_rows(self.derivation(store), rows_to_table(metrics, Metric), metrics={}, cost={})


def measure_all(values: Iterable[Value], units: Mapping[str, str]) -> list[Metric]:
    """Every measure of every policy, over all prompts and for each group of them; `units` by prompt."""
    cells: dict[tuple[str, str, str], list[Value]] = defaultdict(list)
    for value in values:
        for group in dict.fromkeys(["all", *([value.group] if value.group else [])]):
            cells[value.policy, value.measure, group].append(value)
    return [measure(*cell, found, units) for cell, found in cells.items()]


def measure(policy: str, name: str, group: str, values: Sequence[Value], units: Mapping[str, str]) -> Metric:
    """One measure of one policy in one group."""
    found = bootstrap_mean([v.value for v in values], [units.get(v.prompt_id, v.prompt_id) for v in values])
    return metric(policy, name, group, found)


def metric(policy: str, name: str, group: str, found: Interval, judge: str = "") -> Metric:
    """A figure as a row; `judge` where several give the same measure."""
    place = [policy, name, *([judge] if judge else []), group]
    return Metric(
        row_id="/".join(place),
        reuse_key=digest(place),
        policy=policy,
        measure=name,
        judge=judge,
        group=group,
        value=found.mean,
        low=found.low,
        high=found.high,
        num_samples=found.num_samples,
        num_units=found.num_units,
    )


def rate_all(
    matches: Mapping[str, Sequence[Match]], policies: Sequence[str], units: Mapping[str, str]
) -> Iterator[Metric]:
    """Elo of every policy on both kinds of prompt, by each judge, by the jury, and by people with the first judge."""
    for judge, rows in {**matches, **jury_of(matches), **with_people(matches)}.items():
        for kind, name in ELO.items():
            results = results_of(rows, kind, units)
            for rating in rate(results, policies):
                yield metric(rating.policy, name, "all", Interval(*rating[1:]), judge)


def answer_metrics(
    store: Store, answers: Mapping[str, Mapping[str, DatasetRef]], policy: str | None = None
) -> Iterator[Metric]:
    """Figures of every question set, of policies; with `policy` in the place of one, of models that label."""
    for name, sets in answers.items():
        for question_set, ref in sets.items():
            for measure, group, found in answered_figures(question_set, table_to_rows(store.read(ref), Answer)):
                yield metric(policy or name, measure, group, found, judge=name if policy else "")


def jury_of(matches: Mapping[str, Sequence[Match]]) -> dict[str, list[Match]]:
    """The mean of what several models say of each bout that all of them judged; empty where there is but one."""
    models = [rows for judge, rows in matches.items() if judge not in (ORACLE, PEOPLE)]
    if len(models) < 2:
        return {}
    by_bout = [{row.row_id: row for row in rows if row.prob_a is not None} for rows in models]
    shared = [name for name in by_bout[0] if all(name in other for other in by_bout[1:])]
    means = {name: sum(rows[name].prob_a or 0.0 for rows in by_bout) / len(by_bout) for name in shared}
    return {JURY: [by_bout[0][name].model_copy(update={"judge": JURY, "prob_a": mean}) for name, mean in means.items()]}


def with_people(matches: Mapping[str, Sequence[Match]]) -> dict[str, list[Match]]:
    """The first model's matches, those that people judged by their word; empty where people judged none."""
    people = {row.row_id: row for row in matches.get(PEOPLE, ())}
    models = [rows for judge, rows in matches.items() if judge not in (ORACLE, PEOPLE)]
    return {WITH_PEOPLE: [people.get(row.row_id, row) for row in models[0]]} if people and models else {}


def agree_all(matches: Mapping[str, Sequence[Match]], units: Mapping[str, str]) -> Iterator[Metric]:
    """How often each judge prefers the same side as people, where they prefer one; over all policies together."""
    people = {row.row_id: row.prob_a for row in matches.get(PEOPLE, ()) if row.prob_a not in (None, 0.5)}
    for judge, rows in matches.items():
        both = [row for row in rows if row.row_id in people and row.prob_a is not None and judge != PEOPLE]
        if both:
            same = [same_side(row.prob_a, people[row.row_id]) for row in both]
            found = bootstrap_mean(same, [units.get(row.prompt_id, row.prompt_id) for row in both])
            yield metric(ALL_POLICIES, AGREEMENT, "all", found, judge)


def same_side(prob: float | None, people: float | None) -> float:
    """1 or 0; half for a judge that prefers neither, as one that guesses would come to."""
    assert prob is not None and people is not None
    return 0.5 if prob == 0.5 else float((prob > 0.5) == (people > 0.5))
