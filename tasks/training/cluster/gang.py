"""The life of one training's JobSet: created or attached to, looked after, deleted."""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Literal

from tasks.training.cluster.api import (
    JOBSETS,
    PODS,
    AlreadyThere,
    Cluster,
    ClusterAway,
    ClusterError,
    Expired,
    NotThere,
    Object,
)
from tasks.training.cluster.jobset import OF_JOBSET, is_suspended, terminal_state, why_it_ended
from tasks.training.cluster.pods import End, ends, waiting

PAUSE_SECONDS = 2.0
"""Between two tries."""
LAST_WORDS_SECONDS = 2
"""How long pods are followed once one has failed: the cause may be told after what came of it."""
DELETE_SECONDS = 8.0
"""After so long no further try is made to delete: a launcher that is asked to leave has about 20 s (`flows.watch`)."""

logger = logging.getLogger(__name__)

State = Literal["at work", "completed", "failed", "gone"]


class Gang:
    """One JobSet by name. Nothing of it is remembered elsewhere, so another launcher can take over at any time."""

    def __init__(
        self,
        cluster: Cluster,
        body: Object,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name: str = body["metadata"]["name"]
        self.num_nodes: int = body["spec"]["replicatedJobs"][0]["template"]["spec"]["completions"]
        self._cluster, self._body = cluster, body
        self._sleep, self._monotonic = sleep, monotonic
        self._uid: str | None = None
        self._pods: dict[str, Object] = {}
        self._version: str | None = None
        """From which the watch goes on; None: list first."""
        self._ended = ""
        self._suspended = False

    def start(self, patience: float) -> Literal["created", "attached"]:
        """Create it, or take over the one at work; one that ended, or is going, is waited for and made anew.

        Raises: ClusterAway: for longer than `patience` seconds. ClusterError: the cluster refuses, or the old one
        does not go for as long.
        """
        deadline, reason = self._monotonic() + patience, ""
        while True:
            try:
                found = self._create_or_find()
            except ClusterAway as error:
                found, reason = None, str(error)
            else:
                reason = f"JobSet {self.name} is being deleted and does not go; look at its pods and finalizers"
            if found:
                how, there = found
                self._uid = there["metadata"]["uid"]
                return how
            if self._monotonic() >= deadline:
                raise ClusterAway(f"{reason}; gave up after {patience:.0f} s")
            self._sleep(PAUSE_SECONDS)

    def _create_or_find(self) -> tuple[Literal["created", "attached"], Object] | None:
        """None: one that may not be attached to is in the way, still."""
        try:
            return "created", self._cluster.create(JOBSETS, self._body)
        except AlreadyThere:
            with suppress(NotThere, AlreadyThere):
                there = self._cluster.get(JOBSETS, self.name)
                if "deletionTimestamp" in there["metadata"]:
                    return None
                if not terminal_state(there):
                    return "attached", there
                logger.info("JobSet %s ended before (%s); it is made anew", self.name, why_it_ended(there))
                self._cluster.delete(JOBSETS, self.name, there["metadata"]["uid"])
            return None

    def look(self, seconds: int) -> State:
        """Follow the pods for so many seconds, or until one has failed; then what the JobSet says.

        Raises: ClusterAway. ClusterError.
        """
        self._follow_pods(LAST_WORDS_SECONDS if self.ends() else seconds)
        try:
            found = self._cluster.get(JOBSETS, self.name)
        except NotThere:
            return "gone"
        if found["metadata"]["uid"] != self._uid or "deletionTimestamp" in found["metadata"]:
            return "gone"
        self._suspended = is_suspended(found)
        self._ended = why_it_ended(found)
        state = terminal_state(found)
        if state:
            self._follow_pods(LAST_WORDS_SECONDS)
        return "completed" if state == "Completed" else "failed" if state else "at work"

    def _follow_pods(self, seconds: int) -> None:
        if self._version is None:
            listed, self._version = self._cluster.list(PODS, f"{OF_JOBSET}={self.name}")
            for pod in listed:
                self._take(pod)
        had_failed = bool(self.ends())
        try:
            for kind, pod in self._cluster.watch(PODS, f"{OF_JOBSET}={self.name}", self._version, seconds):
                self._version = str(pod["metadata"]["resourceVersion"])
                if kind != "BOOKMARK":
                    self._take(pod)  # a deleted one as it was last: that says why it went
                if self.ends() and not had_failed:
                    return
        except Expired:
            self._version = None

    def _take(self, pod: Object) -> None:
        self._pods[pod["metadata"]["uid"]] = pod

    def ends(self) -> list[End]:
        """The pods that failed, the most likely cause first."""
        return ends(self._pods.values())

    def why_it_ended(self) -> str:
        """What the JobSet itself said of its end, when it was looked at."""
        return self._ended

    def waiting(self) -> str:
        """Why not all nodes run yet; empty where they do."""
        if self._suspended:
            return "waits in its queue until there is room for all nodes"
        return waiting(list(self._pods.values()), self.num_nodes)

    def end(self) -> None:
        """Delete it with its pods, which are asked to leave. One that cannot be deleted is named in the log.

        It then stays until its training has ended, `kept_seconds` more, or until a rerun takes it over.
        """
        deadline = self._monotonic() + DELETE_SECONDS
        while True:
            try:
                self._cluster.delete(JOBSETS, self.name, self._uid)
                return
            except (NotThere, AlreadyThere):
                return
            except ClusterError as error:
                if not isinstance(error, ClusterAway) or self._monotonic() >= deadline:
                    logger.warning("JobSet %s was not deleted, it goes on by itself: %s", self.name, error)
                    return
            self._sleep(PAUSE_SECONDS)
