"""Carries a Dockerfile out without docker: each stage a folder, each RUN a chroot in namespaces of its own.

For proving that the steps work, not for making images: no layers, no cache, no registry. An outside image is replaced
by a folder that debootstrap made of the same Debian release. Needs root, debootstrap, unshare, and packages from where
this machine's own apt and pip have them (`CARRIED`).
"""

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from infra.images.dockerfile import (
    Dockerfile,
    DockerfileError,
    Instruction,
    Stage,
    is_ignored,
    pairs,
    read_ignore,
    substitute,
    words,
)

ROOT = Path(__file__).resolve().parents[2]
SUITE = "bookworm"
METADATA = ("LABEL", "HEALTHCHECK", "ENTRYPOINT", "CMD", "VOLUME", "EXPOSE", "USER")
"""What changes no file. USER counts from the image's start on; a RUN after it would be an error here."""
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CARRIED = ("PIP_FIND_LINKS", "SSL_CERT_FILE", "PIP_CERT", "UV_DEFAULT_INDEX", "PIP_INDEX_URL")
"""How this machine reaches packages, as docker carries proxy settings."""
CERTIFICATES = "/run/host-certificates.crt"
"""Where a step finds this machine's bundle: apart from the root's own, which the package ca-certificates rewrites."""

Binds = list[tuple[Path, str]]
"""(path here, path in the root)."""


class BuildFailed(RuntimeError):
    """A step ended with another exit code than 0."""


class Builder:
    """Builds the stages of one Dockerfile below `folder`."""

    def __init__(self, dockerfile: Dockerfile, base: Path, folder: Path, arguments: Mapping[str, str]) -> None:
        self.dockerfile, self.base, self.folder, self.arguments = dockerfile, base, folder, arguments
        self.ignore = read_ignore(ROOT / ".dockerignore")
        self.env = dict[str, dict[str, str]]()
        """ENV by stage."""

    def build(self, *names: str) -> None:
        """Stages of these names and what they stand on, anew."""
        needed = set(names)
        for stage in reversed(self.dockerfile.stages):
            if stage.name in needed:
                needed |= {stage.base, *(i.flags["from"] for i in stage.instructions if "from" in i.flags)}
        for stage in self.dockerfile.stages:
            if stage.name in needed:
                self.build_stage(stage)

    def root(self, name: str) -> Path:
        return self.folder / name

    def build_stage(self, stage: Stage) -> None:
        root, known = self.root(stage.name), self.dockerfile.is_stage(stage.base)
        shutil.rmtree(root, ignore_errors=True)
        if stage.base == "scratch":
            root.mkdir(parents=True)
        else:
            source = self.root(stage.base) if known else self.base
            root.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(["cp", "-a", "--reflink=auto", str(source), str(root)], check=True)
        self.env[stage.name] = dict(self.env[stage.base]) if known else {"PATH": PATH}
        values = dict[str, str]()
        for instruction in stage.instructions:
            self.carry_out(stage.name, instruction, values)

    def carry_out(self, stage: str, instruction: Instruction, values: dict[str, str]) -> None:
        env, known = self.env[stage], {**values, **self.env[stage]}
        if instruction.name == "ARG":
            values |= {name: self.arguments.get(name, value) for name, value in pairs(instruction).items()}
        elif instruction.name == "ENV":
            env |= {name: substitute(value, known) for name, value in pairs(instruction).items()}
        elif instruction.name == "COPY":
            self.copy(stage, instruction)
        elif instruction.name == "WORKDIR":
            below(self.root(stage), instruction.value).mkdir(parents=True, exist_ok=True)
        elif instruction.name == "RUN":
            run_in(self.root(stage), ["sh", "-c", substitute(instruction.value, known)], env)
        elif instruction.name not in METADATA:
            raise DockerfileError(
                f"{self.dockerfile.path}:{instruction.line}: {instruction.name} is not carried out here"
            )

    def copy(self, stage: str, instruction: Instruction) -> None:
        *sources, target = words(instruction)
        context = self.root(instruction.flags["from"]) if "from" in instruction.flags else ROOT
        for source in sources:
            path = below(context, source)
            to = below(self.root(stage), target)
            to = to / path.name if target.endswith("/") and path.is_file() else to
            to.parent.mkdir(parents=True, exist_ok=True)
            if path.is_file():
                shutil.copy2(path, to)
            else:
                shutil.copytree(path, to, symlinks=True, dirs_exist_ok=True, ignore=self.left_out(context))

    def left_out(self, context: Path):  # type: ignore[no-untyped-def]  # what copytree calls back
        def ignored(folder: str, names: list[str]) -> list[str]:
            if context != ROOT:
                return []
            return [n for n in names if is_ignored(str((Path(folder) / n).relative_to(ROOT)), self.ignore)]

        return ignored


def below(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


def make_base(folder: Path) -> Path:
    """A minimal Debian, made once. Raises: BuildFailed: debootstrap failed."""
    if not (folder / "etc" / "debian_version").exists():
        shutil.rmtree(folder, ignore_errors=True)
        command = ["debootstrap", "--variant=minbase", SUITE, str(folder)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            raise BuildFailed(f"debootstrap: {result.stdout[-500:]}{result.stderr[-500:]}")
    return folder


def run_in(root: Path, command: list[str], env: Mapping[str, str]) -> None:
    """A step as root in the folder. Raises: BuildFailed."""
    print(f"  RUN {command[-1]}", flush=True)
    carried = {name: os.environ[name] for name in CARRIED if name in os.environ}
    if "PIP_FIND_LINKS" in carried:
        carried["UV_FIND_LINKS"] = ",".join(carried["PIP_FIND_LINKS"].split())
    folders = [Path("/etc/resolv.conf"), *map(Path, carried.get("PIP_FIND_LINKS", "").split())]
    shown = [(path, str(path)) for path in folders]
    bundle = carried.get("SSL_CERT_FILE") or carried.get("PIP_CERT")
    if bundle:
        carried |= {"SSL_CERT_FILE": CERTIFICATES, "PIP_CERT": CERTIFICATES}
        shown.append((Path(bundle), CERTIFICATES))
    inside = ["chroot", str(root), *with_environment({**env, **carried}), *command]
    result = subprocess.run(namespaced(root, inside, [], shown, read_only=False), check=False)
    if result.returncode:
        raise BuildFailed(f"exit code {result.returncode}: {' '.join(command)}")


def namespaced(root: Path, inside: list[str], binds: Binds, shown: Binds, read_only: bool) -> list[str]:
    """A command of which all mounts and processes go with it. What is `shown` of this machine it can only read.

    Read-only: nothing of the root can be written but `binds`, and /tmp, which is then a tmpfs.
    """
    steps = ["set -eu", f"mount --bind {quoted(root)} {quoted(root)}"]
    for source, target in [*binds, *shown]:
        to = below(root, target)
        make = f"mkdir -p {quoted(to)}" if source.is_dir() else f"mkdir -p {quoted(to.parent)}; touch {quoted(to)}"
        steps.append(f"{make}; mount --bind {quoted(source)} {quoted(to)}")
        if (source, target) in shown:
            steps.append(f"mount -o remount,bind,ro {quoted(to)}")
    steps += [f"mkdir -p {quoted(root)}/proc {quoted(root)}/dev", f"mount -t proc proc {quoted(root)}/proc"]
    steps += [f"mount --rbind /dev {quoted(root)}/dev"]
    if read_only:
        steps += [f"mount -t tmpfs -o mode=1777 tmpfs {quoted(root)}/tmp"]
        steps += [f"mount -o remount,bind,ro {quoted(root)}"]
    steps.append("exec " + " ".join(map(quoted, inside)))
    unshare = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork"]
    return [*unshare, "sh", "-c", "\n".join(steps)]


def with_environment(env: Mapping[str, str]) -> list[str]:
    """A prefix for a command that has this environment and nothing of ours."""
    return ["/usr/bin/env", "-i", *(f"{name}={value}" for name, value in env.items())]


def quoted(word: object) -> str:
    return shlex.quote(str(word))
