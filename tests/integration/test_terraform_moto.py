"""`infra/terraform` by Terraform itself: validated, planned and applied on moto, an emulator of AWS. Not on AWS.

Skips where `terraform` is not installed, or cannot get its provider (TF_CLI_CONFIG_FILE may name a mirror).
"""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.servers.fixtures import point_at
from tests.terraform_policies import FOLDER, read_roles, render, role_policy

BUCKET, PREFIX = "solon-lab", "lab/run"
ARN, ROOT = f"arn:aws:s3:::{BUCKET}", f"{PREFIX}/"
ISSUER = "arn:aws:iam::123456789012:oidc-provider/oidc.example/id/1"
_OVERRIDE = """
provider "aws" {{
  s3_use_path_style           = true
  skip_requesting_account_id  = false
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  endpoints {{
    cloudtrail = "{endpoint}"
    iam        = "{endpoint}"
    s3         = "{endpoint}"
    sts        = "{endpoint}"
  }}
}}
"""
pytestmark = pytest.mark.long


class Terraform:
    """A copy of the module, on one server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        given = {"region": "us-east-1", "bucket": BUCKET, "prefix": PREFIX, "oidc_provider_arn": ISSUER}
        (folder / "terraform.tfvars.json").write_text(json.dumps(given))

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1"}
        return subprocess.run(
            ["terraform", *command], cwd=self.folder, env=env, capture_output=True, text=True, timeout=600, check=False
        )

    def done(self, *command: str) -> str:
        result = self.run(*command)
        assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
        return result.stdout


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory, moto_endpoint: str) -> Terraform:
    if not shutil.which("terraform"):
        pytest.skip("this machine has no terraform")
    folder = tmp_path_factory.mktemp("terraform") / "module"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns(".terraform*", "*.tfstate*", "*.tfvars*"))
    (folder / "moto_override.tf").write_text(_OVERRIDE.format(endpoint=moto_endpoint))
    terraform = Terraform(folder)
    started = terraform.run("init", "-backend=false", "-no-color")
    if started.returncode != 0:
        pytest.skip(f"terraform cannot get its provider: {started.stderr[-300:]}")
    return terraform


@pytest.fixture(scope="module")
def applied(module: Terraform, moto_endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Terraform:
    with pytest.MonkeyPatch.context() as patch:
        point_at(moto_endpoint, patch, tmp_path_factory.mktemp("none"))
        module.done("apply", "-auto-approve", "-no-color")
    return module


@pytest.fixture
def client(moto_endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Makes clients of moto."""
    from botocore.session import get_session

    point_at(moto_endpoint, monkeypatch, tmp_path)
    return lambda kind: get_session().create_client(kind, endpoint_url=moto_endpoint)


def test_terraform_finds_its_own_form_and_no_mistake(module: Terraform) -> None:
    assert module.done("fmt", "-check", "-recursive", str(FOLDER)) == ""
    assert json.loads(module.done("validate", "-json"))["valid"]


def test_terraform_gives_each_role_the_text_that_was_tried_on_a_real_server(applied: Terraform, client: Any) -> None:
    arns = json.loads(applied.done("output", "-json"))["role_arns"]["value"]
    assert set(arns) == set(read_roles())
    for name, role in read_roles().items():
        found = client("iam").get_role_policy(RoleName=arns[name].rpartition("/")[2], PolicyName="store")
        assert found["PolicyDocument"] == json.loads(role_policy(role, ARN, ROOT)), name


def test_terraform_trusts_one_service_account_a_role(applied: Terraform, client: Any) -> None:
    outputs = json.loads(applied.done("output", "-json"))
    account = outputs["service_accounts"]["value"]["held_out_reward"]
    arn = outputs["role_arns"]["value"]["held_out_reward"]
    assert account["annotations"] == {"eks.amazonaws.com/role-arn": arn}
    trust = client("iam").get_role(RoleName=arn.rpartition("/")[2])["Role"]["AssumeRolePolicyDocument"]
    values = {"oidc_provider": ISSUER, "oidc_issuer": "oidc.example/id/1", "namespace": "solon"}
    assert trust == json.loads(render("trust", **values, service_account="solon-held-out-reward"))
    assert account["name"] == "solon-held-out-reward"


def test_terraform_bucket_is_versioned_encrypted_closed_and_under_its_policy(applied: Terraform, client: Any) -> None:
    s3, where = client("s3"), {"Bucket": BUCKET}
    assert s3.get_bucket_versioning(**where)["Status"] == "Enabled"
    (rule,) = s3.get_bucket_encryption(**where)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    assert all(s3.get_public_access_block(**where)["PublicAccessBlockConfiguration"].values())
    policy = json.loads(s3.get_bucket_policy(**where)["Policy"])
    assert policy == json.loads(render("bucket", bucket=ARN, root=ROOT))


def test_terraform_lifecycle_ends_unfinished_uploads_and_what_is_deleted(applied: Terraform, client: Any) -> None:
    rules = client("s3").get_bucket_lifecycle_configuration(Bucket=BUCKET)["Rules"]
    expiring = {rule["Filter"]["Prefix"] for rule in rules if "Days" in rule.get("Expiration", {})}
    assert expiring == {f"{ROOT}v1/pins/", f"{ROOT}v1/claims/"}
    (uploads,) = [rule for rule in rules if "AbortIncompleteMultipartUpload" in rule]
    assert uploads["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}
    nightly = {
        r["Filter"]["Prefix"] for r in rules if r.get("NoncurrentVersionExpiration", {}).get("NoncurrentDays") == 1
    }
    assert f"{ROOT}v1/datasets/models/rl/checkpoints/" in nightly and f"{ROOT}v1/datasets/" not in nightly


def test_terraform_keeps_a_record_in_a_bucket_that_is_locked(applied: Terraform, client: Any) -> None:
    (trail,) = client("cloudtrail").describe_trails()["trailList"]
    assert trail["S3BucketName"] == f"{BUCKET}-audit" and trail["LogFileValidationEnabled"]
    lock = client("s3").get_object_lock_configuration(Bucket=f"{BUCKET}-audit")["ObjectLockConfiguration"]
    kept = lock["Rule"]["DefaultRetention"]
    assert (kept["Mode"], kept["Days"]) == ("GOVERNANCE", 400)


def test_terraform_applied_twice_changes_nothing(applied: Terraform, client: Any) -> None:
    assert client and applied.run("plan", "-detailed-exitcode", "-no-color").returncode == 0
