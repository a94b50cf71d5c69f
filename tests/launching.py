"""A launcher of a training over nodes as a process of its own: `python -m tests.launching SERVER TOKENFILE STORE`.

As under Prefect, SIGTERM becomes an exception where the work is.
"""

import signal
import sys
from pathlib import Path
from typing import Any, ClassVar

from tasks import across_nodes
from tasks.schema import ModelRef
from tasks.stage import RunContext, Session, Stage
from tasks.store import Store
from tasks.training.cluster.api import Access
from tasks.training.launch_config import LaunchConfig
from tasks.training.nodes_config import NodesConfig
from tests.servers.kubernetes_api import NAMESPACE

LAUNCH = LaunchConfig(tracker="none", num_processes=4, nodes=NodesConfig(num_nodes=2, away_seconds=30, grace_seconds=5))


class SomeStage(Stage):
    """A stage that nodes make."""

    stage: ClassVar[str] = "held_out_reward"
    dataset: ClassVar[str] = "models/held_out_reward"
    code_version: ClassVar[int] = 1

    def make(self, session: Session) -> ModelRef:
        raise AssertionError("the launcher makes nothing itself")


def some_stage(launch: LaunchConfig = LAUNCH, **run: Any) -> SomeStage:
    return SomeStage(run=RunContext(training=launch, **run))


def main(server: str, token_file: str, store: str) -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    across_nodes.LOOK_SECONDS = 1
    access = Access(server, NAMESPACE, Path(token_file), None)
    ref = across_nodes.train_across_nodes(some_stage(), Session(Store.open(store, Path(store, "cache"))), access)
    print(ref.version)


if __name__ == "__main__":
    main(*sys.argv[1:])
