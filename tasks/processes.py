"""Child processes that cannot outlive us, however we die.

Between us and the command stands a small guard: this file, run as a script with nothing but the standard
library. It ends all that the command started when the command exits, when we ask it to, or when we are gone. It
lives in its own session, so that a Ctrl-C or a `kill -9` of our process group does not reach it.

The guard notices our death by asking the kernel who its parent is. A pipe would tell sooner, but stays open
when a forked sibling (a data loader's worker) inherited its other end.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

POLL_SECONDS = 0.1
"""How late the guard may notice that the command or we have ended."""
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


class GuardedProcess:
    """A command under its guard. `pid` is the guard's; exit codes are the command's."""

    def __init__(self, guard: "subprocess.Popen[bytes]", log_path: Path, grace_seconds: float) -> None:
        self._guard = guard
        self._grace_seconds = grace_seconds
        self.log_path = log_path

    @property
    def pid(self) -> int:
        return self._guard.pid

    def poll(self) -> int | None:
        """The command's exit code, negative for the signal that ended it; None while anything of it lives."""
        return self._guard.poll()

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and give the exit code. Raises: subprocess.TimeoutExpired."""
        return self._guard.wait(timeout)

    def stop(self) -> int:
        """End the command and all it started: SIGTERM, then SIGKILL after the grace. Gives the exit code."""
        self._guard.terminate()
        return self._guard.wait(self._grace_seconds + 30)

    def log_tail(self, num_lines: int = 30) -> str:
        """The last lines that the command wrote."""
        lines = self.log_path.read_text(errors="replace").splitlines()
        return "\n".join(lines[-num_lines:])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()


def guarded(
    argv: Sequence[str],
    env: Mapping[str, str] | None,
    log_path: Path,
    *,
    cwd: Path | None = None,
    pass_fds: Sequence[int] = (),
    grace_seconds: float = 3.0,
) -> GuardedProcess:
    """Start `argv` under a guard, its output appended to `log_path`.

    `env` replaces the environment (None: ours). `pass_fds` are handed on to the command: close yours after the
    call. A command that cannot be started ends with exit code 127 and its reason in the log.
    """
    order = {"parent": os.getpid(), "argv": list(argv), "fds": list(pass_fds), "grace_seconds": grace_seconds}
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("ab") as log:
        guard = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, json.dumps(order)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=env,
            cwd=cwd,
            pass_fds=pass_fds,
            start_new_session=True,
        )
    return GuardedProcess(guard, log_path, grace_seconds)


def free_port() -> int:
    """A loopback port that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def port_is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class _Guard:
    """The guard's side: one child, and whatever that child leaves behind."""

    def __init__(self, parent: int, argv: list[str], fds: list[int], grace_seconds: float) -> None:
        self.parent = parent
        self.grace_seconds = grace_seconds
        self.stopping = False
        self.status: int | None = None
        signal.signal(signal.SIGTERM, self._stop)
        _adopt_orphans()
        self.child = subprocess.Popen(argv, pass_fds=fds, start_new_session=True).pid
        for fd in fds:
            os.close(fd)  # else the reader of a pipe would wait for us too

    def _stop(self, *_: object) -> None:
        self.stopping = True

    def run(self) -> None:
        while self.status is None and not self.stopping and os.getppid() == self.parent:
            time.sleep(POLL_SECONDS)
            self.reap()
        self.end(signal.SIGTERM, self.grace_seconds)
        self.end(signal.SIGKILL, 5.0)

    def reap(self) -> None:
        """Collect whoever has exited; keep the status of the command itself."""
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == self.child:
                    self.status = ended[1]

    def end(self, number: signal.Signals, seconds: float) -> None:
        """Signal all that still lives, newcomers too, and wait for it to go."""
        signalled: set[int] = set()
        deadline = time.monotonic() + seconds
        while (living := _survivors(self.child)) and time.monotonic() < deadline:
            for target in set(living) - signalled:
                with suppress(ProcessLookupError):
                    os.kill(target, number)
            signalled.update(living)
            time.sleep(0.02)
            self.reap()

    def leave(self) -> None:
        """Exit as the command did, by the same signal if it was one."""
        code = os.waitstatus_to_exitcode(self.status) if self.status is not None else -signal.SIGKILL
        if code < 0:
            import resource

            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the command has dumped its core already
            with suppress(OSError):
                signal.signal(-code, signal.SIG_DFL)
            os.kill(os.getpid(), -code)
        os._exit(code)


def _adopt_orphans() -> None:
    """Become the parent of every orphan below us, so that none escapes by a session of its own (Linux)."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _survivors(child: int) -> list[int]:
    """Targets for `os.kill` that reach all that lives below us: pids on Linux, else the child's group."""
    if sys.platform == "linux":
        return _descendants(os.getpid())
    with suppress(ProcessLookupError):
        os.kill(-child, 0)
        return [-child]
    return []


def _descendants(root: int) -> list[int]:
    """Living processes below `root`, from /proc; a zombie is not living."""
    children = defaultdict(list)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            state, parent = stat.read_bytes().rpartition(b")")[2].split()[:2]
            if state != b"Z":
                children[int(parent)].append(int(stat.parent.name))
    found = children[root]
    for pid in found:
        found.extend(children.pop(pid, []))
    return found


def _guard_main(order: str) -> None:
    try:
        guard = _Guard(**json.loads(order))
    except OSError as error:
        print(f"cannot start {json.loads(order)['argv'][0]}: {error}", file=sys.stderr, flush=True)
        os._exit(127)
    guard.run()
    guard.leave()


if __name__ == "__main__":
    _guard_main(sys.argv[1])
