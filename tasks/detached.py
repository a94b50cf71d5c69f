"""Processes that outlive us: started once, found again by a later command, and stopped by another.

A pid alone names nobody, since the kernel gives it out again: a process is known by its pid and its start time. All
that descends from one carries a mark in its environment, by which orphans are found too, whoever is their parent now.
"""

import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from tasks.schema import Frozen

MARK = "SOLON_MACHINE"
"""Environment variable that says which machine (its home folder) a process belongs to."""
CLOCK_SECONDS = 2.0
"""A start time is reckoned from the system's clock, which may be set by this much meanwhile."""


class Detached(Frozen):
    """A process as a file records it."""

    pid: int
    started: float
    """When it started, in seconds since the epoch."""
    log: str
    """File with its output."""

    def is_alive(self) -> bool:
        """Whether this process runs; another one that got its pid does not count."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < CLOCK_SECONDS
            return same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def log_tail(self, num_lines: int = 15) -> str:
        """The last lines that it wrote."""
        return "\n".join(Path(self.log).read_text(errors="replace").splitlines()[-num_lines:])


def start_detached(argv: Sequence[str], env: Mapping[str, str], log: Path, cwd: Path) -> Detached:
    """Start `argv` in a session of its own. The log of the process before it is kept beside as `.before`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists():
        log.replace(log.with_name(f"{log.name}.before"))
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # so in `make up &` of a script, and children inherit it
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    with log.open("ab") as out:
        child = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env, cwd=cwd, start_new_session=True
        )
    return Detached(pid=child.pid, started=psutil.Process(child.pid).create_time(), log=str(log))


def marked(mark: str) -> list[psutil.Process]:
    """The living processes of this user that carry the mark, oldest first."""
    found = psutil.process_iter(["environ", "status", "create_time"])  # environ is None where it is not ours to read
    ours = [
        p for p in found if (p.info["environ"] or {}).get(MARK) == mark and p.info["status"] != psutil.STATUS_ZOMBIE
    ]
    return sorted(ours, key=lambda process: process.info["create_time"])


def stop(processes: Sequence[psutil.Process], grace_seconds: float) -> None:
    """SIGTERM all of them, and SIGKILL those that are still there after the grace."""
    for process in processes:
        signal_if_there(process, signal.SIGTERM)
    deadline = time.monotonic() + grace_seconds
    while any(is_running(process) for process in processes) and time.monotonic() < deadline:
        time.sleep(0.1)
    for process in processes:
        signal_if_there(process, signal.SIGKILL)
    psutil.wait_procs(processes, timeout=5)


def is_running(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def signal_if_there(process: psutil.Process, number: signal.Signals) -> None:
    """psutil makes sure that the pid is still this process's."""
    if is_running(process):
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            return
