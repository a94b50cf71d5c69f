"""What memory there is, read from small trees of proc and sys, and from what nvidia-smi prints."""

from pathlib import Path

import pytest

from tasks.training.preflight.device import find_device, gpu, machine

GIB = 2**30


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def meminfo(gib: int) -> dict[str, str]:
    return {"proc/meminfo": f"MemTotal: 99999999 kB\nMemAvailable: {gib * 2**20} kB\n"}


def test_gpu_the_smallest_of_several_decides() -> None:
    found = gpu("NVIDIA H100 80GB HBM3, 81559\nNVIDIA A100-SXM4-40GB, 40960\n")
    assert found is not None
    assert (found.kind, found.name, found.count, found.bytes) == ("cuda", "NVIDIA A100-SXM4-40GB", 2, 40960 * 2**20)


@pytest.mark.parametrize("listing", ["", "No devices were found\n", "NVIDIA-SMI has failed, see the log\n"])
def test_gpu_none_listed_is_none(listing: str) -> None:
    assert gpu(listing) is None


def test_machine_without_a_limit_has_what_the_kernel_says(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n", "sys/fs/cgroup/memory.current": "1\n"}
    found = machine(write(tmp_path, meminfo(16) | files))
    assert (found.bytes, found.source) == (16 * GIB, "MemAvailable of /proc/meminfo")


def test_machine_limit_of_version_2_leaves_what_is_not_used_but_for_cached_files(tmp_path: Path) -> None:
    group = "sys/fs/cgroup/job"
    files = {
        "proc/self/cgroup": "0::/job/step\n",
        f"{group}/memory.max": f"{8 * GIB}\n",
        f"{group}/memory.current": f"{5 * GIB}\n",
        f"{group}/memory.stat": f"anon {3 * GIB}\ninactive_file {2 * GIB}\n",
    }
    found = machine(write(tmp_path, meminfo(16) | files))
    assert (found.bytes, found.source) == (
        5 * GIB,
        "memory limit of cgroup /job",
    )  # the limit stands above the own group


def test_machine_limit_of_version_1_counts(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "5:cpu:/x\n4:memory:/x\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{4 * GIB}\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{1 * GIB}\n",
        "sys/fs/cgroup/memory/memory.stat": f"total_inactive_file {GIB // 2}\n",
    }
    assert machine(write(tmp_path, meminfo(16) | files)).bytes == 3 * GIB + GIB // 2


def test_machine_that_says_nothing_asks_for_the_setting(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"set run\.training\.device_memory_gib"):
        machine(tmp_path)


def test_find_device_the_setting_is_believed() -> None:
    found = find_device(1.5)
    assert (found.bytes, found.source) == (GIB + GIB // 2, "run.training.device_memory_gib")
