"""Processes are known by pid and start time, found by their mark, and ended with what they started."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tasks.detached import MARK, Detached, marked, start_detached, stop

DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    stop(marked(str(tmp_path)), grace_seconds=0)


def started(code: str, home: Path) -> Detached:
    """Running, and past its first line."""
    process = start_detached([sys.executable, "-c", code], {**os.environ, MARK: str(home)}, home / "log", home)
    deadline = time.monotonic() + 60
    while not process.log_tail() and time.monotonic() < deadline:
        time.sleep(0.05)
    return process


def test_detached_another_process_with_its_pid_is_not_it(home):
    process = started(DEAF, home)
    assert process.is_alive()
    assert not process.model_copy(update={"started": process.started - 60}).is_alive()


def test_detached_child_of_a_killed_parent_is_found_and_stopped(home):
    parent = started(PARENT, home)
    child = int(parent.log_tail())
    psutil.Process(parent.pid).kill()
    found = marked(str(home))
    assert [process.pid for process in found] == [child]
    stop(found, grace_seconds=10)
    assert not marked(str(home))


def test_detached_deaf_process_is_killed_after_the_grace(home):
    process = started(DEAF, home)
    stop(marked(str(home)), grace_seconds=0.2)
    assert not process.is_alive()


def test_detached_mark_is_whole_and_others_are_left(home):
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], env={MARK: f"{home}2"})
    try:
        started(DEAF, home)
        stop(marked(str(home)), grace_seconds=0.2)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_detached_log_of_the_process_before_is_kept(home):
    first = started("print('first')", home)
    second = started("print('second')", home)
    assert (second.log_tail(), Path(f"{first.log}.before").read_text()) == ("second", "first\n")
