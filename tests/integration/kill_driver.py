"""Stages from prompts to labels in one process that a test may kill: `python kill_driver.py STORE CHUNK_ROWS`.

The micro model plays every part, the SL policy too: what is tested is the data path, not the training.
"""

import json
import sys

from constitutions import load_constitution
from tasks.collect import PromptsConfig, PromptsStage
from tasks.compare import CompareConfig, CompareStage
from tasks.constitution import ConstitutionStage
from tasks.label import LabelConfig, LabelStage
from tasks.respond import RespondConfig, RespondStage
from tasks.revise import ReviseConfig, ReviseStage
from tasks.serving import Sampling, ServingConfig, close_all
from tasks.stage import RunContext, Session, Stage
from tasks.store import Store, resolve_external_model

STAGES = ("prompts", "constitution", "respond", "revise", "compare", "label")


def run(store_uri: str, chunk_rows: int) -> dict[str, dict[str, object]]:
    store = Store.open(store_uri)
    run = RunContext(store=store_uri, chunk_rows=chunk_rows, serving=ServingConfig(engine="vllm"))
    model = resolve_external_model("tasks/micro/model")
    short = Sampling(max_tokens=48)
    made: dict[str, dict[str, object]] = {}

    def make(stage: Stage):  # type: ignore[no-untyped-def]
        ref = stage.result(store) or stage.make(Session(store))
        made[stage.stage] = {**store.manifest(ref.dataset, ref.version).cost, **ref.model_dump()}
        return ref

    try:
        document = load_constitution("constitutions/micro.yaml").model_dump(mode="json")
        constitution = make(ConstitutionStage(run=run, document=document))
        config = PromptsConfig(red_team="tasks/micro/data/red_team.jsonl", red_team_limit=64)
        prompts = make(PromptsStage(run=run, config=config))
        completions = make(
            RespondStage(run=run, prompts=prompts, helpful_only=model, config=RespondConfig(sampling=short))
        )
        make(
            ReviseStage(
                run=run,
                prompts=prompts,
                completions=completions,
                constitution=constitution,
                helpful_only=model,
                config=ReviseConfig(num_rounds=2, sampling=short),
            )
        )
        comparisons = make(CompareStage(run=run, prompts=prompts, policy=model, config=CompareConfig(sampling=short)))
        make(
            LabelStage(
                run=run,
                prompts=prompts,
                comparisons=comparisons,
                constitution=constitution,
                feedback=model,
                evaluator="feedback",
                config=LabelConfig(),
            )
        )
    finally:
        close_all()
    return made


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1], int(sys.argv[2]))))
