"""A bucket on a Ceph under Terraform's policies, and what each role does there: what it needs, and what it must not."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from tasks.schema import Completion
from tasks.store import Derivation, Store, fates
from tasks.store.claims import claim
from tasks.store.identity import rows_to_table
from tasks.store.s3_connection import answer_of, is_request_failure, open_probe_client
from tests.servers.radosgw import radosgw
from tests.servers.radosgw_roles import STS, Roles, acting_as
from tests.terraform_policies import Role, read_roles, render, role_policy, without

BUCKET, PREFIX = "solon-policies", "lab/run"
URI, ROOT = f"s3://{BUCKET}/{PREFIX}", f"{PREFIX}/"
ARN = f"arn:aws:s3:::{BUCKET}"
NOT_ON_RADOSGW = "CommitsOverwriteNothing"
"""Ceph 16 does not know `s3:if-none-match`: under this statement it refuses every create."""

BUCKET_POLICY = without(render("bucket", bucket=ARN, root=ROOT), NOT_ON_RADOSGW)

OPERATOR = "operator"
_ANYTHING = json.dumps(
    {"Version": "2012-10-17", "Statement": [{"Sid": "A", "Effect": "Allow", "Action": "s3:*", "Resource": ["*"]}]}
)
ROLES = read_roles()
DATASETS = sorted({name for role in ROLES.values() for name in role.makes})


class World:
    """The bucket. Versions in it, and roles, are made when they are first asked for."""

    def __init__(self, roles: Roles, folder: Path) -> None:
        self.roles, self.folder = roles, folder
        self._sessions: dict[str, dict[str, str]] = {}
        self._there: set[str] = set()

    def session(self, name: str) -> dict[str, str]:
        """`AWS_*` of a role; OPERATOR may everything that the bucket's policy lets anybody."""
        if name not in self._sessions:
            policy = _ANYTHING if name == OPERATOR else role_policy(ROLES[name], ARN, ROOT)
            self._sessions[name] = self.roles.environment(name, policy)
        return self._sessions[name]

    def open(self) -> Store:
        """The store, as whom this process acts as."""
        return Store.open(URI, self.folder / "cache")

    def fill(self, datasets: Iterable[str]) -> None:
        """Have a version of each of these datasets, made by the operator."""
        with acting_as(self.session(OPERATOR)):
            store = self.open()
            for dataset in set(datasets) - self._there:
                make(store, dataset, OPERATOR, self.folder)
                self._there.add(dataset)

    def condemn(self, datasets: Iterable[str]) -> None:
        """As gc: who looks one of these versions up now must decide that it stays."""
        with acting_as(self.session("gc")):
            backend = self.open().backend
            for dataset in datasets:
                version = derivation(dataset, OPERATOR).version
                fates.condemn(backend, dataset, version, fates.standing(backend, dataset, version))

    def forget(self) -> None:
        """After gc took all versions."""
        self._there.clear()


@contextmanager
def policy_world(folder: Path) -> Iterator[World]:
    """A running one. Raises: infra.debian_tools.Missing: Ceph cannot be had on this machine."""
    with radosgw("memstore", STS) as server:
        world = World(Roles(server), folder)
        with acting_as(world.roles.owner()):
            open_probe_client().create_bucket(Bucket=BUCKET)
            put_bucket_policy(BUCKET_POLICY)
        yield world


def put_bucket_policy(document: dict[str, Any]) -> None:
    """As the bucket's owner."""
    open_probe_client().put_bucket_policy(Bucket=BUCKET, Policy=json.dumps(document))


def derivation(dataset: str, maker: str) -> Derivation:
    return Derivation(
        stage="respond", dataset=dataset, code_version=1, config={"maker": maker}, inputs={}, constitution=None,
        models={}, seed=0, force=None,
    )  # fmt: skip


def rows() -> Any:
    row = Completion(row_id="r", reuse_key="k", prompt_id="p", sample=0, completion="text")
    return rows_to_table([row], Completion)


def make(store: Store, dataset: str, maker: str, folder: Path) -> None:
    """Commit a version of a dataset: rows, or a model of one small file."""
    wanted = derivation(dataset, maker)
    if dataset.startswith("models/"):
        store.commit_model(wanted, model_folder(folder), metrics={}, cost={})
    else:
        store.commit_rows(wanted, rows(), metrics={}, cost={})


def model_folder(folder: Path) -> Path:
    model = folder / "model"
    model.mkdir(exist_ok=True)
    (model / "config.json").write_text("{}")
    return model


def work_as(world: World, name: str) -> None:
    """What a stage does with the store, all of it: hold, read, claim, resume points, commit, let go."""
    role, store = ROLES[name], world.open()
    for dataset in readable(role):
        store.hold(dataset, derivation(dataset, OPERATOR).version)
        read(store, dataset)
    for dataset in role.makes:
        version = derivation(dataset, name).version
        store.hold(dataset, version)
        won = claim(store, dataset, version, name)
        assert won is not None
        with won:
            won.beat()
            store.chunk_put(dataset, version, "0", rows())
            assert store.chunk_get(dataset, version, "0") is not None and store.versions_in_work(dataset)
            if dataset in role.trains:
                train(store, dataset, version, world.folder)
            make(store, dataset, name, world.folder)
        assert store.find(dataset, version) is not None
        store.checkpoint_drop(dataset, version)
    store.release()


def read(store: Store, dataset: str) -> None:
    """Its every byte."""
    manifest = store.manifest(dataset, derivation(dataset, OPERATOR).version)
    if manifest.kind == "model":
        store.fetch_model(manifest.model_ref())
    else:
        assert store.read(manifest.dataset_ref()).num_rows == 1


def train(store: Store, dataset: str, version: str, folder: Path) -> None:
    for step in ("step-1", "step-2", "step-3"):
        store.checkpoint_put(dataset, version, step, model_folder(folder))
    assert store.checkpoint_names(dataset, version) == ["step-2", "step-3"]
    store.checkpoint_fetch(dataset, version, "step-3", folder / f"fetched-{version}")
    store.put_blob(dataset, version, "training.log", b"text")


def readable(role: Role) -> list[str]:
    """Datasets, of those that there are."""
    patterns = (*role.reads, *role.makes)
    return [name for name in DATASETS if any(fnmatchcase(name, pattern) for pattern in patterns)]


def status(call: Callable[..., Any], **arguments: Any) -> int:
    """The HTTP status of a call's answer."""
    try:
        answer = call(Bucket=BUCKET, **arguments)
    except Exception as error:
        if not is_request_failure(error):
            raise
        found = answer_of(error)[1]
        assert found is not None, error
        return found
    return int(answer["ResponseMetadata"]["HTTPStatusCode"])


def forbidden(name: str, datasets: Iterable[str]) -> Iterator[tuple[str, int]]:
    """What the role must not do to these datasets, and the status with which this process, acting as it, was answered.

    Each dataset has a version of the operator's.
    """
    role, client = ROLES[name], open_probe_client()

    def put(key: str) -> tuple[str, int]:
        return f"put {key}", status(client.put_object, Key=f"{ROOT}{key}", Body=b"x", IfNoneMatch="*")

    def delete(key: str) -> tuple[str, int]:
        return f"delete {key}", status(client.delete_object, Key=f"{ROOT}{key}")

    yield put("elsewhere/x")
    yield "policy", status(client.put_bucket_policy, Policy="{}")
    yield "versioning", status(client.put_bucket_versioning, VersioningConfiguration={"Status": "Suspended"})
    for dataset in datasets:
        version, base = derivation(dataset, OPERATOR).version, f"v1/datasets/{dataset}"
        manifest, decided = f"{base}/versions/{version}.json", f"{base}/fates/{version}/0.1.decided.json"
        if dataset not in role.makes:
            yield put(f"{base}/data/{version}/x/part-00000.parquet")
            yield put(f"{base}/versions/{'0' * 32}.json")
            yield put(f"{base}/chunks/{version}/x.parquet")
            yield put(f"v1/claims/{dataset}/{version}/1.json")
        if dataset not in role.trains:
            yield put(f"{base}/checkpoints/{version}/step-1/complete.json")
            yield put(f"{base}/blobs/{version}/x")
        if dataset not in readable(role) and role.policy == "work":
            yield f"get {manifest}", status(client.get_object, Key=f"{ROOT}{manifest}")
            yield put(decided)
        if name != "gc":
            yield delete(manifest)
            yield delete(f"{base}/data/{version}/x/part-00000.parquet")
            yield put(f"{base}/fates/{version}/0.1.condemned.json")
        if name != "publish":
            yield put(f"{base}/tags/prod/9.json")
        yield delete(f"{base}/tags/prod/9.json")
        yield delete(decided)
        yield f"purge {manifest}", status(client.delete_object, Key=f"{ROOT}{manifest}", VersionId="null")
