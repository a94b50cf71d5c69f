"""kill -9 in the middle of `revise` and of `label`, with real vLLM: finished chunks stay, the result is the same."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tasks.store import Store

ROOT = Path(__file__).resolve().parents[2]
CHUNK_ROWS = 16
DATASETS = {"respond": "completions", "revise": "revisions", "compare": "comparisons", "label": "labels"}

pytestmark = [pytest.mark.vllm, pytest.mark.long]


def start(store: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, str(Path(__file__).with_name("kill_driver.py")), str(store), str(CHUNK_ROWS)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True, start_new_session=True)


def finish(store: Path) -> dict[str, dict[str, object]]:
    process = start(store)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    return json.loads(output.splitlines()[-1])


def chunk_files(store: Path, dataset: str) -> dict[str, int]:
    files = (store / "v1" / "datasets" / dataset / "chunks").glob("*/*.parquet")
    return {str(file): file.stat().st_mtime_ns for file in files}


def rows_in(chunks: dict[str, int]) -> int:
    """Rows of chunk files that are still there."""
    return sum(pq.read_metadata(file).num_rows for file in chunks)


def descendants(pid: int) -> set[int]:
    """Processes below `pid` now; the guard and what it guards among them."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended while we looked
        parents[int(stat.parent.name)] = int(fields[1])
    found, frontier = set[int](), {pid}
    while frontier:
        frontier = {child for child, parent in parents.items() if parent in frontier} - found
        found |= frontier
    return found


def alive(pids: set[int]) -> set[int]:
    return {pid for pid in pids if Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes()}


def kill_after_two_chunks(store: Path, dataset: str, whole_group: bool) -> dict[str, int]:
    """Start, wait for two finished chunks of `dataset`, kill -9; the chunks there are then. No child outlives it."""
    process = start(store)
    deadline = time.monotonic() + 300
    while len(chunk_files(store, dataset)) < 2:
        assert process.poll() is None and time.monotonic() < deadline, "ended before it could be killed"
        time.sleep(0.005)
    children = descendants(process.pid)
    assert children, "a vLLM server was expected below the driver"
    if whole_group:
        os.killpg(process.pid, signal.SIGKILL)
    else:
        os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = chunk_files(store, dataset)
    deadline = time.monotonic() + 30
    while alive(children) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not alive(children), "processes outlived their stage by 30 s"
    return kept


def test_kill_in_revise_and_label_recomputes_no_finished_chunk_and_ends_the_same(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    expected = finish(whole)
    assert all(int(expected[stage]["chunks_made"]) >= 4 for stage in ("revise", "label"))

    in_revise = kill_after_two_chunks(killed, "revisions", whole_group=True)
    in_label = kill_after_two_chunks(killed, "labels", whole_group=False)
    resumed = finish(killed)

    for stage, before in (("revise", in_revise), ("label", in_label)):
        after = chunk_files(killed, DATASETS[stage])
        assert {name: after[name] for name in before} == before  # not written again
    # revise was completed by the second run, which was then killed in label
    for stage, before in (("revise", in_revise), ("label", in_label)):
        (manifest,) = Store.open(str(killed)).versions(DATASETS[stage])
        assert manifest.cost["chunks_made"] == int(expected[stage]["chunks_made"]) - len(before)
        assert manifest.cost["rows_kept"] == rows_in(before) > 0
        assert manifest.sources == {f"chunks/{manifest.version}": rows_in(before)}
        assert manifest.cost["rows_made"] + manifest.cost["rows_kept"] == manifest.rows
    for stage in DATASETS:
        assert resumed[stage]["version"] == expected[stage]["version"]
        assert resumed[stage]["content_hash"] == expected[stage]["content_hash"], stage
