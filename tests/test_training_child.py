"""What a training process tells, and how it leaves."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.training import child
from tasks.training.events import EventTail, EventWriter
from tasks.training.examples import PromptExample, SFTExample, read_examples, write_examples
from tasks.training.supervision import Leaving, Supervision
from tests.sft_jobs import EXAMPLES, PAIR, sft_job
from tests.tiny_model import make_tiny_model

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("base"))


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


def test_second_sigterm_in_the_midst_of_taking_the_first_is_taken_too():
    """The launcher's and the guard's. Python runs a handler between any two lines of the one before."""
    program = (
        "import os, signal, sys\n"
        "from tasks.training.child import asked_by_sigterm\n"
        "asked, left = asked_by_sigterm(), [50]\n"
        "def again(*_):\n"
        "    if left[0]:\n"
        "        left[0] -= 1; os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return again\n"
        "before = asked()\n"
        "sys.settrace(again); os.kill(os.getpid(), signal.SIGTERM); sys.settrace(None)\n"
        "print(before, asked())"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["False", "True"], done.stderr
