"""What must hold after every round, whatever happened during it."""

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tasks.store import Store, StoreError
from tests.faults.writer import DATASET, TAG, foreign_rows
from tests.small_versions import derivation

Entry = dict[str, Any]


def read_journals(folder: Path) -> list[Entry]:
    """All that all writers were told."""
    return [json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()]


def violations(store: Store, entries: list[Entry], seeds: Iterable[int]) -> list[str]:
    """What broke, in words; empty where all is well. The store must be reachable without faults now."""
    found = [entry["text"] for entry in entries if entry["kind"] == "violation"]
    contents = defaultdict(set)
    for entry in entries:
        if entry["kind"] == "commit":
            contents[entry["seed"]].add(entry["content"])
    for seed in seeds:
        found += _of_version(store, seed, contents[seed])
    return found + _of_tags(store, [entry for entry in entries if entry["kind"] == "tag"])


def _of_version(store: Store, seed: int, acknowledged: set[str]) -> list[str]:
    found = []
    if len(acknowledged) > 1:
        found.append(f"version {seed}: two winners, {len(acknowledged)} contents were acknowledged")
    try:
        manifest = store.find(DATASET, derivation(DATASET, seed).version)
        if manifest is None:
            return [*found, f"version {seed}: lost, though acknowledged"] if acknowledged else found
        if acknowledged and manifest.content_hash not in acknowledged:
            found.append(f"version {seed}: what was acknowledged is not what is there")
        problem = foreign_rows(store, manifest.dataset_ref(), seed)
    except StoreError as error:
        problem = f"unreadable: {error}"
    return [*found, f"version {seed}: {problem}"] if problem else found


def _of_tags(store: Store, acknowledged: list[Entry]) -> list[str]:
    try:
        log = {entry.sequence: entry.version for entry in store.tag_history(DATASET, TAG)}
    except StoreError as error:
        return [f"tag: {error}"]
    found = []
    if sorted(log) != list(range(1, len(log) + 1)):
        found.append(f"tag: its sequence has gaps: {sorted(log)}")
    lost = [entry for entry in acknowledged if log.get(entry["sequence"]) != entry["version"]]
    return [*found, f"tag: {len(lost)} acknowledged moves are not in its log"] if lost else found
