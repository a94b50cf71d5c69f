"""The flow `gc` on a small store: shows what would go, and removes it where it is no dry run."""

import json
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.objects import Artifact
from prefect.client.schemas.sorting import ArtifactSort

from flows import gc as module
from flows.gc import GcConfig, gc
from tasks.schema import DatasetRef
from tasks.store import Store
from tasks.store.retention import Retention
from tests.small_versions import commit, completions

NOTHING = Retention(newest=0, days=0, reuse_days=0)

pytestmark = pytest.mark.usefixtures("prefect_home")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"), cache=tmp_path / "cache")


@pytest.fixture
def refs(store: Store) -> list[DatasetRef]:
    """Three versions of a dataset, the first one tagged."""
    found = [commit(store, completions([f"text {seed}"]), seed) for seed in range(3)]
    store.tag("completions", "prod", found[0].version, by="test")
    return found


def last_artifact() -> Artifact:
    """The newest table of the flow."""
    with get_client(sync_client=True) as client:
        chosen = ArtifactFilter(key=ArtifactFilterKey(any_=["garbage"]))
        return client.read_artifacts(artifact_filter=chosen, sort=ArtifactSort.CREATED_DESC, limit=1)[0]


def versions(store: Store) -> set[str]:
    return {manifest.version for manifest in store.versions("completions")}


def test_gc_by_default_removes_nothing_and_shows_what_would_go(store: Store, refs: list[DatasetRef]) -> None:
    report = gc(GcConfig(store=store.uri, retention=NOTHING))
    assert {found.version for found in report.removed} == {refs[1].version, refs[2].version}
    assert len(versions(store)) == 3
    shown = last_artifact()
    assert "2 versions would be removed, 1 kept" in str(shown.description)
    rows = {row["version"]: (row[""], row["why"]) for row in _rows(shown)}
    assert rows[refs[0].version[:12]] == ("stays", "tag prod")
    assert rows[refs[1].version[:12]] == ("goes", "not needed")


def test_gc_that_is_no_dry_run_removes_what_the_dry_run_showed(store: Store, refs: list[DatasetRef]) -> None:
    shown = gc(GcConfig(store=store.uri, retention=NOTHING))
    report = gc(GcConfig(store=store.uri, retention=NOTHING, dry_run=False))
    assert report.removed == shown.removed and versions(store) == {refs[0].version}
    assert "2 versions removed, 1 kept" in str(last_artifact().description)


def test_gc_keeps_what_the_retention_says(store: Store, refs: list[DatasetRef]) -> None:
    report = gc(GcConfig(store=store.uri, retention=Retention(newest=2, days=0, reuse_days=0), dry_run=False))
    assert [found.version for found in report.removed] == []
    assert len(gc(GcConfig(store=store.uri, dry_run=False)).kept) == 3  # all are young


def test_gc_artifact_is_bounded_and_says_what_it_leaves_out(
    store: Store, refs: list[DatasetRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_ROWS", 2)
    gc(GcConfig(store=store.uri, retention=NOTHING))
    shown = last_artifact()
    assert [row[""] for row in _rows(shown)] == ["goes", "goes"]
    assert "first 2 of 3 versions" in str(shown.description)


def _rows(artifact: Artifact) -> list[dict[str, str]]:
    assert isinstance(artifact.data, str)
    found: list[dict[str, str]] = json.loads(artifact.data)
    return found
