"""Terraform's policies on a real Ceph: each role does its work there, and nothing else. The texts are Terraform's own.

A few roles are tried each time; all of them, and a whole alignment with a role for each stage, by `make test-long`.
"""

import json
from collections.abc import Iterable, Iterator

import pytest

from constitutions import load_constitution
from infra.debian_tools import Missing
from tasks.decisions import Subject, decide
from tasks.publish import publish
from tasks.store import Store, StoreUnavailable
from tasks.store.doctor import examine
from tasks.store.gc import collect_garbage
from tasks.store.retention import Retention
from tasks.store.s3_connection import open_probe_client
from tests.policy_world import (
    ARN,
    BUCKET_POLICY,
    DATASETS,
    OPERATOR,
    ROLES,
    ROOT,
    URI,
    World,
    derivation,
    forbidden,
    make,
    policy_world,
    put_bucket_policy,
    read,
    readable,
    status,
    work_as,
)
from tests.servers.radosgw_roles import acting_as
from tests.terraform_policies import render, role_policy, without

WORKERS = [name for name, role in ROLES.items() if role.makes]
EACH_TIME = ("sft",)
NEIGHBOURS = ("prompts", "completions", "models/sl")


def some(names: Iterable[str], each_time: tuple[str, ...]) -> list[object]:
    return [name if name in each_time else pytest.param(name, marks=pytest.mark.long) for name in names]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The bucket; skips where this machine cannot have a Ceph, with the reason."""
    try:
        with policy_world(tmp_path_factory.mktemp("policies")) as running:
            yield running
    except Missing as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", some(WORKERS, EACH_TIME))
def test_role_does_the_work_of_its_stage(world: World, name: str) -> None:
    world.fill(readable(ROLES[name]))
    world.condemn(readable(ROLES[name]))
    with acting_as(world.session(name)):
        work_as(world, name)


@pytest.mark.parametrize("name", some(ROLES, (*EACH_TIME, "read", "gc")))
def test_role_is_refused_what_its_neighbours_may(world: World, name: str) -> None:
    world.fill(NEIGHBOURS)
    with acting_as(world.session(name)):
        answers = dict(forbidden(name, NEIGHBOURS))
    assert len(answers) > 15 and {call: answer for call, answer in answers.items() if answer != 403} == {}


@pytest.mark.long
@pytest.mark.parametrize("name", ROLES)
def test_role_is_refused_in_every_dataset(world: World, name: str) -> None:
    world.fill(DATASETS)
    with acting_as(world.session(name)):
        answers = dict(forbidden(name, DATASETS))
    assert len(answers) > 100 and {call: answer for call, answer in answers.items() if answer != 403} == {}


def test_read_reads_everything_and_keeps_nothing(world: World) -> None:
    world.fill(NEIGHBOURS)
    with acting_as(world.session("read")):
        store = world.open()
        assert set(store.datasets()) >= set(NEIGHBOURS)
        for dataset in NEIGHBOURS:
            read(store, dataset)
        with pytest.raises(StoreUnavailable, match="AccessDenied"):
            store.hold("prompts", derivation("prompts", OPERATOR).version)


def test_gc_removes_what_nobody_needs(world: World) -> None:
    with acting_as(world.session(OPERATOR)):
        make(world.open(), "probes", "nobody", world.folder)
    with acting_as(world.session("gc")):
        store = world.open()
        assert not collect_garbage(store, Retention(newest=1000)).removed
        nothing = Retention(newest=0, days=0, reuse_days=0)
        removed = collect_garbage(store, nothing, grace_seconds=0.0).removed
        assert ("probes", derivation("probes", "nobody").version) in {(v.dataset, v.version) for v in removed}
        # their files go with the first run of a later second, by a clock of whole seconds
        assert any(collect_garbage(store, nothing, grace_seconds=0.0).objects for _ in range(50))
        assert {finding.outcome for finding in examine(URI)} == {"ok"}, "it may also examine the bucket"
    world.forget()


@pytest.mark.long
def test_publish_moves_tags_and_amend_only_its_decisions(world: World) -> None:
    constitution = load_constitution("constitutions/micro.yaml")
    with acting_as(world.session("publish")):
        published = publish(world.open(), constitution, "test")
    move = published.move
    subject = Subject(constitution=constitution.id, sequence=move.sequence, version=move.version, run="r")
    with acting_as(world.session("amend")):
        store = world.open()
        assert decide(store, subject, "approved", "test").word == "approved"
        with pytest.raises(StoreUnavailable, match="AccessDenied"):
            store.tag("constitutions", "prod", move.version, "test")
    with acting_as(world.session("align")), pytest.raises(StoreUnavailable, match="AccessDenied"):
        decide(world.open(), subject.model_copy(update={"sequence": 2}), "approved", "test")


@pytest.mark.parametrize("dataset", ["prompts", "models/sl"])
def test_bucket_policy_keeps_history_from_whoever_may_everything_else(world: World, dataset: str) -> None:
    with acting_as(world.session(OPERATOR)):
        store = world.open()
        make(store, dataset, "tagged", world.folder)
        store.tag(dataset, "prod", derivation(dataset, "tagged").version, "test")
        (tag,) = store.backend.keys(f"v1/datasets/{dataset}/tags/")
        client = open_probe_client()
        assert status(client.delete_object, Key=f"{ROOT}{tag}") == 403
        assert status(client.delete_object, Key=f"{ROOT}{tag}", VersionId="null") == 403
        assert status(client.get_object, Key=f"{ROOT}{tag}") == 200


def test_bucket_policy_refuses_what_is_not_encrypted(world: World) -> None:
    plain = {"AWS_ENDPOINT_URL": world.roles.server.endpoint}
    for who in (world.session(OPERATOR), world.session("respond")):
        with acting_as(who | plain):
            assert status(open_probe_client().list_objects_v2) == 403
        with acting_as(who):
            assert status(open_probe_client().list_objects_v2) == 200


def test_radosgw_does_not_know_the_condition_on_creates_and_refuses_them_all(world: World) -> None:
    """So `CommitsOverwriteNothing` is not enforced here: what keeps a manifest is the writer's own header alone."""
    key, with_header = f"{ROOT}v1/datasets/completions/versions/{'1' * 32}.json", {"IfNoneMatch": "*"}
    with acting_as(world.session("respond")):
        put = open_probe_client().put_object
    with acting_as(world.roles.owner()):
        put_bucket_policy(json.loads(render("bucket", bucket=ARN, root=ROOT)))
        try:
            assert [status(put, Key=key, Body=b"1", **extra) for extra in ({}, with_header)] == [403, 403]
        finally:
            put_bucket_policy(BUCKET_POLICY)
    assert [status(put, Key=key, Body=b"1", **extra) for extra in (with_header, with_header, {})] == [200, 412, 200]


def test_listing_limited_to_prefixes_would_make_a_missing_key_a_refusal(world: World) -> None:
    """Why each role may list the whole bucket: the store must learn that a key is not there."""
    text = role_policy(ROLES["respond"], ARN, ROOT)
    document = json.loads(text)
    document["Statement"][0]["Condition"] = {"StringLike": {"s3:prefix": [f"{ROOT}*"]}}
    missing = {"Key": f"{ROOT}v1/datasets/prompts/versions/{'2' * 32}.json"}
    with acting_as(world.roles.environment("listing_by_prefix", json.dumps(document))):
        client = open_probe_client()
        assert status(client.list_objects_v2, Prefix=ROOT) == 200
        assert status(client.list_objects_v2, Prefix="elsewhere/") == 403
        assert status(client.get_object, **missing) == 403
    with acting_as(world.session("respond")):
        assert status(open_probe_client().get_object, **missing) == 404


def test_moto_does_not_know_the_condition_on_creates_either(s3_uri: str) -> None:
    """It refuses what has the header as well."""
    Store.open(s3_uri)
    bucket, client = s3_uri.split("/")[2], open_probe_client()
    document = render("bucket", bucket=f"arn:aws:s3:::{bucket}", root=ROOT)
    client.put_bucket_policy(Bucket=bucket, Policy=json.dumps(without(document, "OnlyEncryptedConnections")))
    with pytest.raises(client.exceptions.ClientError, match="403"):
        client.put_object(Bucket=bucket, Key=f"{ROOT}v1/datasets/prompts/versions/1.json", Body=b"1", IfNoneMatch="*")
