"""A training over two machines: `python -m tests.faults.two_nodes --kind reward`, as root, on Linux. Minutes.

Two network namespaces on a wire are the machines, `tests.servers.kubernetes_api` is the cluster, and a small
kubelet runs a JobSet's pods there: `flows.node`, torchrun, gloo. The stage goes the whole way, from the launcher to the
model that is committed. Then, in a store of its own for each:

    alone      one process, one machine: what all others are measured by
    whole      two machines: near that, by rounding; and no JobSet, pod or process stays
    killed     the second machine loses all its processes after a resume point: the stage says so, the first one does
               not wait for ever, and a rerun goes on from the store's resume point to the bytes of `whole`
    vanished   the same where its wire is cut: nobody is told, so the time limit of an exchange ends it
    cancelled  the stage is told to go: both machines leave in order and write a resume point, from which a rerun ends
               in the bytes of `whole`

Prints a line each and a verdict; exit code 1 where something was not so.
"""

import argparse
import logging
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

from tasks import across_nodes
from tasks.reward import RewardStage
from tasks.rl import RLStage
from tasks.schema import Message, ModelRef, Preference, Prompt
from tasks.stage import RunContext, Session, Stage
from tasks.store import Store
from tasks.store.identity import rows_to_table
from tasks.training.cluster.api import Access
from tasks.training.config import RewardConfig
from tasks.training.launch import TrainingDied
from tasks.training.launch_config import LaunchConfig
from tasks.training.nodes_config import NodesConfig
from tasks.training.rl_config import PPOConfig, RLConfig
from tests.servers.kubelet import INTERFACE, MACHINES, Kubelet, Refused, kill_all, machines, pull_plug
from tests.servers.kubernetes_api import NAMESPACE, TOKEN, KubernetesApi, kubernetes_api
from tests.small_versions import derivation

Kind = Literal["reward", "ppo"]
TOLERANCE = {"reward": 1e-5, "ppo": 1e-4}
"""Absolute, of weights, as between two processes of one machine (tests/test_training_{processes,ppo_ranks})."""
EXCHANGE_SECONDS = 20
PATIENCE_SECONDS = 240.0
"""By when a training whose machine is gone must have ended, whatever else this machine is doing."""

REWARD = RewardConfig(
    epochs=30, learning_rate=1e-4, batch_size=16, micro_batch_size=4, max_tokens=64, held_out_fraction=0,
    checkpoint_every=10,
)  # fmt: skip
PPO = PPOConfig(
    num_updates=12, batch_size=8, mini_batch_size=4, micro_batch_size=2, num_epochs=2, learning_rate=1e-4,
    value_learning_rate=1e-4, kl_coef=0.1, max_tokens=6, checkpoint_every=2, eval_every=4, eval_prompts=1,
)  # fmt: skip
ONE = LaunchConfig(tracker="none", device_memory_gib=4)
TWO = LaunchConfig(
    tracker="none",
    device_memory_gib=4,
    grace_seconds=60,
    nodes=NodesConfig(
        num_nodes=2, gpu_resource="", network_interface=INTERFACE, join_seconds=180, exchange_seconds=EXCHANGE_SECONDS,
        grace_seconds=120,
    ),
)  # fmt: skip


@dataclass
class World:
    """A cluster, and the trainings in it."""

    api: KubernetesApi
    kubelet: Kubelet
    folder: Path
    kind: Kind

    def store(self, name: str) -> Store:
        return Store.open(str(self.folder / name / "store"), self.folder / name / "cache")

    def stage(self, store: Store, launch: LaunchConfig) -> Stage:
        """The same version in every store, however it is launched."""
        run = RunContext(store=store.uri, training=launch)
        return make_stage(self.kind, store, run, self.folder / "base")

    def train(self, name: str, launch: LaunchConfig) -> ModelRef:
        store = self.store(name)
        access = Access(self.api.server, NAMESPACE, self.folder / "token", None)
        with patch.object(Access, "in_cluster", lambda: access):
            made = self.stage(store, launch).make(Session(store))
        assert isinstance(made, ModelRef)
        return made

    def points(self, name: str) -> list[str]:
        store = self.store(name)
        where = self.stage(store, TWO).derivation(store)
        return store.checkpoint_names(where.dataset, where.version)


def make_stage(kind: Kind, store: Store, run: RunContext, base: Path) -> Stage:
    from tasks.training.folders import load_scalar_model, save_model, write_json
    from tests.tiny_model import make_tiny_model

    if not base.exists():
        make_tiny_model(base)
    policy = store.commit_model(derivation("models/sl"), base, metrics={}, cost={})
    if kind == "reward":
        ref = store.commit_rows(
            derivation("preferences"), rows_to_table(preferences(), Preference), metrics={}, cost={}
        )
        return RewardStage(run=run, preferences=ref, policy=policy, config=REWARD)
    reward = base.with_name("reward")
    if not reward.exists():
        import torch

        torch.manual_seed(1)
        save_model(load_scalar_model(base), base, reward, "float32")
        write_json(reward / "reward_scale.json", {"mean": 0.0, "std": 0.1})
    judge = store.commit_model(derivation("models/reward"), reward, metrics={}, cost={})
    ref = store.commit_rows(derivation("prompts"), rows_to_table(prompts(), Prompt), metrics={}, cost={})
    return RLStage(run=run, prompts=ref, policy=policy, reward=judge, config=RLConfig(ppo=PPO))


def user(text: str) -> list[Message]:
    return [Message(role="user", content=text)]


def preferences() -> list[Preference]:
    """41 rows: the last batch of a pass is no multiple of anything."""
    return [
        Preference(
            row_id=f"r{i}", reuse_key=f"k{i}", prompt_id=f"p{i}", prompt=user(f"say {i}"), chosen="a" * (1 + i % 3),
            rejected="b", target_prob=0.6, weight=1 + i % 2, origin="ai",
        )
        for i in range(41)
    ]  # fmt: skip


def prompts() -> list[Prompt]:
    return [
        Prompt(
            row_id=f"r{i}", reuse_key=f"k{i}", prompt_id=f"p{i}", kind="helpful",
            messages=user("go" * (1 + i % 3) + str(i)), source="1", split="train",
        )
        for i in range(12)
    ]  # fmt: skip


def weights(store: Store, ref: ModelRef) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(store.fetch_model(ref) / "model.safetensors")


def farthest(one: dict[str, Any], other: dict[str, Any]) -> float:
    """The largest difference of a weight."""
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def check(world: World, cases: list[str], tell: Callable[[str], None]) -> list[str]:
    """What was not as it should be."""
    found: list[str] = []
    alone, base = world.train("alone", ONE), world.store("alone")
    policy = base.find("models/sl", derivation("models/sl").version)
    assert policy
    one, start = weights(base, alone), weights(base, policy.model_ref())
    moved = max(float((one[name] - start[name]).abs().max()) for name in one.keys() & start.keys())
    whole = world.train("whole", TWO)
    if whole.version != alone.version:
        found.append("whole: the number of nodes entered the version")
    off = farthest(one, weights(world.store("whole"), whole))
    tell(f"whole: weights differ from one process's by up to {off:.2g}, of up to {moved:.2g} that they moved")
    if not off <= TOLERANCE[world.kind] < moved:
        found.append(f"whole: expected at most {TOLERANCE[world.kind]}, and less than they moved")
    found += orphans(world, "whole")
    for name in cases:
        found += [f"{name}: {text}" for text in CASES[name](world, name, whole, tell)]
        found += orphans(world, name)
    return found


def lost_machine(
    world: World, name: str, whole: ModelRef, tell: Callable[[str], None], lose: Callable[[], None]
) -> Iterator[str]:
    lost_at: list[float] = []

    def act() -> None:
        lost_at.append(time.monotonic())
        lose()

    with after_a_resume_point(world, name, act):
        try:
            world.train(name, TWO)
        except TrainingDied as error:
            told = str(error)
        else:
            yield "the training ended well without its machine"
            return
    took, points = time.monotonic() - lost_at[0], world.points(name)
    tell(f"{name}: {took:.0f} s later, with {points}: {told[:300]}")
    if took > PATIENCE_SECONDS:
        yield f"it took {took:.0f} s to end"
    yield from goes_on(world, name, whole, points, tell)


def killed(world: World, name: str, whole: ModelRef, tell: Callable[[str], None]) -> Iterator[str]:
    yield from lost_machine(world, name, whole, tell, lambda: kill_all(MACHINES[1]))


def vanished(world: World, name: str, whole: ModelRef, tell: Callable[[str], None]) -> Iterator[str]:
    yield from lost_machine(world, name, whole, tell, lambda: pull_plug(MACHINES[1]))
    pull_plug(MACHINES[1], plugged=True)


def cancelled(world: World, name: str, whole: ModelRef, tell: Callable[[str], None]) -> Iterator[str]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # one started in the background ignores it
    with after_a_resume_point(world, name, lambda: os.kill(os.getpid(), signal.SIGINT)):
        try:
            world.train(name, TWO)
        except KeyboardInterrupt:
            told = "the stage left"
        else:
            yield "the training was not cancelled"
            return
        finally:
            signal.signal(signal.SIGINT, before)
    yield from orphans(world, name)
    points = world.points(name)
    tell(f"{name}: {told}, with {points}")
    if int(points[-1].removeprefix("step-")) % (REWARD if world.kind == "reward" else PPO).checkpoint_every == 0:
        tell(f"{name}: its last resume point may be one that was due")
    yield from goes_on(world, name, whole, points, tell)


CASES: dict[str, Callable[[World, str, ModelRef, Callable[[str], None]], Iterator[str]]] = {
    "killed": killed,
    "vanished": vanished,
    "cancelled": cancelled,
}


def goes_on(world: World, name: str, whole: ModelRef, points: list[str], tell: Callable[[str], None]) -> Iterator[str]:
    """A rerun starts at the newest resume point and ends where the uninterrupted training did."""
    pull_plug(MACHINES[1], plugged=True)
    if not points:
        yield "it left no resume point"
        return
    ref, store = world.train(name, TWO), world.store(name)
    log = store.get_blob(ref.model, ref.version, "training.log").decode()
    steps = [int(line.split("'step': ")[1].split(",")[0]) for line in log.splitlines() if line.startswith("{'step':")]
    off = farthest(weights(world.store("whole"), whole), weights(store, ref))
    same = ref.content_hash == whole.content_hash
    tell(f"{name}: the rerun made steps {steps[0]} to {steps[-1]}; {'the same bytes' if same else f'off by {off:.2g}'}")
    if steps[0] != int(points[-1].removeprefix("step-")) + 1:
        yield f"it did not go on from {points[-1]}"
    if not same:
        yield f"its weights differ from the uninterrupted ones by {off:.2g}"


@contextmanager
def after_a_resume_point(world: World, name: str, act: Callable[[], object]) -> Iterator[None]:
    """Do it once the store has a resume point of this training."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            if world.points(name):
                act()
                return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def orphans(world: World, name: str) -> Iterator[str]:
    """What stays when it should not: asked until the pods' grace is over."""
    deadline = time.monotonic() + TWO.nodes.grace_seconds
    while world.kubelet.living() and time.monotonic() < deadline:
        time.sleep(0.2)
    if world.api.jobsets():
        yield f"{name}: its JobSet is still there"
    if world.kubelet.living():
        yield f"{name}: {world.kubelet.living()} pods still live"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.two_nodes", description=__doc__)
    parser.add_argument("--kind", choices=["reward", "ppo"], default="reward")
    parser.add_argument("--cases", nargs="*", choices=list(CASES), default=list(CASES))
    parser.add_argument("--keep", type=Path, help="a new folder for stores and logs, which stays")
    options = parser.parse_args()
    os.environ["HOSTNAME"] = "launcher-0"
    logging.basicConfig(level=logging.WARNING)
    across_nodes.LOOK_SECONDS = 1
    with tempfile.TemporaryDirectory(prefix="solon-two-nodes-") as scratch:
        folder = options.keep or Path(scratch)
        folder.mkdir(exist_ok=True)
        found = run(options.kind, options.cases, folder, lambda text: print(text, flush=True))
    for text in found:
        print(text)
    print(f"verdict: {options.kind}: {len(found)} faults")
    return bool(found)


def run(kind: Kind, cases: list[str], folder: Path, tell: Callable[[str], None]) -> list[str]:
    """The whole check. Raises: Refused: no network namespaces here."""
    (folder / "token").write_text(TOKEN)
    own_pod = {"metadata": {}, "spec": {"containers": [{"name": "stage", "image": "solon"}]}}
    with machines(), kubernetes_api() as api, Kubelet(api, folder / "pods") as kubelet:
        api.put("pods", "launcher-0", own_pod)
        return check(World(api, kubelet, folder, kind), cases, tell)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Refused as error:
        sys.exit(f"{error}; network namespaces want root and Linux")
