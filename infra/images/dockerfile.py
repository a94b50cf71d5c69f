"""Reads a Dockerfile and a .dockerignore: what `lint.py` judges and `chroot_build.py` carries out.

Standard library only. It knows what Solon's Dockerfiles use: comments, continued lines, stages, ARG and ENV with
substitution, the JSON form of CMD. Here-documents are refused, not misread.
"""

import fnmatch
import json
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple


class DockerfileError(ValueError):
    """A line that this reader does not understand; the message names file and line."""


class Instruction(NamedTuple):
    """One instruction."""

    line: int
    name: str
    """In capitals."""
    flags: dict[str, str]
    """`--from=build` as {"from": "build"}."""
    value: str
    """What follows the flags, on one line."""


class Stage(NamedTuple):
    """What a FROM begins."""

    base: str
    """An image, or the name of an earlier stage."""
    name: str
    instructions: tuple[Instruction, ...]


class Dockerfile(NamedTuple):
    path: Path
    arguments: tuple[Instruction, ...]
    """ARGs before the first FROM."""
    stages: tuple[Stage, ...]

    @property
    def final(self) -> Stage:
        """The stage that becomes the image."""
        return self.stages[-1]

    def is_stage(self, name: str) -> bool:
        return any(stage.name == name for stage in self.stages)


def read_dockerfile(path: Path) -> Dockerfile:
    """Raises: DockerfileError: a line is none that this reader knows."""
    arguments, stages = list[Instruction](), list[Stage]()
    for instruction in instructions(path):
        if instruction.name == "FROM":
            words = instruction.value.split()
            if len(words) not in (1, 3) or (len(words) == 3 and words[1].upper() != "AS"):
                raise DockerfileError(f"{path}:{instruction.line}: expected FROM image [AS name]")
            stages.append(Stage(words[0], words[2] if len(words) == 3 else str(len(stages)), ()))
        elif stages:
            last = stages[-1]
            stages[-1] = last._replace(instructions=(*last.instructions, instruction))
        elif instruction.name == "ARG":
            arguments.append(instruction)
        else:
            raise DockerfileError(f"{path}:{instruction.line}: {instruction.name} before the first FROM")
    if not stages:
        raise DockerfileError(f"{path}: no FROM")
    return Dockerfile(path, tuple(arguments), tuple(stages))


def instructions(path: Path) -> Iterator[Instruction]:
    for number, line in logical_lines(path.read_text()):
        name, _, rest = line.partition(" ")
        if not re.fullmatch(r"[A-Za-z]+", name) or not rest.strip() or "<<" in rest:
            raise DockerfileError(f"{path}:{number}: {line!r} is no instruction that this reader knows")
        flags = dict[str, str]()
        value = rest.strip()
        while match := re.match(r"--([a-z-]+)(?:=(\S+))?\s+", value):
            flags[match[1]] = match[2] or ""
            value = value[match.end() :]
        yield Instruction(number, name.upper(), flags, value)


def logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """(number of its first line, line) with continuations joined, without comments and empty lines."""
    joined, first = "", 0
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        first = first or number
        if stripped.endswith("\\"):
            joined += stripped[:-1].rstrip() + " "
            continue
        yield first, joined + stripped
        joined, first = "", 0


def pairs(instruction: Instruction) -> dict[str, str]:
    """What an ENV or LABEL sets, or an ARG declares (empty without a default)."""
    words = shlex.split(instruction.value)
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def words(instruction: Instruction) -> list[str]:
    """The words of a CMD, ENTRYPOINT, HEALTHCHECK, COPY or RUN, of its JSON form too."""
    value = instruction.value.removeprefix("CMD ")
    if value.startswith("["):
        parsed: list[str] = json.loads(value)
        return parsed
    return shlex.split(value)


def substitute(text: str, values: Mapping[str, str]) -> str:
    """With `$NAME` and `${NAME}` replaced; a name without a value becomes empty, as docker has it."""
    return re.sub(r"\$\{(\w+)\}|\$(\w+)", lambda match: values.get(match[1] or match[2], ""), text)


def read_ignore(path: Path) -> list[str]:
    lines = [line.strip() for line in path.read_text().splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def is_ignored(name: str, patterns: list[str]) -> bool:
    """Whether a path of the build context is left out: the last pattern that meets it or a folder above decides."""
    parts = Path(name).parts
    paths = ["/".join(parts[: count + 1]) for count in range(len(parts))]
    ignored = False
    for pattern in patterns:
        wanted = pattern.removeprefix("!").strip("/")
        if any(matches(path, wanted) for path in paths):
            ignored = not pattern.startswith("!")
    return ignored


def matches(path: str, pattern: str) -> bool:
    if pattern.startswith("**/"):
        rest = pattern[3:]
        return fnmatch.fnmatchcase(Path(path).name, rest) if "/" not in rest else fnmatch.fnmatchcase(path, f"*/{rest}")
    # a star of docker's stays within one folder
    return path.count("/") == pattern.count("/") and fnmatch.fnmatchcase(path, pattern)
