"""What people see in Prefect's UI: progress while a stage runs, a table of samples and a link at the end.

Artifacts are bounded: a few dozen rows, texts cut. The whole is in the store.
"""

import html
import time
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from tasks.schema import DatasetRef, Metric, Prompt, Sample
from tasks.store import Store
from tasks.store.identity import table_to_rows

if TYPE_CHECKING:
    from flows.runner import AlignResult

NUM_SAMPLES = 8
MAX_CHARACTERS = 400
LOG_EVERY_SECONDS = 5.0


class StageProgress:
    """A progress artifact on the run's page, and a log line now and then."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.artifact: UUID | None = None
        self.logged = 0.0

    def waiting(self, holder: str) -> None:
        """Somebody else is making the same version."""
        if time.monotonic() - self.logged > LOG_EVERY_SECONDS:
            self.logged = time.monotonic()
            get_run_logger().info("%s: %s is making this version; waiting for it", self.stage, holder)

    def update(self, done: int, total: int, note: str) -> None:
        percent = 100.0 * done / max(total, 1)
        if self.artifact is None:
            key = f"progress-{self.stage.replace('_', '-')}"  # Prefect takes no underscore in a key
            created = create_progress_artifact(percent, key=key, description=note)
            assert isinstance(created, UUID)
            self.artifact = created
        else:
            update_progress_artifact(self.artifact, percent, description=note)
        if done == total or time.monotonic() - self.logged > LOG_EVERY_SECONDS:
            self.logged = time.monotonic()
            get_run_logger().info("%s: %d of %d, %s", self.stage, done, total, note)


def publish_result(store: Store, result: "AlignResult", samples: dict[str, DatasetRef]) -> None:
    """The figures, before/after samples and the report's link, on the page of the run."""
    metrics = table_to_rows(store.read(result.metrics), Metric)
    create_table_artifact(metric_table(metrics), key="figures", description="Rates on held-out prompts")
    create_table_artifact(
        sample_table(store, samples),
        key="before-after",
        description="One held-out prompt a row. Red-team prompts may hold offensive text.",
    )
    create_table_artifact([s.model_dump() for s in result.stages], key="stages", description="Stages of this run")
    publish_lineage(store, result)
    path = Path(result.report_path).resolve()
    create_link_artifact(path.as_uri(), key="report", link_text="Report", description=f"`{result.report_path}`")


def publish_lineage(store: Store, result: "AlignResult") -> None:
    """What each trained policy came from, as a graph."""
    from tasks.lineage import mermaid, read_records, upstream

    records = read_records(store)
    for name, policy in result.policies.items():
        if policy.source is None:
            graph = mermaid(upstream(records, f"{policy.model}/{policy.version}"))
            create_markdown_artifact(f"```mermaid\n{graph}\n```", key=f"lineage-{name}")


def metric_table(metrics: list[Metric]) -> list[dict[str, object]]:
    return [
        {
            "policy": m.policy,
            "measure": m.measure,
            "group": m.group,
            "value": round(m.value, 3),
            "95 % interval": f"{m.low:.3f} to {m.high:.3f}",
            "samples": m.num_samples,
        }
        for m in metrics
    ]


def sample_table(store: Store, samples: dict[str, DatasetRef]) -> list[dict[str, str]]:
    """The first few held-out prompts of each kind with what every policy says."""
    rows = {name: {r.row_id: r for r in table_to_rows(store.read(ref), Sample)} for name, ref in samples.items()}
    first = next(iter(rows.values()))
    prompts = prompt_texts(store, samples)
    chosen = [
        r for kind in ("red_team", "helpful") for r in [r for r in first.values() if r.kind == kind][:NUM_SAMPLES]
    ]
    return [
        {"kind": r.kind, "prompt": cut(prompts.get(r.prompt_id, ""))}
        | {name: cut(by_id[r.row_id].completion or by_id[r.row_id].reason or "") for name, by_id in rows.items()}
        for r in chosen
    ]


def prompt_texts(store: Store, samples: dict[str, DatasetRef]) -> dict[str, str]:
    """The last human turn of each held-out prompt, by id, from the prompts that the samples were taken on."""
    first = next(iter(samples.values()))
    inputs = store.manifest(first.dataset, first.version).derivation.inputs["prompts"]
    manifest = store.manifest("prompts", inputs.version)
    prompts = table_to_rows(store.read(manifest.dataset_ref()), Prompt)
    return {p.prompt_id: p.messages[-1].content for p in prompts if p.split == "held_out" and p.messages}


def cut(text: str) -> str:
    """Escaped for markdown, and no longer than a table cell can bear."""
    text = text if len(text) <= MAX_CHARACTERS else text[:MAX_CHARACTERS] + " …"
    return html.escape(text).replace("\n", " ")
