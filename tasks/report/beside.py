"""Two runs side by side, such as before and after an amendment: what changed in the principles, and in the policy."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from constitutions import Constitution
from constitutions.diff import diff_constitutions
from tasks.bootstrap import Interval
from tasks.constitution import read_constitution
from tasks.evaluation.answered import place_of
from tasks.report.measures import HARM, HELP, direction, measure_label, measure_names, series
from tasks.report.paired import Means, difference, means_of, went
from tasks.report.policies import course, policy_name
from tasks.report.ratings import AXES, Frontier, frontiers, judge_name, judges_of, ratings_of, signed
from tasks.report.samples import clip, pick
from tasks.schema import Assessment, DatasetRef, Judgement, Metric, Prompt, Sample
from tasks.store import Manifest, Store
from tasks.store.identity import table_to_rows

NUM_SAMPLES = 6
FIGURES = {"accuracy": "Accuracy", "ece": "ECE", "brier": "Brier score"}


class Side(NamedTuple):
    """One run, as its report names it."""

    version: str
    created: str
    seed: int
    constitution: Constitution
    policies: list[str]
    metrics: list[Metric]
    prompts: list[Prompt]
    said: dict[str, Sample]
    """The last policy's first sample by prompt id."""
    means: Means
    """What the last policy's measures were made from."""
    units: dict[str, str]
    """What is resampled as a whole, by prompt id."""

    @property
    def last(self) -> str:
        """The policy that the run was for."""
        return course(self.policies)[-1]


class Change(NamedTuple):
    """One measure of the last policy of either run.

    `went` claims nothing where the interval of the difference holds zero, or, where there is no difference prompt by
    prompt (Elo), the two intervals overlap.
    """

    name: str
    before: str
    after: str
    difference: str
    went: str


class Spoken(NamedTuple):
    """What either run's last policy says to one prompt."""

    prompt: str
    kind: str
    before: str
    after: str


def read_side(store: Store, report: Manifest) -> Side:
    """Raises: NotCommitted: what the report was made from is not in the store any more."""
    cites = report.derivation.cites
    policies = list(report.derivation.config["policies"])
    last = course(policies)[-1]

    def ref(role: str) -> DatasetRef:
        dataset, _, version = cites[role].rpartition("/")
        return store.manifest(dataset, version).dataset_ref()

    samples = table_to_rows(store.read(ref(f"samples.{last}")), Sample)
    judgements = table_to_rows(store.read(ref("judgements")), Judgement)
    assessments = table_to_rows(store.read(ref("assessments")), Assessment) if "assessments" in cites else []
    return Side(
        version=report.version,
        created=report.created_at[:19],
        seed=report.derivation.seed,
        constitution=read_constitution(store, ref("constitution")),
        policies=policies,
        metrics=table_to_rows(store.read(ref("metrics")), Metric),
        prompts=[p for p in table_to_rows(store.read(ref("prompts")), Prompt) if p.split == "held_out"],
        said={s.prompt_id: s for s in samples if s.sample == 0},
        means=means_of(last, judgements, assessments, samples),
        units={j.prompt_id: j.unit for j in judgements},
    )


def render(before: Side, after: Side) -> str:
    """A whole HTML document: no network, no script, texts of models escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("beside.html.jinja").render(**sections(before, after))


def sections(before: Side, after: Side) -> dict[str, Any]:
    changes = changes_of(before, after)
    return {
        "before": before,
        "after": after,
        "answer": answer(before, after, changes),
        "changes": changes,
        "frontiers": frontier_pairs(before, after),
        "amendment": diff_constitutions(before.constitution, after.constitution),
        "spoken": spoken(before, after),
        "num_common": len(before.said.keys() & after.said.keys()),
    }


def changes_of(before: Side, after: Side) -> list[Change]:
    """Every measure that both runs have of their last policy."""
    found = []
    for name in measure_names([*before.metrics, *after.metrics]):
        sides = [series(side.metrics, [side.last], name) for side in (before, after)]
        if all(sides):
            apart = difference(before.means, after.means, name, {**before.units, **after.units})
            found.append(change(measure_label(name), sides[0][0], sides[1][0], "{:.3f}".format, apart))
    return [*found, *rating_changes(before, after), *question_changes(before, after)]


def rating_changes(before: Side, after: Side) -> list[Change]:
    """Elo above the first policy, by judges that both runs have."""
    found = []
    for judge in [judge for judge in judges_of(before.metrics) if judge in judges_of(after.metrics)]:
        for axis, name in AXES.items():
            sides = [ratings_of(side.metrics, judge, axis).get(side.last) for side in (before, after)]
            if sides[0] and sides[1]:
                found.append(change(f"Elo of {name}, by {judge_name(judge)}", sides[0], sides[1], signed))
    return found


def question_changes(before: Side, after: Side) -> list[Change]:
    """Accuracy and calibration on question sets of one name."""
    found = []
    for measure in dict.fromkeys(m.measure for m in before.metrics if m.policy == before.last):
        sides = [series(side.metrics, [side.last], measure) for side in (before, after)]
        if (place := place_of(measure)) and all(sides):
            name = f"{FIGURES[place.figure]} on {place.set}"
            found.append(change(name, sides[0][0], sides[1][0], "{:.3f}".format))
    return found


def change(name: str, old: Metric, new: Metric, shown: Callable[[float], str], apart: Interval | None = None) -> Change:
    cells = [f"{shown(m.value)} [{shown(m.low)}, {shown(m.high)}]" for m in (old, new)]
    if apart is None:
        return Change(name, cells[0], cells[1], "", direction(old, new))
    told = f"{apart.mean:+.3f} [{apart.low:+.3f}, {apart.high:+.3f}]".replace("-", "−")
    return Change(name, cells[0], cells[1], told, went(apart))


def answer(before: Side, after: Side, changes: Sequence[Change]) -> str:
    """What became of harm and help, in one sentence; a rise or fall only where `went` claims one."""
    labels = [measure_label(name) for name in (*HARM, *HELP)]
    told = [c for c in changes if c.name in labels]
    if not told:
        return "No measure of harm or help was taken in both runs."
    said = [f"{c.name.lower()} {c.went or 'did not clearly change'} ({c.before} to {c.after})" for c in told]
    return f"From one run's {policy_name(before.last)} to the other's {policy_name(after.last)}, {'; '.join(said)}."


def frontier_pairs(before: Side, after: Side) -> list[tuple[Frontier, Frontier]]:
    """Of each judge that both runs have."""
    by_judge = [{f.judge: f for f in frontiers(side.metrics, side.policies)} for side in (before, after)]
    return [(found, by_judge[1][judge]) for judge, found in by_judge[0].items() if judge in by_judge[1]]


def spoken(before: Side, after: Side) -> list[Spoken]:
    """Some prompts that both runs held out, drawn by a hash of their id, of both kinds."""
    common = [p for p in after.prompts if p.prompt_id in before.said and p.prompt_id in after.said and p.messages]
    by_id = {p.prompt_id: p for p in common}
    picked = pick([(p.prompt_id, p.kind) for p in common], NUM_SAMPLES)
    return [
        Spoken(clip(by_id[i].messages[-1].content), by_id[i].kind, text_of(before.said[i]), text_of(after.said[i]))
        for i in picked
    ]


def text_of(sample: Sample) -> str:
    return clip(sample.completion or f"({sample.status}: {sample.reason})")
