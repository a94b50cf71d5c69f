"""`infra/terraform` as text: every name is declared, every policy is one, and its table of roles fits the stages."""

import json
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any, get_type_hints

import hcl2
import pytest

from flows.stages import FLOWS
from tasks.policy_stage import PolicyStage
from tasks.store import keys
from tests.terraform_policies import FOLDER, POLICIES, Role, read_roles, render, role_policy

FILES = sorted(FOLDER.glob("*.tf"))
PARSED = {path.name: hcl2.loads(path.read_text(encoding="utf-8")) for path in FILES}
ROLES = read_roles()
BUCKET, ROOT = "arn:aws:s3:::" + "b" * 57, "a-prefix-of-some-length/"

ACTIONS = {
    "kms:Decrypt", "kms:GenerateDataKey", "s3:*", "s3:AbortMultipartUpload", "s3:DeleteObject",
    "s3:DeleteObjectVersion", "s3:GetBucketAcl", "s3:GetBucketVersioning", "s3:GetObject", "s3:ListBucket",
    "s3:PutObject", "sts:AssumeRoleWithWebIdentity",
}  # fmt: skip
"""What the policies may name; AWS takes a policy with an action that it does not know without a word."""
CONDITIONS = {"aws:SecureTransport", "aws:SourceArn", "s3:if-none-match", "s3:x-amz-acl"}
MAX_INLINE_CHARACTERS = 10_240
"""Of all inline policies of a role, white space not counted (IAM's quotas)."""
MAX_BUCKET_POLICY_BYTES = 20 * 1024

VALUES = {
    "bucket": BUCKET, "root": ROOT, "trail": "arn:aws:cloudtrail:eu-west-1:000000000000:trail/t", "account": "0" * 12,
    "oidc_provider": "arn:aws:iam::000000000000:oidc-provider/example", "oidc_issuer": "example", "namespace": "solon",
    "service_account": "solon-rl", "key": "arn:aws:kms:eu-west-1:000000000000:key/k",
}  # fmt: skip
OTHERS = sorted({path.name.removesuffix(".json.tftpl") for path in POLICIES.iterdir()} - {"work", "read", "gc"})


def documents() -> dict[str, dict[str, Any]]:
    """Every policy: of each role, and each that is no role's."""
    roles = {name: json.loads(role_policy(role, BUCKET, ROOT)) for name, role in ROLES.items()}
    return roles | {name: json.loads(render(name, **VALUES)) for name in OTHERS}


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def blocks(kind: str) -> Iterator[tuple[str, ...]]:
    """The labels of each block of a kind."""
    for parsed in PARSED.values():
        for block in parsed.get(kind, []):
            ((label, body),) = block.items()
            inner = next((key for key in body if key.startswith('"')), None)
            yield tuple(part.strip('"') for part in ((label, inner) if inner else (label,)))


def expressions(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from expressions(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key != "__comments__":
                yield from expressions(item)


@pytest.mark.parametrize("name", PARSED)
def test_terraform_references_are_declared(name: str) -> None:
    declared = {f"var.{label}" for (label,) in blocks("variable")}
    declared |= {f"{kind}.{label}" for kind, label in blocks("resource")}
    declared |= {f"data.{kind}.{label}" for kind, label in blocks("data")}
    declared |= {f"local.{key}" for parsed in PARSED.values() for block in parsed.get("locals", []) for key in block}
    text = "\n".join(expressions(PARSED[name]))
    used = set(re.findall(r"(?<![\w.])(?:(?:var|local)\.\w+|data\.\w+\.\w+|aws_\w+\.\w+)", text))
    assert not used - declared


def test_terraform_variables_and_locals_are_all_used() -> None:
    text = "\n".join(expression for parsed in PARSED.values() for expression in expressions(parsed))
    names = [f"var.{label}" for (label,) in blocks("variable")]
    names += [f"local.{k}" for p in PARSED.values() for b in p.get("locals", []) for k in b if not k.startswith("__")]
    assert [name for name in names if not re.search(rf"(?<![\w.]){re.escape(name)}\b", text)] == []


def test_terraform_templates_are_given_what_they_name() -> None:
    text = "\n".join(expression for parsed in PARSED.values() for expression in expressions(parsed))
    calls = re.findall(
        r'templatefile\("\$\{path\.module\}/policies/([\w$.{}]+)\.json\.tftpl", (?:merge\()?\{(.*)\}', text
    )
    assert {name for name, _ in calls} == {*OTHERS, "${each.value.policy}"}
    for name, given in calls:
        if name in OTHERS:
            wanted = set(re.findall(r"\$\{(\w+)\}", (POLICIES / f"{name}.json.tftpl").read_text(encoding="utf-8")))
            assert set(re.findall(r"(\w+) = ", given)) == wanted


def test_terraform_says_in_which_way_it_was_tried() -> None:
    head = (FOLDER / "versions.tf").read_text(encoding="utf-8").partition("terraform {")[0]
    assert "Never planned or applied on AWS" in head


@pytest.mark.parametrize("path", [*FILES, *sorted(POLICIES.iterdir()), FOLDER / "roles.json"], ids=lambda p: p.name)
def test_terraform_holds_no_credential_and_no_account(path: Any) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"(AKIA|ASIA)[A-Z0-9]{12}|secret|password|token|access_key", text, re.IGNORECASE)
    assert not re.search(r"\b[0-9]{12}\b", text)


@pytest.mark.parametrize("name", documents())
def test_terraform_policy_names_only_known_actions_and_conditions(name: str) -> None:
    document = documents()[name]
    assert document["Version"] == "2012-10-17"
    for statement in document["Statement"]:
        assert set(as_list(statement["Action"])) <= ACTIONS
        assert re.fullmatch(r"[A-Za-z0-9]+", statement["Sid"])
        assert statement["Effect"] == "Deny" or "s3:*" not in as_list(statement["Action"])
        used = {key for condition in statement.get("Condition", {}).values() for key in condition}
        assert used - {"example:aud", "example:sub"} <= CONDITIONS
        for resource in as_list(statement.get("Resource", [])):
            assert resource.startswith("arn:aws:") and "${" not in resource


@pytest.mark.parametrize("name", ROLES)
def test_terraform_role_policy_fits_into_a_role(name: str) -> None:
    text = role_policy(ROLES[name], BUCKET, ROOT)
    key = render("key", key=VALUES["key"])
    assert len("".join((text + key).split())) <= MAX_INLINE_CHARACTERS


def test_terraform_bucket_policy_fits_into_a_bucket() -> None:
    assert len(render("bucket", bucket=BUCKET, root=ROOT)) <= MAX_BUCKET_POLICY_BYTES


def test_terraform_commits_are_the_keys_of_the_store() -> None:
    """The rules for everybody name the places where the store keeps manifests, fates and registers."""
    statements = {s["Sid"]: s for s in json.loads(render("bucket", bucket="b", root=""))["Statement"]}
    commits = statements["CommitsOverwriteNothing"]["Resource"]
    folders = [
        keys.folder(dataset, kind) for dataset in ("prompts", "models/sl") for kind in ("versions", "fates", "tags")
    ]
    for key in [*(f"{folder}x" for folder in folders), f"{keys.ATTEMPTS}x.json", keys.manifest_key("prompts", "v", 1)]:
        assert any(fnmatchcase(f"b/{key}", pattern) for pattern in commits), key
    for key in [
        f"{keys.PINS}x.json",
        f"{keys.data_key('prompts', 'v')}/a/part-0.parquet",
        f"{keys.CLAIMS}prompts/v/1.beat",
    ]:
        assert not any(fnmatchcase(f"b/{key}", pattern) for pattern in commits), key


def test_terraform_lifecycle_names_prefixes_of_the_store() -> None:
    text = (FOLDER / "lifecycle.tf").read_text(encoding="utf-8")
    assert set(re.findall(r'"(v1/[a-z]+/)"', text)) == {keys.PINS, keys.CLAIMS, keys.ATTEMPTS}


def stages() -> dict[str, Any]:
    return {name: get_type_hints(flow.fn)["stage"] for name, flow in FLOWS.items()}


@pytest.mark.parametrize("name", FLOWS)
def test_terraform_role_makes_what_its_stage_makes(name: str) -> None:
    role, stage = ROLES[name], stages()[name]
    beside = (stage.policies,) if issubclass(stage, PolicyStage) else ()
    sampled = ("rollouts",) if name == "rl" else ()
    assert role.makes == (stage.dataset, *beside, *sampled) and not role.tags
    assert role.trains == ((stage.dataset,) if stage.dataset.startswith("models/") else ())


def test_terraform_align_may_what_each_stage_of_files_and_rows_may() -> None:
    """Such stages are made inside of the run (`flows/runner.py`)."""
    cheap = {stage.dataset for stage in stages().values() if stage.cheap}
    assert set(ROLES["align"].makes) == cheap
    assert ROLES["align"].reads == ("*", "models/*") and not ROLES["align"].trains


def test_terraform_has_a_role_for_each_stage_and_no_others_than_documented() -> None:
    assert set(ROLES) - set(FLOWS) == {"align", "amend", "publish", "read", "gc"}
    assert ROLES["read"] == Role(policy="read") and ROLES["gc"] == Role(policy="gc")


FROM = {
    "constitution": "constitutions", "earlier": "preferences", "policy": "models/sl", "policies": "models/sl",
    "reward": "models/reward", "held_out_reward": "models/held_out_reward", "sl": "models/sl", "rl": "models/rl",
    "keep": "models/sl", "questions": "question_sets", "evaluator_answers": "answers",
}  # fmt: skip
"""Fields of stages that are not named after their dataset."""
OUTSIDE = {"helpful_only", "pretrained", "feedback", "model"}
"""Models that come from outside of the store."""


@pytest.mark.parametrize("name", FLOWS)
def test_terraform_role_may_read_each_input_of_its_stage(name: str) -> None:
    """By the fields. What else is read, such as an input's own inputs, a real run under these roles tells."""
    fields = [field for field, info in stages()[name].model_fields.items() if "Ref" in str(info.annotation)]
    wanted = {FROM.get(field, field) for field in fields} - OUTSIDE
    patterns = (*ROLES[name].reads, *ROLES[name].makes)
    assert not {dataset for dataset in wanted if not any(fnmatchcase(dataset, pattern) for pattern in patterns)}
