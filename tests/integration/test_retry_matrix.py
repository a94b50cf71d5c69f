"""What Prefect runs again when somebody clicks Retry: facts about the pinned version that our design rests on.

Each row is what a flow of `retry_flows.py` does before it fails; the table says how often it ran before the click and
after it. Where a row differs after an upgrade of Prefect, read `flows/children.py` again before changing the row.
"""

from collections import Counter
from collections.abc import Iterator
from uuid import UUID

import prefect
import pytest
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterParentFlowRunId

from tests.integration import retry_flows as rows
from tests.prefect_stack import PrefectStack

pytestmark = pytest.mark.long
FLOWS = (rows.inline, rows.child, rows.unkeyed, rows.keyed, rows.attached)
PARENTS = ("inline", "unkeyed", "keyed", "attached")

EXPECTED = {
    rows.PERSISTED: (1, 1),
    rows.MAPPED: (2, 2),
    rows.PLAIN: (1, 2),
    rows.UNCACHED: (1, 2),
    rows.UNHASHABLE: (1, 2),
    rows.UNHASHED: (1, 1),
    rows.NO_ARGUMENTS: (1, 2),
    rows.SUBFLOW_PERSISTED: (1, 1),
    rows.SUBFLOW_PLAIN: (1, 2),
    rows.SUBFLOW_FAILED: (1, 2),
    rows.TASK_OF_FAILED: (1, 2),
    rows.CHILD_UNKEYED: (1, 2),
    rows.CHILD_KEYED_FAILED: (1, 1),
    rows.CHILD_ATTACHED: (1, 1),
    rows.CHILD_RETRIED: (1, 2),
    rows.TASK_OF_RETRIED: (1, 1),
}
"""Row -> how often it had run before Retry, and after."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectStack]:
    """With Prefect's own default for caches, which Solon turns off: the rows are about what it does."""
    with PrefectStack(tmp_path_factory.mktemp("retries"), {"PREFECT_TASKS_DEFAULT_NO_CACHE": "false"}) as stack:
        for flow in FLOWS:
            stack.deploy(flow, "retried", "tests.integration.retry_flows")
        yield stack


def end_states(stack: PrefectStack, runs: dict[str, UUID]) -> dict[str, str | None]:
    return {name: stack.finished(run, seconds=400).state_name for name, run in runs.items()}


def run_ids(stack: PrefectStack, parent: UUID) -> set[UUID]:
    """The runs below a run."""
    below = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[parent]))
    with stack.client() as client:
        return {run.id for run in client.read_flow_runs(flow_run_filter=below)}


def show(found: dict[str, tuple[int, int]], states: dict[str, str | None]) -> None:
    print(f"\n{'Prefect ' + prefect.__version__:58}{'before':>8}{'after':>8}  ran again")
    for row, (first, second) in found.items():
        print(f"{row:58}{first:>8}{second:>8}  {'yes' if second > first else 'no'}")
    print(f"parents after Retry: {states}")


def test_retry_runs_again_what_the_table_says(stack: PrefectStack, capsys: pytest.CaptureFixture[str]) -> None:
    marks = stack.home / "marks"
    runs = {name: stack.start(f"{name}/retried", {"marks": str(marks)}) for name in PARENTS}
    assert end_states(stack, runs) == dict.fromkeys(PARENTS, "Failed")
    before, children = (
        Counter(marks.read_text().splitlines()),
        {name: run_ids(stack, run) for name, run in runs.items()},
    )
    for run in runs.values():
        stack.retry(run)
    states, after = end_states(stack, runs), Counter(marks.read_text().splitlines())
    new = {name: run_ids(stack, run) - children[name] for name, run in runs.items()}
    found = {row: (before[row], after[row]) for row in after}
    with capsys.disabled():
        show({row: found[row] for row in EXPECTED}, states)
    assert found == EXPECTED
    # a failed child with a key is not retried by Prefect: its parent finds it as it is and fails, now and for ever
    assert states == {"inline": "Completed", "unkeyed": "Completed", "keyed": "Failed", "attached": "Completed"}
    # new runs: the plain and the failed subflow, and the child without a key
    assert {name: len(ids) for name, ids in new.items()} == {"inline": 2, "unkeyed": 1, "keyed": 0, "attached": 0}
