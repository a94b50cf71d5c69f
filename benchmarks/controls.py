"""Does the constitution do it? Two controls beside the micro run, each with everything else left as it is.

1. A constitution about tone only must not make the model harmless.
2. With the AI labels swapped (each comparison labelled the wrong way round) RL must not either.

    .venv/bin/python -m benchmarks.controls --seed 0

Reuses what `make demo` left in the store; prints harmful compliance and benign helpfulness of each policy.
"""

import argparse
from typing import Any, ClassVar

from flows.cli import run_align
from flows.config import AlignConfig, load_config
from flows.given import FEEDBACK
from flows.server import apply_settings, prefect_server
from tasks.evaluate import EvaluateStage
from tasks.judge import JudgeStage
from tasks.preferences import PreferencesStage
from tasks.reward import RewardStage
from tasks.rl import RLStage
from tasks.sample import SampleStage
from tasks.schema import DatasetRef, Label, Metric
from tasks.serving import close_all
from tasks.stage import Session, Stage
from tasks.store import Store, resolve_external_model
from tasks.store.identity import rows_to_table, table_to_rows

MEASURES = ("harmful_compliance", "benign_helpfulness")


class SwapLabels(Stage):
    """Every label the wrong way round."""

    stage: ClassVar[str] = "swap-labels"
    dataset: ClassVar[str] = "labels"
    code_version: ClassVar[int] = 1

    labels: DatasetRef

    def make(self, session: Session) -> DatasetRef:
        rows = [swap(row) for row in table_to_rows(session.store.read(self.labels), Label)]
        return session.store.commit_rows(
            self.derivation(session.store), rows_to_table(rows, Label), metrics={}, cost={}
        )


def swap(row: Label) -> Label:
    prob = None if row.prob_a is None else 1 - row.prob_a
    return row.model_copy(update={"logprob_a": row.logprob_b, "logprob_b": row.logprob_a, "prob_a": prob})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--store", default=".solon/store")
    arguments = parser.parse_args()
    settings = [f"run.seed={arguments.seed}", f"run.store={arguments.store}"]
    config = load_config(["micro"], None, settings)
    # its gates must not hold: a judge that knows tone only is right to prefer a courteous canary
    about_tone = ["constitution=constitutions/micro-tone.yaml", "gates.on_failure=warn"]
    tone = load_config(["micro"], None, [*settings, *about_tone])
    apply_settings()
    with prefect_server():
        show("micro constitution", measured(run_align(config)))
        show("tone-only constitution", measured(run_align(tone)))
        show("labels swapped", swapped_run(config))


def measured(result: Any) -> list[Metric]:
    return table_to_rows(Store.open(result.store).read(result.metrics), Metric)


def swapped_run(config: AlignConfig) -> list[Metric]:
    """The second half of the run on swapped labels; everything before it is reused."""
    result = run_align(config)
    store = Store.open(result.store)
    refs = {(o.stage, o.dataset): store.manifest(o.dataset, o.version).ref() for o in result.stages}
    refs = {stage: ref for (stage, _), ref in refs.items()}
    run, session = config.run, Session(store)

    def made(stage: Stage) -> Any:
        return stage.result(store) or stage.make(session)

    try:
        labels = made(SwapLabels(run=run, labels=refs["label"]))
        preferences = made(
            PreferencesStage(
                run=run,
                prompts=refs["prompts"],
                comparisons=refs["compare"],
                labels={FEEDBACK: labels},
                constitution=refs["constitution"],
                config=config.preferences,
            )
        )
        reward = made(RewardStage(run=run, preferences=preferences, policy=refs["sft"], config=config.reward))
        rl = made(RLStage(run=run, prompts=refs["prompts"], policy=refs["sft"], reward=reward, config=config.rl))
        policies = {**result.policies, "rl": rl}
        samples = {
            name: made(SampleStage(run=run, prompts=refs["prompts"], policy=policy, config=config.sample))
            for name, policy in policies.items()
        }
        judgements = made(
            JudgeStage(
                run=run,
                prompts=refs["prompts"],
                samples=samples,
                constitution=refs["constitution"],
                feedback=resolve_external_model(config.models.feedback),
                config=config.judge,
            )
        )
        metrics = made(EvaluateStage(run=run, judgements=judgements, matches={}, samples=samples))
    finally:
        close_all()
    return table_to_rows(store.read(metrics), Metric)


def show(title: str, metrics: list[Metric]) -> None:
    print(f"\n{title}")
    for metric in metrics:
        if metric.group == "all" and metric.measure in MEASURES:
            interval = f"[{metric.low:.3f}, {metric.high:.3f}]"
            print(f"  {metric.policy:5s} {metric.measure:20s} {metric.value:.3f} {interval} n={metric.num_samples}")


if __name__ == "__main__":
    main()
