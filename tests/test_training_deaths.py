"""How the death of a training process is told."""

import pytest

from tasks.training.deaths import MemoryKills, describe, ending_signal


class OutOfMemoryError(RuntimeError):
    """Named as torch names its own."""


@pytest.mark.parametrize(
    "error",
    [
        OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"),
        MemoryError(),
    ],
)
def test_error_for_want_of_memory_names_the_settings_that_lower_it(error):
    message = describe(error)["message"]
    assert all(name in message for name in ("micro_batch_size", "max_tokens", "gradient_checkpointing", "lora_rank"))


def test_error_that_the_settings_cause_is_told_apart_from_others():
    assert describe(ValueError("no rows"))["bad_input"] and describe(FloatingPointError("loss is nan"))["bad_input"]
    assert not describe(RuntimeError("disk"))["bad_input"]


def test_memory_kills_since_says_only_what_the_counters_say():
    assert MemoryKills(3, 5).since(MemoryKills(3, 5)) == ""
    assert "this memory limit" in MemoryKills(4, 6).since(MemoryKills(3, 5))
    assert "this machine" in MemoryKills(3, 6).since(MemoryKills(3, 5))


def test_memory_kills_are_read_from_either_version_of_cgroups(tmp_path):
    from tasks.training.deaths import _cgroup_files, _count

    membership = tmp_path / "cgroup"
    (tmp_path / "v2" / "job").mkdir(parents=True)
    (tmp_path / "v2" / "job" / "memory.events").write_text("low 0\nmax 7\noom 2\noom_kill 3\noom_group_kill 0\n")
    membership.write_text("0::/job\n")
    assert [_count(path) for path in _cgroup_files(membership, tmp_path / "v2")] == [3]
    (tmp_path / "v1" / "memory").mkdir(parents=True)
    (tmp_path / "v1" / "memory" / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 6\n")
    membership.write_text("5:cpu:/\n4:memory:/outside/name\n0::/\n")
    assert [_count(path) for path in _cgroup_files(membership, tmp_path / "v1")] == [6]
    assert _cgroup_files(membership, tmp_path / "none") == []


@pytest.mark.parametrize(("code", "log", "expected"), [(-9, "", 9), (1, "", None), (0, "", None), (75, "", None)])
def test_ending_signal_of_one_process_is_its_exit_code(code, log, expected):
    assert ending_signal(code, log) == expected
