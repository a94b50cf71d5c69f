"""Training in processes of their own: results, errors, leaving, deaths."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.training.deaths import MemoryKills
from tasks.training.job import TrainingJob
from tasks.training.launch import TrainingDied, TrainingLeft, TrainingRefused, launch
from tasks.training.launch_command import check_launch, child_environment, command
from tasks.training.launch_config import LaunchConfig
from tasks.training.supervision import Supervision
from tests.sft_jobs import ALONE, CONFIG, EXAMPLES, PAIR, sft_job
from tests.tiny_model import make_tiny_model

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("base"))


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
