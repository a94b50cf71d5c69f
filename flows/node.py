"""One machine of a training over several: what a pod of its JobSet runs (`python -m flows.node`).

It makes the stage that it is given, from the store like any process that makes one; the first node commits the result,
and the others have ended well once that is there. It knows nothing of Prefect's server: whoever launched it does.

    SOLON_STAGE             the stage, as JSON
    JOB_COMPLETION_INDEX    which of the nodes this is, as Kubernetes says it to pods of an Indexed Job
"""

import argparse
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from tasks.node_progress import StoredProgress
from tasks.reward import HeldOutRewardStage, RewardStage
from tasks.rl import RLStage
from tasks.schema import ModelRef
from tasks.sft import SFTStage
from tasks.stage import NoProgress, Session, Stage, hold_inputs
from tasks.store import Store
from tasks.training.cluster.jobset import STAGE_VARIABLE
from tasks.training.cluster.pods import LEFT, REFUSED
from tasks.training.launch import TrainingLeft, TrainingRefused
from tasks.training.nodes_config import Node

MESSAGE_BYTES = 4096
"""What Kubernetes keeps of a container's last words."""
STAGES: dict[str, type[Stage]] = {kind.stage: kind for kind in (SFTStage, RewardStage, HeldOutRewardStage, RLStage)}

logger = logging.getLogger(__name__)


def make(stage: Stage, node: Node) -> None:
    """Make the stage as this node. Raises: what the stage raises."""
    store = Store.open(stage.run.store)
    derivation = stage.derivation(store)
    progress = StoredProgress(store, derivation) if node.rank == 0 else NoProgress()
    try:
        hold_inputs(store, derivation)  # the launcher may be dead
        ref = stage.result(store) or stage.make(Session(store, progress=progress, node=node))
    finally:
        store.release()
    assert isinstance(ref, ModelRef)
    logger.info("node %d: %s is there", node.rank, ref.version)


def read_stage(text: str) -> Stage:
    """The stage that the launcher wrote down. Raises: ValueError: it is none of those that train."""
    said = json.loads(text)
    if said["name"] not in STAGES:
        raise ValueError(f"{STAGE_VARIABLE} names the stage {said['name']!r}, expected one of {', '.join(STAGES)}")
    return STAGES[said["name"]].model_validate(said["stage"])


def last_words(error: BaseException) -> tuple[int, str]:
    """Exit code, and what the launcher should hear."""
    if isinstance(error, TrainingRefused):
        return REFUSED, str(error)
    if isinstance(error, TrainingLeft | SystemExit):
        return LEFT, str(error)
    return 1, f"{type(error).__name__}: {error}"


def leave(*_: object) -> NoReturn:
    """End the stage's work in order: its training writes a resume point, which goes to the store."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit("this node was asked to leave")


def await_name(address: str, seconds: float, sleep: Callable[[float], None] = time.sleep) -> None:
    """Wait until the first node's name is known: its pod may come after ours.

    Raises: TimeoutError.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.getaddrinfo(address, None)
            return
        except socket.gaierror as error:
            if time.monotonic() >= deadline:
                raise TimeoutError(
                    f"the first node's name {address} is unknown for {seconds:.0f} s ({error}): its pod did not start"
                ) from None
        sleep(1.0)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m flows.node", description=__doc__)
    parser.add_argument("--address", required=True, help="of the first node")
    parser.add_argument("--message", type=Path, required=True, help="file for the last words")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    signal.signal(signal.SIGTERM, leave)
    try:
        stage = read_stage(os.environ[STAGE_VARIABLE])
        await_name(given.address, stage.run.training.nodes.join_seconds)
        make(stage, Node(rank=int(os.environ["JOB_COMPLETION_INDEX"]), address=given.address))
    except BaseException as error:  # the border: whoever launched the nodes must learn why, the log has the traceback
        logger.exception("this node failed")
        code, words = last_words(error)
        given.message.write_bytes(words.encode()[:MESSAGE_BYTES])
        return code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
