"""Training in processes of their own: events, results, errors, leaving, deaths."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.schema import Message
from tasks.training import child
from tasks.training.config import SFTConfig
from tasks.training.deaths import MemoryKills, describe, ending_signal
from tasks.training.events import EventTail, EventWriter
from tasks.training.examples import PromptExample, SFTExample, read_examples, write_examples
from tasks.training.job import TrainingJob
from tasks.training.launch import TrainingDied, TrainingLeft, TrainingRefused, launch
from tasks.training.launch_command import check_launch, child_environment, command
from tasks.training.launch_config import LaunchConfig
from tasks.training.supervision import Leaving, Supervision
from tests.tiny_model import make_tiny_model

ROOT = Path(__file__).parents[1]
CONFIG = SFTConfig(epochs=2, learning_rate=1e-2, batch_size=8, micro_batch_size=4, max_tokens=64, checkpoint_every=2)
EXAMPLES = [SFTExample(prompt=[Message(role="user", content=f"line\nbreak {i} €")], completion="né") for i in range(16)]
ALONE = LaunchConfig(tracker="none", grace_seconds=30)
PAIR = LaunchConfig(tracker="none", grace_seconds=30, num_processes=2)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("base"))


def sft_job(folder: Path, base: Path, **changes: object) -> TrainingJob:
    fields: dict[str, object] = {
        "kind": "sft",
        "config": CONFIG.model_dump(),
        "examples": write_examples(folder / "examples.jsonl", EXAMPLES),
        "model": base,
        "output": folder / "model",
        "seed": 0,
    }
    return TrainingJob.model_validate(fields | changes)


def endless(folder: Path, base: Path) -> TrainingJob:
    """A training that ends only if it is made to."""
    config = CONFIG.model_copy(update={"epochs": 100_000})
    return sft_job(folder, base, config=config.model_dump(), checkpoint=folder / "checkpoints")


def trainers(folder: Path) -> list[int]:
    """Living training processes whose job file lies in the folder, their launcher left out."""
    found = []
    for status in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = status.read_bytes().split(b"\0")
        except OSError:
            continue  # it ended while we looked
        launcher = {b"torch.distributed.run", b"-I"} & set(arguments)
        if b"tasks.training.child" in arguments and not launcher and os.fsencode(folder) in b" ".join(arguments):
            found.append(int(status.parent.name))
    return found


def wait_until(condition: Callable[[], object], seconds: float = 90) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return bool(condition())


def fake_child(monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """Let `launch` start a few lines of Python instead of a trainer; `send` there appends an event."""
    program = (
        "import json, os, signal, sys, time\n"
        "job = json.load(open(sys.argv[1]))\n"
        "def send(event, end='\\n'):\n"
        "    with open(job['events'], 'a') as file: file.write(json.dumps(event) + end)\n"
    )
    argv = [sys.executable, "-c", program + body]
    monkeypatch.setattr("tasks.training.launch.command", lambda job, config, node: [*argv, str(job)])


def refuse(line: object) -> None:
    return None


# events


def test_events_are_read_once_in_order_and_a_line_that_is_not_whole_is_left(tmp_path):
    path = tmp_path / "events"
    tail = EventTail(path)
    assert list(tail.read()) == []
    writer = EventWriter(path)
    writer.send({"log": {"step": 1, "loss": 0.1}})
    writer.send({"log": {"text": "zwei\nZeilen €"}})
    assert list(tail.read()) == [{"log": {"step": 1, "loss": 0.1}}, {"log": {"text": "zwei\nZeilen €"}}]
    with path.open("ab") as file:
        file.write(b'{"result": {"a"')
    assert list(tail.read()) == []
    with path.open("ab") as file:
        file.write(b": 1}}\n")
    assert list(tail.read()) == [{"result": {"a": 1}}] and list(tail.read()) == []


def test_events_of_several_writers_do_not_mix(tmp_path):
    path, text = tmp_path / "events", "x" * 20_000

    def write(number: int) -> None:
        writer = EventWriter(path)
        for _ in range(50):
            writer.send({"log": {"number": number, "text": text}})

    tail = EventTail(path)
    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(event["log"]["number"] for event in tail.read()) == [n for n in range(4) for _ in range(50)]


def test_examples_survive_the_way_through_a_file(tmp_path):
    path = write_examples(tmp_path / "examples.jsonl", EXAMPLES)
    assert list(read_examples(path, SFTExample)) == EXAMPLES
    with pytest.raises(ValueError, match=r"examples\.jsonl:1: not a PromptExample"):
        list(read_examples(path, PromptExample))


# what the parent makes of a child


def test_launch_hands_on_lines_and_resume_points_in_order_and_returns_the_result(base, tmp_path, monkeypatch):
    fake_child(
        monkeypatch,
        "send({'log': {'step': 1, 'num_steps': 2}}); send({'checkpoint': '/points/step-1'}); time.sleep(0.5)\n"
        "send({'log': {'step': 2, 'num_steps': 2}}); send({'result': {'loss': 1.5}}); send({'log': {}}, end='')",
    )
    seen: list[object] = []
    result = launch(sft_job(tmp_path, base), ALONE, seen.append, lambda folder: seen.append(folder))
    assert seen == [{"step": 1, "num_steps": 2}, Path("/points/step-1"), {"step": 2, "num_steps": 2}]
    assert result == {"loss": 1.5}


def test_launch_first_error_of_several_processes_is_the_one_that_is_told(base, tmp_path, monkeypatch):
    error = "send({{'error': {{'type': '{0}', 'message': '{1}', 'bad_input': False}}}})\n"
    fake_child(monkeypatch, error.format("KeyError", "the cause") + error.format("RuntimeError", "lost a peer"))
    with pytest.raises(TrainingDied, match="sft: KeyError: the cause"):
        launch(sft_job(tmp_path, base), ALONE, refuse)


def test_launch_result_of_a_process_that_failed_after_it_is_not_believed(base, tmp_path, monkeypatch):
    fake_child(monkeypatch, "send({'result': {}}); sys.exit(3)")
    with pytest.raises(TrainingDied, match="exit code 3"):
        launch(sft_job(tmp_path, base), ALONE, refuse)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("os.kill(os.getpid(), 9)", r"SIGKILL; most often .* memory ran out; lower micro_batch_size or max_tokens"),
        ("os.kill(os.getpid(), 11)", "SIGSEGV"),
        ("sys.exit(7)", "exit code 7"),
        ("print('last words'); sys.exit(1)", "last words"),
    ],
)
def test_launch_death_says_how_and_what_to_do(base, tmp_path, monkeypatch, body, words):
    fake_child(monkeypatch, body)
    with pytest.raises(TrainingDied, match=rf"(?s)sft: .*{words}"):
        launch(sft_job(tmp_path, base), ALONE, refuse)


def test_launch_death_by_sigkill_with_a_rise_of_the_kernels_counter_is_told_as_a_fact(base, tmp_path, monkeypatch):
    counted = iter([MemoryKills(cgroup=4, machine=9), MemoryKills(cgroup=5, machine=10)])
    monkeypatch.setattr("tasks.training.launch.MemoryKills.now", lambda: next(counted))
    fake_child(monkeypatch, "os.kill(os.getpid(), 9)")
    with pytest.raises(TrainingDied, match="counter says that memory ran out: a process under this memory limit") as e:
        launch(sft_job(tmp_path, base), ALONE, refuse)
    assert "most often" not in str(e.value) and "lora_rank" in str(e.value)


def test_launch_killed_process_of_several_is_the_cause_and_not_what_the_others_say(base, tmp_path, monkeypatch):
    summary = (
        "Failures:\\n[1]:\\n  rank      : 0 (local_rank: 0)\\n  exitcode  : 1 (pid: 11)\\n-----\\n"
        "Root Cause (first observed failure):\\n[0]:\\n  rank      : 1\\n  exitcode  : -9 (pid: 12)\\n"
    )
    event = "{'error': {'type': 'RuntimeError', 'message': 'Connection closed by peer', 'bad_input': False}}"
    fake_child(monkeypatch, f"send({event}); print('{summary}'); sys.exit(1)")
    with pytest.raises(TrainingDied, match=r"sft: a training process was killed by SIGKILL"):
        launch(sft_job(tmp_path, base), PAIR, refuse)


def test_launch_log_of_an_earlier_start_explains_nothing(base, tmp_path, monkeypatch):
    log = tmp_path / "training.log"
    log.write_text("Root Cause (first observed failure):\n  exitcode  : -9 (pid: 12)\n")
    fake_child(monkeypatch, "sys.exit(4)")
    with pytest.raises(TrainingDied, match="exit code 4"):
        launch(sft_job(tmp_path, base), PAIR, refuse, log_path=log)


def test_launch_that_is_interrupted_lets_the_child_leave_and_takes_its_last_resume_point(base, tmp_path, monkeypatch):
    fake_child(
        monkeypatch,
        "def leave(*_):\n"
        "    time.sleep(1); send({'checkpoint': '/points/step-9'}); send({'left': {'step': 9}}); sys.exit(75)\n"
        "signal.signal(signal.SIGTERM, leave); send({'log': {'step': 1}}); time.sleep(60)",
    )
    kept: list[Path] = []

    def interrupt(line: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launch(sft_job(tmp_path, base), ALONE, interrupt, kept.append)
    assert kept == [Path("/points/step-9")]


def test_launch_child_that_does_not_leave_in_its_grace_is_killed(base, tmp_path, monkeypatch):
    fake_child(monkeypatch, "signal.signal(signal.SIGTERM, signal.SIG_IGN); send({'log': {'step': 1}}); time.sleep(60)")

    def interrupt(line: object) -> None:
        raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        launch(sft_job(tmp_path, base), LaunchConfig(tracker="none", grace_seconds=1), interrupt)
    assert time.monotonic() - started < 30


# what a process does


def supervised(monkeypatch: pytest.MonkeyPatch, trainer: Callable[[Supervision], dict]) -> None:
    monkeypatch.setattr(child, "run_job", lambda job, watched: trainer(watched))


def test_child_process_that_is_not_the_first_tells_nothing_but_errors(base, tmp_path, monkeypatch):
    sent: list[dict] = []

    def trainer(watched: Supervision) -> dict:
        watched.log({"step": 1, "num_steps": 1})
        watched.on_checkpoint(tmp_path)
        return {}

    supervised(monkeypatch, trainer)
    child.run(sft_job(tmp_path, base), sent.append, lambda: False, rank=1)
    assert sent == []

    def failing(watched: Supervision) -> dict:
        raise KeyError("why")

    supervised(monkeypatch, failing)
    with pytest.raises(KeyError):
        child.run(sft_job(tmp_path, base), sent.append, lambda: False, rank=1)
    assert [event["error"]["type"] for event in sent] == ["KeyError"]


def test_child_that_is_asked_to_leave_tells_after_which_step(base, tmp_path, monkeypatch):
    sent: list[dict] = []

    def trainer(watched: Supervision) -> dict:
        watched.log({"step": 41, "num_steps": 100})
        assert watched.leaving()
        raise Leaving

    supervised(monkeypatch, trainer)
    with pytest.raises(Leaving):
        child.run(sft_job(tmp_path, base), sent.append, lambda: True, rank=0)
    assert sent == [{"log": {"step": 41, "num_steps": 100}}, {"left": {"step": 41}}]


def test_child_other_number_of_processes_than_asked_is_refused(base, tmp_path, monkeypatch):
    job = sft_job(tmp_path, base, launched=PAIR)
    with pytest.raises(ValueError, match="num_processes is 2, but 1 started"):
        child.run(job, lambda event: None, lambda: False, rank=0)


def test_child_waits_for_an_earlier_one_that_still_writes_its_resume_point(tmp_path):
    order: list[str] = []
    entered = threading.Event()

    def earlier() -> None:
        with child.alone(tmp_path, lambda: False):
            entered.set()
            time.sleep(0.7)
            order.append("earlier")

    thread = threading.Thread(target=earlier)
    thread.start()
    entered.wait()
    with pytest.raises(Leaving), child.alone(tmp_path, lambda: True):
        order.append("never")
    with child.alone(tmp_path, lambda: False):
        order.append("later")
    thread.join()
    assert order == ["earlier", "later"]


def test_child_that_is_asked_to_leave_while_it_waits_leaves_before_a_step(base, tmp_path):
    sent: list[dict] = []
    with child.alone(tmp_path / "checkpoints", lambda: False), pytest.raises(Leaving):
        child.run(sft_job(tmp_path, base, checkpoint=tmp_path / "checkpoints"), sent.append, lambda: True, rank=0)
    assert sent == [{"left": {"step": 0}}]


class OutOfMemoryError(RuntimeError):
    """Named as torch names its own."""


@pytest.mark.parametrize(
    "error",
    [
        OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"),
        MemoryError(),
    ],
)
def test_error_for_want_of_memory_names_the_settings_that_lower_it(error):
    message = describe(error)["message"]
    assert all(name in message for name in ("micro_batch_size", "max_tokens", "gradient_checkpointing", "lora_rank"))


def test_error_that_the_settings_cause_is_told_apart_from_others():
    assert describe(ValueError("no rows"))["bad_input"] and describe(FloatingPointError("loss is nan"))["bad_input"]
    assert not describe(RuntimeError("disk"))["bad_input"]


def test_memory_kills_since_says_only_what_the_counters_say():
    assert MemoryKills(3, 5).since(MemoryKills(3, 5)) == ""
    assert "this memory limit" in MemoryKills(4, 6).since(MemoryKills(3, 5))
    assert "this machine" in MemoryKills(3, 6).since(MemoryKills(3, 5))


def test_memory_kills_are_read_from_either_version_of_cgroups(tmp_path):
    from tasks.training.deaths import _cgroup_files, _count

    membership = tmp_path / "cgroup"
    (tmp_path / "v2" / "job").mkdir(parents=True)
    (tmp_path / "v2" / "job" / "memory.events").write_text("low 0\nmax 7\noom 2\noom_kill 3\noom_group_kill 0\n")
    membership.write_text("0::/job\n")
    assert [_count(path) for path in _cgroup_files(membership, tmp_path / "v2")] == [3]
    (tmp_path / "v1" / "memory").mkdir(parents=True)
    (tmp_path / "v1" / "memory" / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 6\n")
    membership.write_text("5:cpu:/\n4:memory:/outside/name\n0::/\n")
    assert [_count(path) for path in _cgroup_files(membership, tmp_path / "v1")] == [6]
    assert _cgroup_files(membership, tmp_path / "none") == []


@pytest.mark.parametrize(("code", "log", "expected"), [(-9, "", 9), (1, "", None), (0, "", None), (75, "", None)])
def test_ending_signal_of_one_process_is_its_exit_code(code, log, expected):
    assert ending_signal(code, log) == expected


# what is started


def test_launch_ppo_with_sharding_is_refused_before_anything_starts(base, tmp_path):
    job = sft_job(tmp_path, base, kind="ppo")
    with pytest.raises(ValueError, match=r"ppo: run\.training\.sharding is 'fsdp2', expected 'none'"):
        launch(job, LaunchConfig(sharding="fsdp2"), refuse, log_path=tmp_path / "log")
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize("tracker", ["wandb", "trackio"])
def test_launch_tracker_that_is_not_installed_is_refused_with_the_extra_that_brings_it(monkeypatch, tracker):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=f"package {tracker} is not installed; install Solon's extra `trackers`"):
        check_launch("sft", LaunchConfig(tracker=tracker))
    check_launch("sft", LaunchConfig(tracker="none"))


def test_launch_zero_without_deepspeed_is_refused(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "deepspeed" else object())
    with pytest.raises(ValueError, match="'zero3', which needs the package deepspeed"):
        check_launch("sft", LaunchConfig(sharding="zero3"))
    check_launch("sft", LaunchConfig(sharding="fsdp2"))


@pytest.mark.parametrize("sharding", ["fsdp2", "zero2", "zero3"])
def test_sharding_config_is_what_accelerates_own_loader_makes_of_it(sharding):
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import launch_command_parser

    argv = command(Path("job.json"), LaunchConfig(sharding=sharding, num_processes=4))
    assert argv[1:3] == ["-m", "accelerate.commands.launch"]
    arguments = launch_command_parser().parse_args(argv[3:])
    assert (arguments.num_processes, arguments.module, arguments.training_script_args) == (4, True, ["job.json"])
    config = load_config_from_file(arguments.config_file)
    assert (config.num_machines, config.mixed_precision, config.use_cpu) == (1, "no", False)
    if sharding == "fsdp2":
        assert config.distributed_type == "FSDP"
        assert config.fsdp_config["fsdp_version"] == 2 and config.fsdp_config["fsdp_reshard_after_forward"] is True
        assert config.fsdp_config["fsdp_auto_wrap_policy"] == "TRANSFORMER_BASED_WRAP"
        assert config.fsdp_config["fsdp_state_dict_type"] == "FULL_STATE_DICT"
    else:
        assert config.distributed_type == "DEEPSPEED"
        assert config.deepspeed_config["zero_stage"] == int(sharding[-1])


# real trainings


def test_launch_makes_the_same_model_as_a_call(base, tmp_path):
    from tasks.training.sft import train_sft

    lines: list[dict] = []
    result = launch(sft_job(tmp_path, base), ALONE, lines.append, log_path=tmp_path / "training.log")
    here: list[dict] = []
    expected = train_sft(CONFIG, EXAMPLES, base, tmp_path / "here", 0, Supervision(log=here.append))
    assert result == expected
    assert [(line["step"], line["loss"]) for line in lines] == [(line["step"], line["loss"]) for line in here]
    weights = "model.safetensors"
    assert (tmp_path / "model" / weights).read_bytes() == (tmp_path / "here" / weights).read_bytes()


def test_launch_bad_input_is_refused_with_the_trainers_words_and_the_log_has_the_traceback(base, tmp_path):
    job = sft_job(tmp_path, base, kind="reward", config={})
    with pytest.raises(TrainingRefused, match=r"examples\.jsonl:1: not a PreferenceExample"):
        launch(job, ALONE, refuse, log_path=tmp_path / "training.log")
    assert "Traceback" in (tmp_path / "training.log").read_text()


def test_training_that_is_asked_to_leave_writes_a_resume_point_and_a_rerun_ends_as_if_nothing_was(base, tmp_path):
    """SIGTERM to the training process itself, in the middle of the steps between two resume points."""
    from tasks.training.sft import train_sft

    config = CONFIG.model_copy(update={"epochs": 10, "checkpoint_every": 1000})
    job = sft_job(tmp_path, base, config=config.model_dump(), checkpoint=tmp_path / "checkpoints")
    asked: list[int] = []

    def ask_once(line: dict) -> None:
        if line["step"] == 3 and not asked:
            asked.extend(trainers(tmp_path))
            os.kill(asked[0], signal.SIGTERM)

    points: list[Path] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path))  # where `trainers` finds the job
        with pytest.raises(TrainingLeft, match=r"left after step [0-9]+") as left:
            launch(job, ALONE, ask_once, points.append)
    step = int(str(left.value).split("after step ")[1].split(",")[0])
    assert 3 <= step < 20 and points == [tmp_path / "checkpoints" / f"step-{step:08d}"]
    lines: list[dict] = []
    result = launch(job, ALONE, lines.append)
    assert [line["step"] for line in lines] == list(range(step + 1, 21))
    expected = train_sft(config, EXAMPLES, base, tmp_path / "here", 0, Supervision())
    assert result["history"] == expected["history"]
    weights = "model.safetensors"
    assert (tmp_path / "model" / weights).read_bytes() == (tmp_path / "here" / weights).read_bytes()


@pytest.mark.parametrize("launching", [ALONE, PAIR], ids=["one process", "two processes"])
def test_children_leave_when_their_parent_is_killed(base, tmp_path, launching):
    job, log = tmp_path / "parent.json", tmp_path / "training.log"
    job.write_text(json.dumps([endless(tmp_path, base).model_dump(mode="json"), launching.model_dump()]))
    program = (
        "import json, sys; from pathlib import Path\n"
        "from tasks.training.launch import LaunchConfig, TrainingJob, launch\n"
        "job, config = json.loads(Path(sys.argv[1]).read_text())\n"
        "def log(line): print(line['step'], flush=True)\n"
        "launch(TrainingJob(**job), LaunchConfig(**config), log, log_path=Path(sys.argv[2]))"
    )
    environment = child_environment(launching) | {"TMPDIR": str(tmp_path)}
    argv = [sys.executable, "-c", program, str(job), str(log)]
    with subprocess.Popen(argv, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout and parent.stdout.readline() == "1\n", log.read_text()
        assert len(trainers(tmp_path)) == launching.num_processes
        parent.kill()
    assert wait_until(lambda: not trainers(tmp_path))
    events = [json.loads(line) for path in tmp_path.glob("*/events.jsonl") for line in path.read_text().splitlines()]
    assert "left" in events[-1], log.read_text()
    assert (tmp_path / "checkpoints" / f"step-{events[-1]['left']['step']:08d}").is_dir()


def test_error_of_any_process_reaches_the_parent(base, tmp_path, monkeypatch):
    """The second of two processes cannot read the examples; the first one waits for it."""
    job = sft_job(tmp_path, base)
    program = (
        "import os, sys, tasks.training.child as child\n"
        "if os.environ['RANK'] == '1':\n"
        "    def broken(job, watched): raise LookupError('only here')\n"
        "    child.run_job = broken\n"
        "child._main(sys.argv[1])"
    )
    script = tmp_path / "second_fails.py"
    script.write_text(program)
    argv = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    monkeypatch.setattr("tasks.training.launch.command", lambda job, config, node: [*argv, str(job)])
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with pytest.raises(TrainingDied, match="sft: LookupError: only here"):
        launch(job, PAIR, refuse)


@pytest.mark.parametrize(("given", "seen"), [(None, "0"), ("3,4", "3"), ("", "")])
def test_training_of_one_process_sees_one_gpu(given, seen, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert child_environment(LaunchConfig())["CUDA_VISIBLE_DEVICES"] == seen
    assert child_environment(LaunchConfig(num_processes=2)).get("CUDA_VISIBLE_DEVICES") == given
