"""Roles on a Ceph: each has the very policy that Terraform gives it, and is assumed as a pod assumes its own.

with radosgw("memstore", STS) as server, acting_as(Roles(server).environment("sft", policy)): ...

A pod's Kubernetes token is not part of it: here a user stands for the cluster, and may assume every role.
"""

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tests.servers.access import UNWANTED, aws_environment
from tests.servers.radosgw import Radosgw

STS = {"rgw_s3_auth_use_sts": "true", "rgw_sts_key": secrets.token_hex(8)}
"""Settings of a gateway that gives out sessions. A wrong secret is then AccessDenied, not SignatureDoesNotMatch."""

_CLUSTER = "cluster"
_TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Principal": {"AWS": [f"arn:aws:iam:::user/{_CLUSTER}"]}, "Action": ["sts:AssumeRole"]}
    ],
}


class Roles:
    """Makes roles on one server. Who assumes them owns no bucket, so that nothing but the policies allows anything."""

    def __init__(self, server: Radosgw) -> None:
        self.server = server
        self._access_key, self._secret_key = secrets.token_hex(8), secrets.token_hex(16)
        keys = (f"--access-key={self._access_key}", f"--secret-key={self._secret_key}")
        server.admin("user", "create", f"--uid={_CLUSTER}", f"--display-name={_CLUSTER}", *keys)

    def owner(self) -> dict[str, str]:
        """`AWS_*` of the bucket's owner, over TLS."""
        return over_tls(self.server)

    def environment(self, name: str, policy: str) -> dict[str, str]:
        """`AWS_*` of a new session of a role with that policy, over TLS; the role is made."""
        role = name.replace("_", "-")
        self.server.admin("role", "create", f"--role-name={role}", f"--assume-role-policy-doc={json.dumps(_TRUST)}")
        names = (f"--role-name={role}", "--policy-name=store", f"--policy-doc={policy}")
        self.server.admin("role-policy", "put", *names)
        session = self._sts().assume_role(RoleArn=f"arn:aws:iam:::role/{role}", RoleSessionName="test")["Credentials"]
        return self.owner() | {
            "AWS_ACCESS_KEY_ID": session["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": session["SecretAccessKey"],
            "AWS_SESSION_TOKEN": session["SessionToken"],
        }

    def _sts(self) -> Any:
        from botocore.session import get_session

        keys = {"aws_access_key_id": self._access_key, "aws_secret_access_key": self._secret_key}
        where = {"endpoint_url": self.server.tls_endpoint, "verify": str(self.server.certificate)}
        return get_session().create_client("sts", region_name="us-east-1", **keys, **where)


def over_tls(server: Radosgw) -> dict[str, str]:
    """`AWS_*` of the server's one user at its encrypted port."""
    return aws_environment(server.tls_endpoint, server.folder) | {"AWS_CA_BUNDLE": str(server.certificate)}


@contextmanager
def acting_as(environment: Mapping[str, str]) -> Iterator[None]:
    """This process with these `AWS_*` and no others."""
    before = {name: value for name, value in os.environ.items() if name.startswith("AWS_") or name in UNWANTED}
    for name in before:
        del os.environ[name]
    os.environ.update(environment)
    try:
        yield
    finally:
        for name in environment:
            os.environ.pop(name, None)
        os.environ.update(before)
