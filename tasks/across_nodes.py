"""A training over several nodes, as seen by the stage that launches it: a small process without a GPU.

It starts a JobSet whose pods each run the same stage (`flows.node`), and waits. What counts is the result in the store:
a JobSet that failed after it was committed is a success, and one that completed without it is not. The launcher may be
killed at any time: whoever runs the stage again attaches to the JobSet at work. Leaving in order deletes it, and its
pods write a resume point first.
"""

import json
import logging
import os
import time
from collections.abc import Callable
from typing import TypeVar

from tasks.node_progress import ShownProgress
from tasks.schema import ModelRef
from tasks.stage import Session, Stage
from tasks.store import Derivation, Store, StoreUnavailable
from tasks.store.identity import digest
from tasks.training.cluster.api import PODS, Access, Cluster, ClusterAway, ClusterError, Object
from tasks.training.cluster.gang import Gang, State
from tasks.training.cluster.jobset import jobset, jobset_name
from tasks.training.cluster.pods import LEFT, REFUSED
from tasks.training.launch import TrainingDied, TrainingLeft, TrainingRefused

T = TypeVar("T")

LOOK_SECONDS = 10
"""How long the pods are followed between two looks at the store and the JobSet."""
PAUSE_SECONDS = 5
FINISH_SECONDS = 60.0
"""What the nodes have to end by themselves once the result is there: the first removes its resume points."""
STRAGGLERS_SECONDS = 60.0
"""What a JobSet has, beyond its pods' grace, to be told failed after one of its pods has."""

logger = logging.getLogger(__name__)


class Patience:
    """How long the cluster or the store may be away, counted from when they last answered."""

    def __init__(
        self,
        seconds: float,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._seconds, self._sleep, self._monotonic = seconds, sleep, monotonic
        self._since = monotonic()

    def renew(self) -> None:
        self._since = self._monotonic()

    def spend(self, error: Exception) -> None:
        """Wait a little. Raises: the error, where that has been done for long enough."""
        if self._monotonic() - self._since >= self._seconds:
            raise error
        self._sleep(PAUSE_SECONDS)

    def ask(self, question: Callable[[], T]) -> T:
        """The answer, asked for until it comes."""
        while True:
            try:
                answer = question()
            except ClusterAway as error:
                self.spend(error)
            else:
                self.renew()
                return answer


def train_across_nodes(stage: Stage, session: Session, access: Access | None = None) -> ModelRef:
    """Have the stage made by a JobSet's pods, and give the model that they committed.

    `access` is by default this pod's own.

    Raises: TrainingRefused: a node's trainer refused its input. TrainingLeft: the nodes were asked to leave.
    TrainingDied: a node failed, was killed, evicted or preempted, or the JobSet went; says why. ClusterError: the
    cluster refuses. ClusterAway: it was away for too long, and the nodes go on meanwhile.
    """
    derivation, nodes = stage.derivation(session.store), stage.run.training.nodes
    with Cluster(access or Access.in_cluster()) as cluster:
        own_pod = Patience(nodes.away_seconds).ask(lambda: cluster.get(PODS, own_pod_name()))
        gang = Gang(cluster, body_of(stage, session.store, derivation, own_pod))
        try:
            logger.info("JobSet %s of %d nodes: %s", gang.name, gang.num_nodes, gang.start(nodes.away_seconds))
            follow(gang, stage, session, derivation)
            let_end(gang, FINISH_SECONDS)
        finally:
            gang.end()
    ref = stage.result(session.store)
    assert isinstance(ref, ModelRef), "it was there a moment ago, and is held"
    return ref


def own_pod_name() -> str:
    """Kubernetes gives a pod's name to its host."""
    return os.environ.get("HOSTNAME", "")


def body_of(stage: Stage, store: Store, derivation: Derivation, own_pod: Object) -> Object:
    """The JobSet of this stage's version in this store."""
    name = jobset_name(stage.stage, digest([store.uri, derivation.version]))
    about = {"dataset": derivation.dataset, "version": derivation.version, "store": store.uri}
    what = json.dumps({"name": stage.stage, "stage": stage.model_dump(mode="json", exclude_none=True)})
    return jobset(name, what, stage.run.training, own_pod, about)


def follow(gang: Gang, stage: Stage, session: Session, derivation: Derivation) -> None:
    """Return once the result is in the store.

    Raises: TrainingRefused. TrainingLeft. TrainingDied. ClusterError. StoreUnavailable: for too long.
    """
    nodes, store = stage.run.training.nodes, session.store
    patience, failing = Patience(nodes.away_seconds), Patience(nodes.grace_seconds + STRAGGLERS_SECONDS)
    shown = ShownProgress(store, derivation, session.progress)
    while True:
        try:
            if stage.result(store) is not None:
                return
            state = gang.look(LOOK_SECONDS)
            if state != "at work" and stage.result(store) is None:
                raise failure(gang, state, stage, newest_point(store, derivation))
        except (ClusterAway, StoreUnavailable) as error:
            patience.spend(error)
            continue
        patience.renew()
        shown.show(gang.waiting())
        if gang.ends():  # the others are asked to leave, and may be writing their resume point
            failing.spend(failure(gang, "failed", stage, newest_point(store, derivation)))
        else:
            failing.renew()


def let_end(gang: Gang, seconds: float) -> None:
    """Wait for nodes whose work is done, but not for long: the result is in the store."""
    deadline = time.monotonic() + seconds
    try:
        while time.monotonic() < deadline and gang.look(PAUSE_SECONDS) == "at work":
            pass
    except ClusterError as error:
        logger.info("the result is there, and its nodes are left to themselves: %s", error)


def newest_point(store: Store, derivation: Derivation) -> str:
    """Where a rerun goes on, in words."""
    newest = store.checkpoint_newest(derivation.dataset, derivation.version)
    return f"run it again, it goes on from {newest}" if newest else "run it again; it left no resume point"


def failure(gang: Gang, state: State, stage: Stage, rerun: str) -> Exception:
    """What to raise of a JobSet that ended without a result."""
    name, ends = f"{stage.stage}: JobSet {gang.name}", gang.ends()
    if state == "gone":
        return TrainingDied(f"{name} was deleted by somebody else; {rerun}")
    if not ends:
        return TrainingDied(f"{name} {state} without a result ({gang.why_it_ended()}); {rerun}")
    cause = ends[0]
    others = "".join(f"; then node {end.node}: {end.words}" for end in ends[1:])
    if cause.code == REFUSED and not cause.by_cluster:
        return TrainingRefused(cause.words)
    if cause.code == LEFT and not cause.by_cluster:
        return TrainingLeft(f"{name}: node {cause.node}: {cause.words}{others}; {rerun}")
    return TrainingDied(f"{name}: node {cause.node}: {cause.words}{others}; {rerun}")
