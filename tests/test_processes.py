"""Nothing that a guarded command started outlives it, a stop, or the death of whoever started it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks.processes import free_port, guarded, port_is_free

REPOSITORY = Path(__file__).parents[1]

# A command whose child has a session of its own and ignores SIGTERM. Both write their pid, then sleep.
STUBBORN = """
import os, pathlib, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if sys.argv[2] == "child":
    subprocess.Popen([sys.executable, __file__, sys.argv[1], "grandchild", "-"], start_new_session=True)
path = pathlib.Path(sys.argv[1], sys.argv[2])
path.with_suffix(".tmp").write_text(str(os.getpid()))
path.with_suffix(".tmp").rename(path)
while sys.argv[3] == "-" or not pathlib.Path(sys.argv[1], "grandchild").exists():
    time.sleep(0.05)
sys.exit(7)
"""

OWNER = """
import sys, time
from pathlib import Path
from tasks.processes import guarded
guarded(sys.argv[2:], None, Path(sys.argv[1]))
time.sleep(600)
"""


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != b"Z"


def wait_until(condition, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return bool(condition())


def stubborn(folder: Path, end: str) -> list[str]:
    script = folder / "stubborn.py"
    script.write_text(STUBBORN)
    return [sys.executable, str(script), str(folder), "child", end]


def pids(folder: Path) -> list[int]:
    names = [folder / "child", folder / "grandchild"]
    assert wait_until(lambda: all(name.exists() for name in names)), "the command did not start its child"
    return [int(name.read_text()) for name in names]


@pytest.mark.parametrize("whole_group", [False, True], ids=["process", "process-group"])
def test_guard_parent_killed_leaves_nothing_after_ten_seconds(tmp_path, whole_group):
    argv = [sys.executable, "-c", OWNER, str(tmp_path / "log"), *stubborn(tmp_path, "-")]
    owner = subprocess.Popen(argv, cwd=REPOSITORY, start_new_session=True)
    started = pids(tmp_path)
    (os.killpg if whole_group else os.kill)(owner.pid, signal.SIGKILL)
    owner.wait()
    assert wait_until(lambda: not any(alive(pid) for pid in started), 10), "a child outlived its parent"


def test_guard_parent_killed_while_a_forked_sibling_lives_still_cleans_up(tmp_path):
    fork_first = OWNER.replace("time.sleep", "import os; os.fork(); time.sleep")
    argv = [sys.executable, "-c", fork_first, str(tmp_path / "log"), *stubborn(tmp_path, "-")]
    owner = subprocess.Popen(argv, cwd=REPOSITORY, start_new_session=True)
    started = pids(tmp_path)
    owner.kill()
    owner.wait()
    try:
        assert wait_until(lambda: not any(alive(pid) for pid in started), 10)
    finally:
        os.killpg(owner.pid, signal.SIGKILL)  # the forked sibling


def test_guard_command_exits_ends_what_it_left_and_gives_its_code(tmp_path):
    process = guarded(stubborn(tmp_path, "exit"), None, tmp_path / "log", grace_seconds=0.5)
    started = pids(tmp_path)
    assert process.wait(10) == 7
    assert not any(alive(pid) for pid in started)


def test_guard_stop_ends_the_whole_tree(tmp_path):
    process = guarded(stubborn(tmp_path, "-"), None, tmp_path / "log", grace_seconds=0.5)
    started = pids(tmp_path)
    assert process.poll() is None
    assert process.stop() == -signal.SIGKILL
    assert not any(alive(pid) for pid in started)


def test_guard_stop_lets_a_willing_command_finish_its_work(tmp_path):
    tidy = (
        "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: (print('tidied'), sys.exit(3)));"
        "print('up', flush=True); time.sleep(600)"
    )
    process = guarded([sys.executable, "-c", tidy], None, tmp_path / "log")
    assert wait_until(lambda: "up" in process.log_tail())
    assert process.stop() == 3
    assert process.log_tail() == "up\ntidied"
    assert process.stop() == 3  # a second stop changes nothing


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_guard_command_killed_by_a_signal_says_which(tmp_path, number):
    suicide = f"import os; os.kill(os.getpid(), {int(number)})"
    assert guarded([sys.executable, "-c", suicide], None, tmp_path / "log").wait(10) == -number


def test_guard_log_holds_output_and_errors_and_the_given_environment(tmp_path):
    says = "import os, sys; print(os.environ['WORD']); sys.stdout.flush(); print('bad', file=sys.stderr)"
    log = tmp_path / "new" / "log"
    process = guarded([sys.executable, "-c", says], {"WORD": "hello"}, log)
    assert process.wait(10) == 0
    assert process.log_tail() == "hello\nbad"
    assert process.log_tail(1) == "bad"


def test_guard_command_missing_gives_127_and_names_it(tmp_path):
    process = guarded(["/no/such/program"], None, tmp_path / "log")
    assert process.wait(10) == 127
    assert "/no/such/program" in process.log_tail()


def test_guard_passed_pipe_ends_when_the_command_does(tmp_path):
    reader, writer = os.pipe()
    says = f"import os; os.write({writer}, b'one line')"
    process = guarded([sys.executable, "-c", says], None, tmp_path / "log", pass_fds=[writer])
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        assert stream.read() == b"one line"
    assert process.wait(10) == 0


def test_free_port_is_free_until_someone_listens():
    import socket

    port = free_port()
    assert port_is_free(port)
    with socket.create_server(("127.0.0.1", port)):
        assert not port_is_free(port)
