"""The launcher of a training over nodes, against an API server that can fail as a real one does."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks import across_nodes
from tasks.across_nodes import train_across_nodes
from tasks.stage import Session
from tasks.store import Store
from tasks.training.cluster import gang
from tasks.training.cluster.api import Access, ClusterAway, ClusterError
from tasks.training.cluster.pods import LEFT, REFUSED
from tasks.training.launch import TrainingDied, TrainingLeft, TrainingRefused
from tests.launching import LAUNCH, some_stage
from tests.memory_backend import MemoryBackend
from tests.servers.kubernetes_api import AWAY, NAMESPACE, TOKEN, KubernetesApi, kubernetes_api
from tests.small_versions import model_folder

ROOT = Path(__file__).parents[1]
OWN_POD = {"metadata": {}, "spec": {"containers": [{"name": "prefect-job", "image": "solon:1"}]}}


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[KubernetesApi]:
    monkeypatch.setenv("HOSTNAME", "launcher-0")
    monkeypatch.setattr(across_nodes, "PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(across_nodes, "FINISH_SECONDS", 0.1)
    monkeypatch.setattr(across_nodes, "LOOK_SECONDS", 1)
    monkeypatch.setattr(gang, "PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(gang, "DELETE_SECONDS", 0.5)
    monkeypatch.setattr(gang, "LAST_WORDS_SECONDS", 1)
    with kubernetes_api() as api:
        api.put("pods", "launcher-0", OWN_POD)
        yield api


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(MemoryBackend(), tmp_path / "cache")  # type: ignore[arg-type]


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(TOKEN)
    return path


class Shown:
    """Keeps what was shown as progress."""

    def __init__(self) -> None:
        self.said: list[tuple[int, int, str]] = []
        self.error: BaseException | None = None

    def update(self, done: int, total: int, note: str) -> None:
        self.said.append((done, total, note))
        if self.error:
            raise self.error

    def rows(self, rows: Any, items: Any) -> None:
        raise AssertionError("a training makes no rows")

    def trained(self, kind: str, metrics: Any) -> None:
        return None


class Launching:
    """A launcher at work in a thread."""

    def __init__(self, api: KubernetesApi, store: Store, token: Path, launch=LAUNCH) -> None:
        self.shown, self.outcome = Shown(), list[Any]()
        self._session = Session(store, progress=self.shown)
        self._stage, self._access = some_stage(launch), Access(api.server, NAMESPACE, token, None)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.outcome.append(train_across_nodes(self._stage, self._session, self._access))
        except BaseException as error:
            self.outcome.append(error)

    def end(self) -> Any:
        """What it returned; what it raised is raised."""
        self._thread.join(60)
        assert self.outcome, "the launcher is still at work"
        if isinstance(self.outcome[0], BaseException):
            raise self.outcome[0]
        return self.outcome[0]


def started(api: KubernetesApi, watches: int = 1) -> str:
    """The name of the JobSet, once its pods are watched."""
    assert api.wait_for(lambda: api.asked["watch pods"] >= watches)
    return api.jobsets()[0]["metadata"]["name"]


def commit(store: Store, folder: Path) -> str:
    """As the first node does."""
    return store.commit_model(
        some_stage().derivation(store), model_folder(folder / "made"), metrics={}, cost={}
    ).version


def test_launcher_waits_for_the_result_in_the_store_and_deletes_the_jobset(api, store, token, tmp_path):
    launching = Launching(api, store, token)
    name = started(api)
    api.add_pods(name)
    version = commit(store, tmp_path)
    assert launching.end().version == version
    assert not api.jobsets() and api.asked["create jobsets"] == 1 == api.asked["delete jobsets"]


def test_launcher_result_counts_and_not_that_the_jobset_failed_after_it(api, store, token, tmp_path):
    launching = Launching(api, store, token)
    name = started(api)
    version = commit(store, tmp_path)
    api.end_pod(api.add_pods(name)[1], 1, message="lost the first node while it ended")
    api.end_jobset(name, "Failed")
    assert launching.end().version == version


def test_launcher_jobset_that_completes_without_a_result_is_a_failure(api, store, token):
    launching = Launching(api, store, token)
    api.end_jobset(started(api), "Completed", "jobset completed")
    with pytest.raises(TrainingDied, match=r"completed without a result .*; run it again; it left no resume point"):
        launching.end()
    assert not api.jobsets()


def test_launcher_watch_that_is_cut_and_forgotten_is_taken_up_by_listing_again(api, store, token, tmp_path):
    launching = Launching(api, store, token)
    name = started(api)
    pods = api.add_pods(name)
    for cut in range(2):
        api.cut_watches()
        started(api, watches=2 + cut)
    api.forget()
    api.cut_watches()
    assert api.wait_for(lambda: api.asked["list pods"] >= 2)
    started(api, watches=4)
    api.end_pod(pods[1], 137, "OOMKilled")
    api.end_jobset(name, "Failed")
    with pytest.raises(TrainingDied, match=r"node 1: OOMKilled: .*memory_gib"):
        launching.end()


def test_launcher_pod_that_failed_while_no_watch_was_open_is_found(api, store, token):
    launching = Launching(api, store, token)
    name = started(api)
    pods = api.add_pods(name)
    api.away = True
    api.cut_watches()
    api.end_pod(pods[0], 1, message="RuntimeError: nan")
    api.end_jobset(name, "Failed")
    api.away = False
    with pytest.raises(TrainingDied, match="node 0: RuntimeError: nan"):
        launching.end()


def test_launcher_preempted_pod_is_named_as_the_cause_and_where_a_rerun_goes_on(api, store, token, tmp_path):
    derivation = some_stage().derivation(store)
    store.checkpoint_put(derivation.dataset, derivation.version, "step-00000040", model_folder(tmp_path / "point"))
    launching = Launching(api, store, token)
    name = started(api)
    first, second = api.add_pods(name)
    disrupted = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "message": "by x"}
    api.end_pod(first, 1, message="RuntimeError: Connection closed by peer")
    api.end_pod(second, 75, "Error", "asked to leave", conditions=[disrupted])
    api.end_jobset(name, "Failed")
    words = (
        r"node 1: was preempted by a pod of higher priority .*; then node 0: .*closed by peer; .* from step-00000040"
    )
    with pytest.raises(TrainingDied, match=words):
        launching.end()
    assert not api.jobsets()


@pytest.mark.parametrize(("code", "kind"), [(REFUSED, TrainingRefused), (LEFT, TrainingLeft), (1, TrainingDied)])
def test_launcher_raises_what_the_node_raised(api, store, token, code, kind):
    launching = Launching(api, store, token)
    name = started(api)
    api.end_pod(api.add_pods(name)[0], code, message="lower micro_batch_size")
    api.end_jobset(name, "Failed")
    with pytest.raises(kind, match="lower micro_batch_size"):
        launching.end()


def test_launcher_jobset_deleted_by_somebody_is_an_error_that_says_so(api, store, token):
    launching = Launching(api, store, token)
    api.let_go(started(api))
    with pytest.raises(TrainingDied, match="was deleted by somebody else"):
        launching.end()


def test_launcher_survives_an_api_that_is_away_refuses_a_stale_token_or_answers_500(api, store, token, tmp_path):
    api.faults = [500, AWAY, 503, 429]
    api.token = "rotated"
    launching = Launching(api, store, token)
    assert api.wait_for(lambda: not api.faults)
    token.write_text("rotated")
    name = started(api)
    api.away = True
    api.cut_watches()
    threading.Timer(0.3, lambda: setattr(api, "away", False)).start()
    started(api, watches=2)
    assert api.jobsets()[0]["metadata"]["name"] == name
    version = commit(store, tmp_path)
    assert launching.end().version == version and api.asked["create jobsets"] == 1


def test_launcher_lost_answer_to_the_creation_attaches_to_what_was_created(api, store, token, tmp_path):
    """The request arrived and its answer did not: the next try meets a JobSet of that name, its own."""
    first = Launching(api, store, token)
    name = started(api)
    second = Launching(api, store, token)
    started(api, watches=2)
    assert [found["metadata"]["name"] for found in api.jobsets()] == [name] and api.asked["create jobsets"] == 1
    version = commit(store, tmp_path)
    assert {first.end().version, second.end().version} == {version}


def test_launcher_api_away_for_too_long_is_an_error_and_a_result_meanwhile_is_none(api, store, token, tmp_path):
    impatient = LAUNCH.model_copy(update={"nodes": LAUNCH.nodes.model_copy(update={"away_seconds": 1})})
    launching = Launching(api, store, token, impatient)
    started(api)
    api.away = True
    api.cut_watches()
    with pytest.raises(ClusterAway, match="does not answer"):
        launching.end()
    assert len(api.jobsets()) == 1, "nothing that cannot be reached is given up"
    api.away = False
    again = Launching(api, store, token)
    started(api, watches=2)
    api.away = True
    version = commit(store, tmp_path)
    assert again.end().version == version


@pytest.mark.parametrize(
    ("verb", "plural", "group"),
    [("create", "jobsets", "jobset.x-k8s.io"), ("get", "jobsets", "jobset.x-k8s.io"), ("list", "pods", "core"),
     ("watch", "pods", "core"), ("get", "pods", "core")],
)  # fmt: skip
def test_launcher_missing_permission_is_named_and_nothing_stays(api, store, token, verb, plural, group):
    api.forbidden = {(verb, plural)}
    with pytest.raises(ClusterError, match=rf"the verb {verb} on {plural} of API group .*{group}") as refused:
        Launching(api, store, token).end()
    assert not isinstance(refused.value, ClusterAway) and not api.jobsets()


def test_launcher_cluster_without_jobsets_is_told_what_to_install(api, store, token):
    api.without = {"jobsets"}
    with pytest.raises(ClusterError, match="install the JobSet controller"):
        Launching(api, store, token).end()


def test_launcher_jobset_that_ended_before_or_is_being_deleted_is_made_anew(api, store, token, tmp_path):
    first = Launching(api, store, token)
    name = started(api)
    api.forbidden = {("delete", "jobsets")}
    api.end_jobset(name, "Failed", "an earlier launcher was killed then")
    with pytest.raises(TrainingDied):
        first.end()
    api.forbidden, api.holds_deleted = set(), True
    (old,) = api.jobsets()
    second = Launching(api, store, token)
    assert api.wait_for(lambda: api.asked["delete jobsets"] == 1)
    api.let_go(name)
    assert api.wait_for(lambda: api.asked["create jobsets"] == 2)
    api.holds_deleted = False
    assert [found["metadata"]["uid"] for found in api.jobsets()] != [old["metadata"]["uid"]]
    commit(store, tmp_path)
    second.end()
    assert not api.jobsets()


def test_launcher_that_is_told_to_go_while_it_works_deletes_the_jobset(api, store, token):
    launching = Launching(api, store, token)
    name = started(api)
    launching.shown.error = KeyboardInterrupt()
    api.add_pods(name, "Pending")
    with pytest.raises(KeyboardInterrupt):
        launching.end()
    assert not api.jobsets()


def test_launcher_shows_what_is_waited_for_and_then_the_progress_of_the_first_node(api, store, token, tmp_path):
    from tasks.node_progress import StoredProgress

    launching = Launching(api, store, token)
    name = started(api)
    api.add_pods(name, "Pending")
    assert api.wait_for(lambda: "node 1: starts" in str(launching.shown.said))
    progress = StoredProgress(store, some_stage().derivation(store))
    progress.update(3, 8, "loss 0.5")
    progress.trained("reward", {"history": [{"step": 3, "loss": 0.5}]})
    assert api.wait_for(lambda: (3, 8, "loss 0.5") in launching.shown.said)
    commit(store, tmp_path)
    launching.end()


def launcher(api: KubernetesApi, token: Path, store: Path) -> "subprocess.Popen[str]":
    environment = os.environ | {"HOSTNAME": "launcher-0"}
    argv = [sys.executable, "-m", "tests.launching", api.server, str(token), str(store)]
    return subprocess.Popen(argv, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)


def test_launcher_killed_is_followed_by_one_that_attaches_and_sigterm_deletes(api, token, tmp_path):
    with launcher(api, token, tmp_path / "store") as first:
        started(api)
        first.kill()
    (there,) = api.jobsets()
    with launcher(api, token, tmp_path / "store") as second:
        started(api, watches=api.asked["watch pods"] + 1)
        assert api.jobsets()[0]["metadata"]["uid"] == there["metadata"]["uid"] and api.asked["create jobsets"] == 1
        second.send_signal(signal.SIGTERM)
    assert second.returncode != 0 and not api.jobsets()
