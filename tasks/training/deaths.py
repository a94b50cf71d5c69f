"""Why a training process ended, in words that say what to do."""

import re
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

LESS_MEMORY = (
    "lower micro_batch_size or max_tokens, set gradient_checkpointing, or train adapters (lora_rank) instead of all "
    "weights"
)
_OUT_OF_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory", re.IGNORECASE)
_ROOT_CAUSE = re.compile(r"^Root Cause.*?^\s*exitcode\s*: (-?\d+) ", re.MULTILINE | re.DOTALL)
"""Of torchrun's closing summary: how the process ended that failed first."""

_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class MemoryKills:
    """How many processes the kernel has killed for want of memory."""

    cgroup: int = 0
    """Among those that share our memory limit."""
    machine: int = 0
    """On the whole machine."""

    @classmethod
    def now(cls) -> Self:
        own = sum(_count(path) for path in _cgroup_files(Path("/proc/self/cgroup"), _CGROUPS))
        return cls(own, _count(Path("/proc/vmstat")))

    def since(self, before: "MemoryKills") -> str:
        """What the counters say of the time since `before`; empty where they say nothing."""
        if self.cgroup > before.cgroup:
            return "the kernel's counter says that memory ran out: a process under this memory limit was killed for it"
        if self.machine > before.machine:
            return "the kernel's counter says that memory ran out: a process of this machine was killed for it"
        return ""


def describe(error: Exception) -> dict[str, Any]:
    """An error as an event. `bad_input`: the same input and settings would end in the same way."""
    message = str(error)
    if lacks_memory(error):
        message += f"; {LESS_MEMORY}"
    bad_input = isinstance(error, ValueError | FloatingPointError)
    return {"type": type(error).__name__, "message": message, "bad_input": bad_input}


def lacks_memory(error: Exception) -> bool:
    """Whether a device or the machine had no memory left; torch has an error of its own for CUDA only."""
    by_name = type(error).__name__ == "OutOfMemoryError"  # naming the type would import torch
    return by_name or isinstance(error, MemoryError) or bool(_OUT_OF_MEMORY.search(str(error)))


def how_it_ended(code: int, log: str, memory: str) -> str:
    """The end of a training without a result. `code` as of `GuardedProcess`, `memory` as of `MemoryKills.since`."""
    number = ending_signal(code, log)
    if number == signal.SIGKILL:
        cause = memory or "most often that means that memory ran out"
        return f"a training process was killed by SIGKILL; {cause}; {LESS_MEMORY}"
    if number is not None:
        note = f"; {memory}" if memory else ""
        return f"a training process was killed by {_name(number)}{note}"
    if code == 127:
        return "the training process could not be started; its log says why"
    return f"the training process ended with exit code {code} and no result; its log says more"


def ending_signal(code: int, log: str) -> int | None:
    """The signal that ended the process, or of several the one that failed first; None: no signal."""
    causes = _ROOT_CAUSE.findall(log)
    code = int(causes[-1]) if causes else code
    return -code if code < 0 else None


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _cgroup_files(membership: Path, root: Path) -> list[Path]:
    """Where the kernel counts for our cgroup: version 2, or version 1's memory controller."""
    files = []
    for line in membership.read_text().splitlines() if membership.exists() else ():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            files += [root / path.lstrip("/") / "memory.events", root / "memory.events"]
        elif "memory" in controllers.split(","):
            files += [root / "memory" / path.lstrip("/") / "memory.oom_control", root / "memory" / "memory.oom_control"]
    # inside a container its own cgroup is mounted as the root, whatever its path outside is
    return [next(path for path in files if path.exists())] if any(path.exists() for path in files) else []


def _count(path: Path) -> int:
    """The number behind `oom_kill`; 0 where the kernel gives none."""
    try:
        found = re.search(r"^oom_kill (\d+)$", path.read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) if found else 0
