"""What Prefect's cost is measured against does the same work."""

from pathlib import Path

from benchmarks.plain_calls import align_plainly
from flows.config import AlignConfig
from flows.runner import AlignResult
from tasks.store import Store


def test_plain_calls_make_what_the_flow_makes(first_run: tuple[AlignConfig, AlignResult], tmp_path: Path) -> None:
    config, result = first_run
    there = config.run.model_copy(update={"store": str(tmp_path / "plain")})
    made = align_plainly(config.model_copy(update={"run": there}))
    assert (made.metrics, made.policies) == (result.metrics, result.policies)
    by_flow, plainly = Store.open(config.run.store), Store.open(there.store)
    assert plainly.datasets() == by_flow.datasets()
    assert made.report.version in {manifest.version for manifest in by_flow.versions("report")}
