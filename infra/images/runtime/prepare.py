"""Once, before workers start: the store's bucket, whether it is safe, then pools, deployments and automations.

    python -m infra.images.runtime.prepare s3://solon/store

Again is harmless. Ends with 1 where the S3 server ignores the condition that the store rests on.
"""

import sys

from prefect.client.orchestration import get_client

from deployments.deploy import deploy
from deployments.pools import ensure_pools
from tasks.store.doctor import examine
from tasks.store.s3_connection import open_probe_client


def make_bucket(uri: str) -> None:
    """Make the bucket of `s3://bucket/prefix` unless it is there, as the owner of these credentials."""
    bucket = uri.removeprefix("s3://").partition("/")[0]
    client = open_probe_client()
    if bucket not in {found["Name"] for found in client.list_buckets()["Buckets"]}:
        client.create_bucket(Bucket=bucket)


def main() -> None:
    uri = sys.argv[1]
    make_bucket(uri)
    broken = [finding for finding in examine(uri) if finding.outcome == "broken"]
    if broken:
        sys.exit("prepare: " + "; ".join(f"{finding.check}: {finding.detail}" for finding in broken))
    with get_client(sync_client=True) as client:
        ensure_pools(client)
        for name, what in deploy(client).items():
            print(f"{what:>10}  {name}")


if __name__ == "__main__":
    main()
