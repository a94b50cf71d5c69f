"""What memory there is: of the smallest GPU, or of the machine where there is none."""

import shutil
import subprocess
from pathlib import Path
from typing import Literal

from tasks.schema import Frozen

MIB = 2**20


class Device(Frozen):
    """What trains."""

    kind: Literal["cuda", "cpu"]
    name: str
    count: int
    """GPUs there are; 1 without any: processes share the machine's memory."""
    bytes: int
    """Memory of one GPU, or what the machine has to spare."""
    source: str
    """Where the figure comes from."""


def find_device(memory_gib: float | None = None) -> Device:
    """The device of this machine; `memory_gib` is believed instead of what the machine says.

    Raises: ValueError: nothing says how much memory there is.
    """
    device = gpu(_nvidia_smi()) or machine(Path("/"))
    if memory_gib is None:
        return device
    return device.model_copy(update={"bytes": int(memory_gib * 2**30), "source": "run.training.device_memory_gib"})


def gpu(listing: str) -> Device | None:
    """The smallest GPU of nvidia-smi's `name, MiB` lines; None if it lists none.

    Its whole memory counts: a run stops its own inference servers before it trains.
    """
    found = [line.rsplit(",", 1) for line in listing.splitlines() if "," in line]
    sizes = sorted((int(size), name.strip()) for name, size in found if size.strip().isdigit())
    if not sizes:
        return None
    size, name = sizes[0]
    return Device(kind="cuda", name=name, count=len(sizes), bytes=size * MIB, source="nvidia-smi")


def machine(root: Path) -> Device:
    """What the kernel says is available, or what a memory limit leaves if that is less.

    `root` is where proc and sys are. Raises: ValueError: the kernel says nothing.
    """
    limits = [(left, f"memory limit of cgroup {name}") for name, left in _cgroups_leave(root)]
    smallest = min([*limits, *_available(root)], default=None)
    if smallest is None:
        raise ValueError(
            "preflight: neither /proc/meminfo nor a cgroup says how much memory there is; "
            "set run.training.device_memory_gib"
        )
    return Device(kind="cpu", name="CPU", count=1, bytes=smallest[0], source=smallest[1])


def _nvidia_smi() -> str:
    if not shutil.which("nvidia-smi"):
        return ""
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    return subprocess.run(query, capture_output=True, text=True, timeout=60, check=False).stdout


def _available(root: Path) -> list[tuple[int, str]]:
    text = _read(root / "proc/meminfo")
    lines = [line.split() for line in text.splitlines() if line.startswith("MemAvailable:")]
    return [(int(words[1]) * 1024, "MemAvailable of /proc/meminfo") for words in lines]


def _cgroups_leave(root: Path) -> list[tuple[str, int]]:
    """(name, bytes left) of this process's memory cgroup and of those above it that have a limit."""
    left = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, name = line.split(":", 2)
        if controllers == "":  # cgroup version 2
            base, files = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            base = root / "sys/fs/cgroup/memory"
            files = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        path = Path(name)
        # inside a container the own cgroup is often mounted at the base whatever its name is outside
        for group in (path, *path.parents):
            found = _leaves(base / str(group).lstrip("/"), *files)
            left += [(str(group), found)] if found is not None else []
    return left


def _leaves(folder: Path, limit_file: str, used_file: str, reclaimable: str) -> int | None:
    """Bytes that a cgroup may still take, cached files counted as free; None without a limit."""
    limit, used = _read(folder / limit_file).strip(), _read(folder / used_file).strip()
    if not (limit.isdigit() and used.isdigit()):
        return None  # "max", or no such file
    words = [line.split() for line in _read(folder / "memory.stat").splitlines()]
    cached = sum(int(value) for name, value in words if name == reclaimable)
    return max(0, int(limit) - int(used) + cached)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
