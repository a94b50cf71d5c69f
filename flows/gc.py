"""Garbage collection of the store: what nobody needs is shown, or removed. The command and the deployment share this.

Nothing that a run needs can go: it holds its inputs and results while it works (`tasks/store/gc.py`).
"""

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact
from pydantic import Field

from flows.commands.tables import bytes_text
from tasks.schema import Frozen
from tasks.stage import RunContext
from tasks.store import Store
from tasks.store.gc import GcReport, collect_garbage, plan_garbage
from tasks.store.retention import Retention

MAX_ROWS = 200
"""Versions that the artifact shows; a longer table stops its page from rendering."""


class GcConfig(Frozen):
    """What a garbage collection is told."""

    store: str = RunContext().store
    """A folder or `s3://bucket/prefix`."""
    retention: Retention = Retention()
    """What is kept beside what is tagged, held by a live run, or the source of something kept."""
    grace_hours: float = Field(24, ge=0.1)
    """How long a silent process counts as alive, and how long the files of a removed version outlive it."""
    dry_run: bool = True
    """Only show what would go."""


@flow(name="gc", flow_run_name="gc {config.store}")
def gc(config: GcConfig) -> GcReport:
    """Show what nobody needs, and remove it where this is no dry run."""
    report = run_gc(config)
    words = summary(config, report)
    get_run_logger().info(words)
    create_table_artifact(table_rows(report)[:MAX_ROWS], key="garbage", description=f"{words}{left_out(report)}")
    return report


def run_gc(config: GcConfig) -> GcReport:
    """What was removed from the store and what was kept; of a dry run, what would be.

    Raises: StoreError. StoreUnavailable. Corrupt: a tag's log or a fate is damaged; nothing more is removed.
    """
    work = plan_garbage if config.dry_run else collect_garbage
    return work(Store.open(config.store), config.retention, config.grace_hours * 3600)


def summary(config: GcConfig, report: GcReport) -> str:
    """What happened, in figures."""
    done = "would be removed" if config.dry_run else "removed"
    text = (
        f"{len(report.removed)} versions {done}, {len(report.kept)} kept; {report.objects} files with "
        f"{bytes_text(report.bytes)} {done} now. Files of a removed version go {config.grace_hours:g} hours later."
    )
    stopped = f"{len(report.publishing)} attempts stopped while publishing; their files are left."
    return f"{text} {stopped}" if report.publishing else text


def table_rows(report: GcReport) -> list[dict[str, str]]:
    """A version a row, those that go first."""
    versions = [("goes", found) for found in report.removed] + [("stays", found) for found in report.kept]
    return [
        {"dataset": v.dataset, "version": v.version[:12], "": outcome, "why": v.reason, "size": bytes_text(v.bytes)}
        for outcome, v in versions
    ]


def left_out(report: GcReport) -> str:
    """What to say where the artifact does not show all."""
    num_versions = len(report.removed) + len(report.kept)
    if num_versions <= MAX_ROWS:
        return ""
    return f" The first {MAX_ROWS} of {num_versions} versions are shown; `./solon datasets gc` shows all."
