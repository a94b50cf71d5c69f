"""Training in a child process: logs, results, errors, deaths."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from tasks.schema import Message
from tasks.training.config import SFTConfig
from tasks.training.examples import PromptExample, SFTExample, read_examples, write_examples
from tasks.training.launch import TrainingDied, TrainingJob, TrainingRefused, child_environment, follow, launch
from tasks.training.supervision import Supervision
from tests.tiny_model import make_tiny_model

ROOT = Path(__file__).parents[1]
CONFIG = SFTConfig(epochs=2, learning_rate=1e-2, batch_size=8, micro_batch_size=8, max_tokens=64)
EXAMPLES = [SFTExample(prompt=[Message(role="user", content=f"line\nbreak {i} €")], completion="né") for i in range(16)]


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


def trainers(folder: Path) -> list[int]:
    """Living `tasks.training.launch` processes whose job file lies in the folder."""
    found = []
    for status in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = status.read_bytes().split(b"\0")
        except OSError:
            continue  # it ended while we looked
        if b"tasks.training.launch" in arguments and os.fsencode(folder) in b" ".join(arguments):
            found.append(int(status.parent.name))
    return found


def wait_for_trainers(folder: Path) -> list[int]:
    deadline = time.monotonic() + 60
    while not (found := trainers(folder)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def test_examples_survive_the_way_through_a_file(tmp_path):
    path = write_examples(tmp_path / "examples.jsonl", EXAMPLES)
    assert list(read_examples(path, SFTExample)) == EXAMPLES
    with pytest.raises(ValueError, match=r"examples\.jsonl:1: not a PromptExample"):
        list(read_examples(path, PromptExample))


def test_launch_streams_logs_and_makes_the_same_model_as_a_call(base, tmp_path):
    from tasks.training.sft import train_sft

    lines: list[dict] = []
    result = launch(sft_job(tmp_path, base), lines.append, log_path=tmp_path / "training.log")
    here: list[dict] = []
    expected = train_sft(CONFIG, EXAMPLES, base, tmp_path / "here", 0, Supervision(log=here.append))
    assert result == expected
    assert [(line["step"], line["loss"]) for line in lines] == [(line["step"], line["loss"]) for line in here]
    weights = "model.safetensors"
    assert (tmp_path / "model" / weights).read_bytes() == (tmp_path / "here" / weights).read_bytes()


def test_bad_input_is_refused_with_the_trainers_words(base, tmp_path):
    job = sft_job(tmp_path, base, kind="reward", config={"held_out_fraction": 2})
    with pytest.raises(TrainingRefused, match=r"examples\.jsonl:1: not a PreferenceExample"):
        launch(job, lambda line: None)


def test_other_failures_name_the_error_and_show_the_output(base, tmp_path):
    job = sft_job(tmp_path, base, examples=tmp_path / "missing.jsonl")
    with pytest.raises(TrainingDied, match=r"sft: FileNotFoundError: .*missing\.jsonl(.|\n)*Traceback"):
        launch(job, lambda line: None)


def test_child_killed_by_sigkill_is_reported_with_memory_as_the_usual_cause(base, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # where `trainers` finds the job
    killer = threading.Thread(target=lambda: [os.kill(pid, signal.SIGKILL) for pid in wait_for_trainers(tmp_path)])
    killer.start()
    with pytest.raises(TrainingDied, match=r"sft: .* killed by SIGKILL.*memory(.|\n)*lower micro_batch_size"):
        launch(sft_job(tmp_path, base), lambda line: None)
    killer.join()


def test_child_dies_when_its_parent_is_killed(base, tmp_path):
    config = CONFIG.model_copy(update={"epochs": 100_000})
    job = tmp_path / "parent.json"
    job.write_text(sft_job(tmp_path, base, config=config.model_dump()).model_dump_json())
    program = (
        "import sys; from pathlib import Path; from tasks.training.launch import TrainingJob, launch\n"
        "job = TrainingJob.model_validate_json(Path(sys.argv[1]).read_text())\n"
        "launch(job, lambda line: None)"
    )
    environment = child_environment(threads=1) | {"TMPDIR": str(tmp_path)}
    parent = subprocess.Popen([sys.executable, "-c", program, str(job)], cwd=ROOT, env=environment)
    assert wait_for_trainers(tmp_path)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 30
    while trainers(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not trainers(tmp_path)


def test_stream_that_ends_within_a_line_keeps_what_was_whole():
    lines: list[dict] = []
    last = follow(['{"log": {"step": 1}}\n', '{"result": {"a": 1}}\n', '{"error": {"ty'], lines.append)
    assert lines == [{"step": 1}] and last == {"result": {"a": 1}}
