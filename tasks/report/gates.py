"""The measurements that had to hold before labels could train anything."""

from collections.abc import Mapping

import pyarrow as pa

from tasks.schema import Gate
from tasks.store.identity import table_to_rows

PREFIX = "gates/"


def gate_rows(tables: Mapping[str, pa.Table]) -> list[Gate]:
    """Every gate of the run, those that failed first."""
    named = [table for name, table in tables.items() if name.startswith(PREFIX)]
    return sorted((row for table in named for row in table_to_rows(table, Gate)), key=lambda row: row.passed)


def gate_cautions(gates: list[Gate]) -> list[str]:
    """One sentence where a gate did not hold and the run went on all the same."""
    failed = [f"{gate.gate.replace('_', ' ')}{f' ({gate.evaluator})' if gate.evaluator else ''}" for gate in gates]
    names = ", ".join(name for name, gate in zip(failed, gates, strict=True) if not gate.passed)
    if not names:
        return []
    return [f"A gate did not hold and the run went on, as it was told to: {names}. See Gates before you trust a label."]


def outcome(gate: Gate) -> str:
    """A word for the table."""
    if gate.status == "skipped":
        return "nothing to measure"
    return "held" if gate.passed else "did not hold"
