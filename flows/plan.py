"""What an alignment run would do, and why, before it spends anything; the result is a table on the run's page."""

import tempfile
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_table_artifact

from flows.align import constitutional_ai
from flows.config import AlignConfig
from flows.given import constitution_of
from tasks.planning import Plan, Planner
from tasks.planning.plan import STATE_WORDS, StagePlan
from tasks.store import Store


@flow(name="plan", flow_run_name="plan seed {config.run.seed}")
def plan(config: AlignConfig) -> Plan:
    """Which stages are fresh, why the others are not, and what they will take. Makes nothing."""
    made = make_plan(config)
    rows = [table_row(stage) for stage in made.stages]
    create_table_artifact(rows, key="plan", description=summary(made))
    return made


def make_plan(config: AlignConfig) -> Plan:
    """The plan of a config, by going through the method without making what costs.

    Raises: StoreError. ConstitutionError. StageFailed: what the run itself would raise before its first stage.
    """
    with tempfile.TemporaryDirectory() as scratch:
        planner = Planner(Store.open(config.run.store), Path(scratch))
        constitutional_ai(planner, config)
        return planner.plan(config.run.store, constitution_of(config).hash)


def table_row(stage: StagePlan) -> dict[str, Any]:
    """A stage as people read it."""
    cost = stage.cost
    return {
        "stage": stage.stage,
        "version": stage.version[:8],
        "state": STATE_WORDS[stage.state],
        "why": "; ".join(stage.reasons),
        "rows": stage.rows or "",
        "to make": rows_to_make(stage),
        "tokens": cost.num_tokens if cost and cost.num_tokens else "",
        "seconds": round(cost.seconds, 1) if cost else "not measured yet" if stage.spends else "",
        "GPU hours": round(cost.gpu_hours, 3) if cost and cost.gpu_hours else "",
    }


def rows_to_make(stage: StagePlan) -> str:
    if stage.state == "fresh" or not (stage.rows or stage.rows_to_make):
        return ""
    return f"{stage.rows_to_make}" if stage.exact else f"at most {stage.rows_to_make}"


def summary(made: Plan) -> str:
    """One sentence: how much there is to do."""
    if made.is_fresh:
        return "Everything is there: a run would make nothing."
    stale = [stage.stage for stage in made.stages if stage.state != "fresh"]
    most = "" if all(stage.exact for stage in made.stages) else "at most "
    text = f"{len(stale)} of {len(made.stages)} stages to make, {most}{made.rows_to_make} rows to generate"
    if made.seconds:
        text += f", about {made.seconds:.0f} s and {made.gpu_hours:.2f} GPU hours by what earlier runs took"
    unknown = sorted(set(made.unmeasured))
    return f"{text}{'; not measured yet: ' + ', '.join(unknown) if unknown else ''}."
