"""One training on several machines: what is started on each, and what may not depend on their number."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from flows.node import last_words, read_stage
from tasks import train
from tasks.stage import RunContext, Session
from tasks.store import Store
from tasks.train import check_batch, committed_by_first
from tasks.training import child
from tasks.training.cluster.pods import LEFT, REFUSED
from tasks.training.config import SFTConfig
from tasks.training.job import TrainingJob
from tasks.training.launch import TrainingDied, TrainingLeft, TrainingRefused
from tasks.training.launch_command import child_environment, command
from tasks.training.launch_config import LaunchConfig
from tasks.training.nodes_config import Node, NodesConfig
from tasks.training.rl_config import PPOConfig
from tasks.training.trl_trainer import accumulation
from tests.launching import some_stage
from tests.memory_backend import MemoryBackend
from tests.small_versions import model_folder

NODES = NodesConfig(num_nodes=4, port=29511, network_interface="eth1", nccl_debug="INFO", join_seconds=77)
SECOND = Node(rank=1, address="solon-sft-0-node-0-0.solon-sft-0")


def test_nodes_are_told_to_torchrun_as_its_own_parser_reads_it():
    from torch.distributed.run import config_from_args, get_args_parser

    argv = command(Path("job.json"), LaunchConfig(num_processes=8, nodes=NODES), SECOND)
    assert argv[1:3] == ["-m", "torch.distributed.run"]
    arguments = get_args_parser().parse_args(argv[3:])
    config, _, program = config_from_args(arguments)
    assert (config.min_nodes, config.max_nodes, config.nproc_per_node, config.max_restarts) == (4, 4, 8, 0)
    assert (config.rdzv_backend, config.rdzv_endpoint) == ("static", f"{SECOND.address}:29511")
    assert config.rdzv_configs["rank"] == 1 and config.rdzv_configs["timeout"] == "77"
    assert program[-2:] == ["tasks.training.child", "job.json"]


def test_nodes_of_one_process_each_are_joined_as_well():
    argv = command(Path("job.json"), LaunchConfig(nodes=NODES), SECOND)
    assert "torch.distributed.run" in argv and argv[argv.index("--nproc-per-node") + 1] == "1"


@pytest.mark.parametrize("sharding", ["fsdp2", "zero2", "zero3"])
def test_nodes_are_told_to_accelerate_as_its_own_parser_reads_it(sharding, monkeypatch):
    """accelerate counts the processes of all machines, and divides them; what it gives torchrun is what counts."""
    import torch.distributed.run as torchrun
    from accelerate.commands import launch

    given: list[Any] = []
    monkeypatch.setattr(torchrun, "run", given.append)
    runner = ModuleType("deepspeed.launcher.runner")
    runner.DEEPSPEED_ENVIRONMENT_NAME = "unused"  # type: ignore[attr-defined]
    for name, module in {"deepspeed": ModuleType("deepspeed"), "deepspeed.launcher.runner": runner}.items():
        monkeypatch.setitem(sys.modules, name, module)  # accelerate's own path is taken, and needs its name alone
    monkeypatch.setitem(sys.modules, "deepspeed.launcher", ModuleType("deepspeed.launcher"))
    monkeypatch.setattr(launch, "is_deepspeed_available", lambda: True)
    argv = command(Path("job.json"), LaunchConfig(num_processes=8, sharding=sharding, nodes=NODES), SECOND)
    launch.launch_command(launch.launch_command_parser().parse_args(argv[3:]))
    config, _, program = torchrun.config_from_args(given[0])
    assert (config.min_nodes, config.max_nodes, config.nproc_per_node, config.max_restarts) == (4, 4, 8, 0)
    assert (config.rdzv_backend, config.rdzv_endpoint) == ("static", f"{SECOND.address}:29511")
    assert config.rdzv_configs["rank"] == 1 and int(config.rdzv_configs["timeout"]) == 77
    assert program[-2:] == ["tasks.training.child", "job.json"]


def test_nodes_network_settings_reach_the_processes_and_one_machine_has_none():
    told = child_environment(LaunchConfig(nodes=NODES))
    assert (told["NCCL_SOCKET_IFNAME"], told["GLOO_SOCKET_IFNAME"], told["NCCL_DEBUG"]) == ("eth1", "eth1", "INFO")
    assert "NCCL_DEBUG" not in child_environment(LaunchConfig())


def test_nodes_enter_no_version():
    alone, spread = (some_stage(LaunchConfig(nodes=nodes), store="s") for nodes in (NodesConfig(), NODES))
    store = Store(MemoryBackend(), Path("unused"))  # type: ignore[arg-type]
    assert alone.derivation(store).version == spread.derivation(store).version


@pytest.mark.parametrize(("nodes", "processes"), [(1, 1), (1, 8), (2, 8), (4, 4)])
def test_batch_is_of_all_nodes_together_however_many_there_are(nodes, processes):
    config = SFTConfig(batch_size=256, micro_batch_size=4)
    launch = LaunchConfig(num_processes=processes, nodes=NodesConfig(num_nodes=nodes))
    steps = accumulation(config, launch.total_processes)
    assert steps * config.micro_batch_size * nodes * processes == config.batch_size


def test_batch_that_all_nodes_together_cannot_share_is_refused_before_anything_is_asked_for():
    check_batch("sft", SFTConfig(batch_size=64, micro_batch_size=4), 16)
    with pytest.raises(ValueError, match=r"batch_size is 64, .* number of processes \(24\)"):
        check_batch("sft", SFTConfig(batch_size=64, micro_batch_size=4), 24)
    with pytest.raises(ValueError, match="ppo: mini_batch_size"):
        check_batch("ppo", PPOConfig(batch_size=64, mini_batch_size=8, micro_batch_size=4), 16)


def test_child_counts_the_processes_of_all_nodes(monkeypatch, tmp_path):
    job = TrainingJob(
        kind="sft", config={}, examples=tmp_path, model=tmp_path, output=tmp_path, seed=0, node=SECOND,
        launched=LaunchConfig(num_processes=2, nodes=NODES, tracker="none"),
    )  # fmt: skip
    monkeypatch.setenv("WORLD_SIZE", "8")
    child.check_processes(job)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="num_processes is 2 on each of 4 nodes, but 2 started"):
        child.check_processes(job)


def test_training_asked_for_on_several_nodes_is_launched_and_on_a_node_is_not(monkeypatch, tmp_path):
    launched: list[Any] = []
    store = Store(MemoryBackend(), tmp_path)  # type: ignore[arg-type]
    stage = some_stage(LaunchConfig(nodes=NODES, tracker="none"))

    def launch(stage: Any, session: Session) -> Any:
        launched.append(session.node)
        return store.commit_model(stage.derivation(store), model_folder(tmp_path / "m"), metrics={}, cost={})

    class Trained(Exception):
        pass

    def check_before(*_: Any) -> None:
        raise Trained

    monkeypatch.setattr(train, "train_across_nodes", launch)
    monkeypatch.setattr(train, "check_before", check_before)
    given = (SFTConfig(), [], "sft", None)
    train.run_training(stage, Session(store), *given)  # type: ignore[arg-type]
    assert launched == [None]
    with pytest.raises(Trained):
        train.run_training(stage, Session(store, node=SECOND), *given)  # type: ignore[arg-type]
    assert launched == [None]


def test_node_that_follows_ends_with_what_the_first_commits_or_says_that_there_is_nothing(tmp_path):
    store, stage = Store(MemoryBackend(), tmp_path), some_stage()  # type: ignore[arg-type]

    def commit(seconds: float) -> None:
        store.commit_model(stage.derivation(store), model_folder(tmp_path / "m"), metrics={}, cost={})

    with pytest.raises(TrainingDied, match="the first node has not committed"):
        committed_by_first(stage, store, sleep=lambda seconds: None, seconds=0.05)
    assert committed_by_first(stage, store, sleep=commit).version == stage.derivation(store).version


def test_node_tells_its_launcher_what_kind_of_end_it_had():
    assert last_words(TrainingRefused("too long")) == (REFUSED, "too long")
    assert last_words(TrainingLeft("left after step 3")) == (LEFT, "left after step 3")
    assert last_words(SystemExit("asked to leave")) == (LEFT, "asked to leave")
    assert last_words(TrainingDied("killed")) == (1, "TrainingDied: killed")


def test_node_takes_no_stage_that_does_not_train():
    with pytest.raises(ValueError, match="names the stage 'label', expected one of sft, reward"):
        read_stage('{"name": "label", "stage": {}}')


def test_nodes_settings_are_run_settings():
    assert RunContext(training=LaunchConfig(nodes=NODES)).training.total_processes == 4


@pytest.mark.long
@pytest.mark.parametrize("kind", ["reward", "ppo"])
def test_two_machines_train_what_one_does_and_outlive_each_other(kind, tmp_path, monkeypatch):
    from tests.faults import two_nodes
    from tests.servers.kubelet import Refused

    monkeypatch.setenv("HOSTNAME", "launcher-0")
    monkeypatch.setattr("tasks.across_nodes.LOOK_SECONDS", 1)
    try:
        assert two_nodes.run(kind, ["killed", "vanished", "cancelled"], tmp_path, print) == []
    except Refused as error:
        pytest.skip(str(error))
