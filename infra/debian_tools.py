"""Bring test servers and fault injectors from this Debian's own packages, without root and without installing them.

Packages are downloaded by `apt-get download` and unpacked by `dpkg -x` into `.solon/tools/<name>`; nothing of the
machine is changed. Standard library only. A stamp in each folder makes a second call end at once, and a deadline
over everything makes a dead network an error instead of a hang.

    python3 infra/debian_tools.py [ceph] [faketime] [fiu]
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / ".solon" / "tools"
DEADLINE_SECONDS = 180.0
"""All of apt's and dpkg's work for one tool ends before this."""

_APT = ("apt-get", "-q", "-o", "Acquire::http::Timeout=15", "-o", "Acquire::Retries=1", "-o", "Debug::NoLocking=1")


class Missing(RuntimeError):
    """The tool cannot be had on this machine; the message says why and what would help."""


class Tool(NamedTuple):
    packages: tuple[str, ...]
    """What is unpacked, together with the libraries that the machine lacks for them."""
    checks: tuple[tuple[str, ...], ...]
    """Commands that must succeed in the tool's environment."""


CATALOGUE = {
    "ceph": Tool(
        ("radosgw", "ceph-mon", "ceph-osd", "ceph-base", "ceph-common", "librados2"),
        tuple((name, "--version") for name in ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin")),
    ),
    "faketime": Tool(("libfaketime",), ()),
    "fiu": Tool(("libfiu0", "fiu-utils"), ()),
}


def fetch(name: str) -> Path:
    """The folder in which the tool is unpacked and proven to run. Raises: Missing."""
    tool, folder = CATALOGUE[name], TOOLS / name
    stamp, wanted = folder / ".solon-stamp", hashlib.sha256(repr(tool).encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return folder
    for program in ("apt-get", "dpkg"):
        if not shutil.which(program):
            raise Missing(f"{name}: comes from Debian packages, but this machine has no {program}")
    print(f"fetching {name} from Debian packages (once)", file=sys.stderr, flush=True)
    TOOLS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=TOOLS, prefix=f"{name}-") as scratch:
        unpacked = _unpack(name, tool, Path(scratch))
        for check in tool.checks:
            _run(name, check, Path(scratch), time.monotonic() + 30, environment(unpacked))
        (unpacked / ".solon-stamp").write_text(wanted)
        shutil.rmtree(folder, ignore_errors=True)
        unpacked.rename(folder)
    return folder


def environment(folder: Path) -> dict[str, str]:
    """What a program of the unpacked tool needs in its environment besides the usual."""
    libraries = [*library_folders(folder), *(path / "ceph" for path in library_folders(folder))]
    paths = [folder / "usr" / "bin", os.environ.get("PATH", os.defpath)]
    return {"LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries)), "PATH": os.pathsep.join(map(str, paths))}


def library_folders(folder: Path) -> list[Path]:
    """Where the packages keep libraries: `usr/lib/<machine>-linux-gnu`, and `lib/...` in older ones."""
    return sorted([*folder.glob("usr/lib/*-linux-gnu*"), *folder.glob("lib/*-linux-gnu*")], reverse=True)


def find_file(folder: Path, name: str) -> Path:
    """The one file of that name in an unpacked tool. Raises: Missing."""
    for path in sorted(folder.rglob(name)):
        return path
    raise Missing(f"{folder.name}: its packages hold no {name}; this Debian packs it otherwise than expected")


def _unpack(name: str, tool: Tool, scratch: Path) -> Path:
    deadline = time.monotonic() + DEADLINE_SECONDS
    packages, unpacked = scratch / "packages", scratch / "root"
    packages.mkdir()
    try:
        _download(name, tool, packages, (), deadline)
    except Missing:  # a fresh machine has no lists of packages: fetch them into a folder of our own
        options = _private_lists(scratch)
        _run(name, (*_APT, *options, "update"), scratch, deadline)
        _download(name, tool, packages, options, deadline)
    for package in sorted(packages.glob("*.deb")):
        _run(name, ("dpkg", "-x", str(package), str(unpacked)), scratch, deadline)
    shutil.rmtree(unpacked / "usr" / "share" / "doc", ignore_errors=True)
    return unpacked


def _download(name: str, tool: Tool, target: Path, options: tuple[str, ...], deadline: float) -> None:
    """The named packages and the libraries they lack; the programs they also want serve a real installation."""
    simulate = (*_APT, *options, "install", "--simulate", "--no-install-recommends", *tool.packages)
    lacking = re.findall(r"^Inst (\S+)", _run(name, simulate, target, deadline), re.MULTILINE)
    wanted = {*tool.packages, *(package for package in lacking if package.startswith("lib"))}
    _run(name, (*_APT, *options, "download", *sorted(wanted)), target, deadline)


def _private_lists(scratch: Path) -> tuple[str, ...]:
    for folder in ("lists/partial", "cache/archives/partial"):
        (scratch / folder).mkdir(parents=True)
    return "-o", f"Dir::State::lists={scratch}/lists", "-o", f"Dir::Cache={scratch}/cache"


def _run(name: str, command: tuple[str, ...], folder: Path, deadline: float, env: dict[str, str] | None = None) -> str:
    seconds = max(1.0, deadline - time.monotonic())
    shown = " ".join(command[:1] + command[len(_APT) :]) if command[0] == "apt-get" else " ".join(command)
    try:
        result = subprocess.run(
            command, cwd=folder, env={**os.environ, **(env or {})}, timeout=seconds, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Missing(f"{name}: `{shown:.120}` had not ended after {seconds:.0f} s; is the network there?") from None
    except OSError as error:
        raise Missing(f"{name}: cannot run {command[0]}: {error}") from None
    if result.returncode != 0:
        reason = (result.stderr.strip() or result.stdout.strip() or "no message").splitlines()[-1]
        raise Missing(f"{name}: `{shown:.120}` ended with exit code {result.returncode}: {reason:.300}")
    return result.stdout


if __name__ == "__main__":
    try:
        for wanted_name in sys.argv[1:] or CATALOGUE:
            print(fetch(wanted_name))
    except Missing as error:
        sys.exit(f"tools: {error}")
