"""Where a run stops: a gate that does not hold, unless the config only warns."""

from prefect.logging import get_logger

from flows.runner import StageRunner
from tasks.schema import DatasetRef, Gate
from tasks.stage import StageFailed


class GateFailed(StageFailed):
    """Something that has to hold before labels may train anything does not; the message says what and what to do."""


def require_gates(run: StageRunner, gates: DatasetRef) -> None:
    """Nothing where every gate holds, or is not known yet; a gate that only warns goes to the log.

    Raises: GateFailed: each gate that failed, on a line of its own.
    """
    rows = run.known_rows(gates, Gate) or []
    for gate in rows:
        if not gate.passed and gate.status != "failed":
            get_logger("gates").warning("gate %s: %s", gate.row_id, gate.says)
    failed = [gate for gate in rows if gate.status == "failed"]
    if failed:
        raise GateFailed(explain(gates, failed, len(rows)))


def explain(gates: DatasetRef, failed: list[Gate], num_gates: int) -> str:
    """What was measured, expected and to be done, for each gate."""
    lines = [f"- {gate.row_id}: {gate.says}" for gate in failed]
    head = f"gates: {len(failed)} of {num_gates} do not hold ({gates.dataset}/{gates.version[:12]})"
    tail = "What was made so far is kept. Limits are the settings gates.*; gates.on_failure=warn goes on regardless"
    return "\n".join([head, *lines, tail])
