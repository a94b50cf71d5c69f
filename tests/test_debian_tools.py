"""Fetching test servers: what is unpacked, what a second call costs, and that no machine makes it hang."""

import re
from pathlib import Path

import pytest

from infra import debian_tools
from infra.debian_tools import Missing, Tool, fetch

APT = """
echo "$@" >> "$CALLS"
case "$*" in
  *--simulate*) printf 'Inst libneeded (1)\\nInst wants-root (1)\\nConf libneeded (1)\\n' ;;
  *download*) for name; do case $name in named|libneeded|wants-root) : > "$name.deb" ;; esac; done ;;
esac
"""
DPKG = """mkdir -p "$3/usr/bin"; : > "$3/usr/bin/$(basename "$2" .deb)" """


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose apt-get and dpkg are small scripts; CALLS holds what apt-get was asked."""
    for name, script in (("apt-get", APT), ("dpkg", DPKG)):
        program(tmp_path, name, script)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setattr(debian_tools, "TOOLS", tmp_path / "tools")
    monkeypatch.setattr(debian_tools, "CATALOGUE", {"tool": Tool(("named",), (("true",),))})
    return tmp_path


def program(folder: Path, name: str, script: str) -> None:
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin" / name).write_text(f"#!/bin/sh\n{script}")
    (folder / "bin" / name).chmod(0o755)


def test_fetch_unpacks_the_named_packages_and_the_libraries_they_lack(machine: Path) -> None:
    assert {path.name for path in (fetch("tool") / "usr" / "bin").iterdir()} == {"named", "libneeded"}


def test_fetch_again_runs_nothing(machine: Path) -> None:
    first = fetch("tool")
    calls = (machine / "calls").read_text()
    assert fetch("tool") == first
    assert (machine / "calls").read_text() == calls


def test_fetch_of_another_catalogue_starts_anew(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch("tool")
    monkeypatch.setattr(debian_tools, "CATALOGUE", {"tool": Tool(("wants-root",), ())})
    assert {path.name for path in (fetch("tool") / "usr" / "bin").iterdir()} == {"wants-root", "libneeded"}


def test_fetch_without_debian_says_what_is_missing(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(machine))
    with pytest.raises(Missing, match=r"tool: comes from Debian packages.*no apt-get"):
        fetch("tool")


def test_fetch_of_an_unknown_package_repeats_what_apt_says(machine: Path) -> None:
    program(machine, "apt-get", "echo 'E: Unable to locate package named' >&2; exit 100")
    with pytest.raises(Missing, match="exit code 100: E: Unable to locate package named"):
        fetch("tool")
    assert not (machine / "tools" / "tool").exists()


def test_fetch_from_a_network_that_never_answers_ends(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(machine, "apt-get", "exec sleep 60")
    monkeypatch.setattr(debian_tools, "DEADLINE_SECONDS", 0.1)
    with pytest.raises(Missing, match=re.compile("had not ended after 1 s; is the network there")):
        fetch("tool")


def test_fetch_of_a_program_that_does_not_run_here_is_not_kept(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check = ("sh", "-c", "echo wrong machine >&2; exit 1")
    monkeypatch.setattr(debian_tools, "CATALOGUE", {"tool": Tool(("named",), (check,))})
    with pytest.raises(Missing, match="wrong machine"):
        fetch("tool")
    assert list((machine / "tools").iterdir()) == []
