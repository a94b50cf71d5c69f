"""A million rows of 1 kB text in the store: what commit, reuse look-up, diff and verify take in time and memory.

    make bench-store
    .venv/bin/python -m benchmarks.store --rows 100000

Each operation runs in a process of its own, on a folder store in a temporary directory (about 6 bytes for each byte of
text), beside delta-rs and a plain `Dataset.save_to_disk` where they have something comparable: see
`benchmarks/store_operations.py` for what each of them does. `make bench-store` installs delta-rs into a place of its
own; without it its column says so.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

TOOLS = Path(".solon/tools/bench")
MEMORY_LIMIT_MIB = 2048

OPERATIONS = (
    # operation, Solon's, delta-rs's, save_to_disk's
    ("commit", "commit", "delta_commit", "disk_commit"),
    ("reuse look-up", "reuse", "delta_reuse", None),
    ("commit, 1 in 16 changed", "commit_changed", "delta_commit_changed", None),
    ("diff", "diff", "delta_diff", None),
    ("verify", "verify", "delta_verify", "disk_verify"),
)


class Measured(NamedTuple):
    """What one operation took in its process."""

    seconds: float
    peak_mib: float
    """Largest resident set."""
    note: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print_machine()
    with tempfile.TemporaryDirectory(prefix="solon-bench-") as folder:
        made = measure("make_input", folder, arguments.rows, arguments.seed)
        print(f"{arguments.rows:,} rows made in {made.seconds:.1f} s: {made.note}\n", flush=True)
        print(f"{'operation':24s} {'seconds':>8s} {'peak MiB':>9s}", end="")
        print(f" {'delta-rs s':>11s} {'MiB':>6s} {'ratio':>6s} {'to_disk s':>10s} {'MiB':>6s} {'ratio':>6s}  note")
        peaks = [print_operation(*operation, folder, arguments) for operation in OPERATIONS]
    print(f"\nlargest peak {max(peaks):.0f} MiB, limit {MEMORY_LIMIT_MIB}; ratio: Solon's seconds over the other's")
    sys.exit(max(peaks) >= MEMORY_LIMIT_MIB)


def print_operation(
    name: str, ours: str, delta: str, disk: str | None, folder: str, arguments: argparse.Namespace
) -> float:
    """One line of the table; returns our peak in MiB."""
    own, *others = (
        measure(operation, folder, arguments.rows, arguments.seed) if operation else None
        for operation in (ours, delta, disk)
    )
    assert own
    line = f"{name:24s} {own.seconds:8.1f} {own.peak_mib:9.0f}"
    for other, width in zip(others, (11, 10), strict=True):
        if other:
            line += f" {other.seconds:{width}.1f} {other.peak_mib:6.0f} {own.seconds / other.seconds:6.2f}"
        else:
            line += f" {'-':>{width}s} {'-':>6s} {'-':>6s}"
    print(f"{line}  {own.note}", flush=True)
    return own.peak_mib


def measure(operation: str, folder: str, num_rows: int, seed: int) -> Measured | None:
    """Run an operation in a process of its own; None where delta-rs is needed and not installed."""
    packages = [str(path.absolute()) for path in TOOLS.glob("lib/python3*/site-packages")]
    if operation.startswith("delta") and not packages:
        return None
    command = [sys.executable, "-m", "benchmarks.store_operations", operation, folder, str(num_rows), str(seed)]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(packages if operation.startswith("delta") else [])}
    result = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(f"benchmarks.store: {operation} failed with exit code {result.returncode}\n{result.stderr}")
    return Measured(**json.loads(result.stdout.splitlines()[-1]))


def print_machine() -> None:
    """Where and with what this was measured."""
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("pyarrow", "datasets")]
    installed = {d.name: d.version for path in TOOLS.glob("lib/python3*/site-packages") for d in _distributions(path)}
    delta = installed.get("deltalake", "not installed (make bench-store)")
    print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, {platform.system()} {platform.machine()}")
    print(f"Python {platform.python_version()}, {', '.join(versions)}, deltalake {delta}")


def _distributions(path: Path) -> list[importlib.metadata.Distribution]:
    return list(importlib.metadata.distributions(path=[str(path)]))


if __name__ == "__main__":
    main()
