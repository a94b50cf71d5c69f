"""The doctor on a real Ceph, whose versioned buckets are the one place known to overwrite in silence."""

import pytest

from tasks.store import Store, StoreError
from tasks.store.doctor import examine
from tasks.store.s3_connection import open_probe_client


def test_examine_radosgw_keeps_every_promise_until_its_bucket_is_versioned(radosgw_uri: str) -> None:
    bucket = radosgw_uri.split("/")[2]
    assert {finding.outcome for finding in examine(radosgw_uri)} == {"ok"}
    versions = {"Bucket": bucket, "VersioningConfiguration": {"Status": "Enabled"}}
    open_probe_client().put_bucket_versioning(**versions)
    broken = {finding.check: finding.detail for finding in examine(radosgw_uri) if finding.outcome == "broken"}
    assert set(broken) == {"create-if-absent", "race"}
    assert "versioning" in broken["create-if-absent"]
    with pytest.raises(StoreError, match="ignores If-None-Match"):
        Store.open(radosgw_uri)


def test_examine_radosgw_wrong_secret_is_named_and_not_repeated(
    radosgw_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "geheim")
    found = examine(radosgw_uri)
    assert [finding.check for finding in found if finding.outcome == "broken"] == ["credentials"]
    assert "geheim" not in repr(found)
