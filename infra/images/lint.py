"""What every Dockerfile of Solon has to hold: `python -m infra.images.lint` prints what it does not.

No registry is asked: whether an image of a digest exists is not checked.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from infra.images.dockerfile import Dockerfile, Instruction, is_ignored, pairs, read_dockerfile, read_ignore, words

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "infra" / "images"
STEPS = "infra/images/steps"
SECRET = re.compile(r"PASS|SECRET|TOKEN|CREDENTIAL|PRIVATE|(^|_)(API_?)?KEY($|_)", re.IGNORECASE)
PINNED = re.compile(r"^[\w.-]+(:\d+)?/[\w./-]+:[\w.-]*\d[\w.-]*@sha256:[0-9a-f]{64}$")
LABELS = tuple(f"org.opencontainers.image.{name}" for name in ("title", "licenses", "version", "revision"))


def problems(dockerfile: Dockerfile, root: Path = ROOT) -> list[str]:
    """What is wrong, a line each with file and line; empty if nothing is."""
    found = [*bases(dockerfile), *final(dockerfile)]
    ignore = read_ignore(root / ".dockerignore")
    for stage in dockerfile.stages:
        for instruction in stage.instructions:
            found += [*(f"line {instruction.line}: {text}" for text in judged(instruction, dockerfile, root, ignore))]
    return [f"{dockerfile.path.name}: {text}" for text in found]


def bases(dockerfile: Dockerfile) -> Iterator[str]:
    for stage in dockerfile.stages:
        if stage.base != "scratch" and not dockerfile.is_stage(stage.base) and not PINNED.match(stage.base):
            yield f"FROM {stage.base} is not pinned; expected registry/name:version@sha256:digest"


def final(dockerfile: Dockerfile) -> Iterator[str]:
    """Who the image runs as, and what it says of itself."""
    by_name = {instruction.name: instruction for instruction in dockerfile.final.instructions}
    user = by_name["USER"].value if "USER" in by_name else "root"
    if not re.fullmatch(r"[1-9]\d*:[1-9]\d*", user):
        yield f"USER is {user!r}; expected numbers other than 0, such as 10001:10001"
    if "HEALTHCHECK" not in by_name:
        yield "no HEALTHCHECK"
    labels = pairs(by_name["LABEL"]) if "LABEL" in by_name else {}
    yield from (f"no label {label}" for label in LABELS if not labels.get(label))
    if len(dockerfile.stages) < 2:
        yield "one stage; expected what only building needs in a stage of its own"


def judged(instruction: Instruction, dockerfile: Dockerfile, root: Path, ignore: list[str]) -> Iterator[str]:
    """What is wrong with one instruction."""
    if instruction.name == "ADD":
        yield "ADD may fetch and unpack; expected COPY"
    if instruction.name in ("ARG", "ENV"):
        yield from (f"{name} looks like a secret; pass a file" for name in pairs(instruction) if SECRET.search(name))
    if instruction.name == "RUN":
        yield from step_problems(words(instruction), root)
    if instruction.name == "COPY" and "from" in instruction.flags:
        if not dockerfile.is_stage(instruction.flags["from"]):
            yield f"COPY from {instruction.flags['from']}, which is no stage of this file"
    elif instruction.name == "COPY":
        for source in words(instruction)[:-1]:
            if not (root / source).exists():
                yield f"COPY {source}: there is no such path"
            elif is_ignored(source, ignore):
                yield f"COPY {source}: .dockerignore leaves it out"


def step_problems(command: list[str], root: Path) -> Iterator[str]:
    if command[0] != "sh" or not command[1].startswith("/steps/") or any(word in "&&;|" for word in command):
        yield f"RUN {' '.join(command)}; expected one script: sh /steps/NAME.sh ..."
    elif not (root / STEPS / Path(command[1]).name).is_file():
        yield f"RUN {command[1]}: {STEPS} has no such script"


def main() -> None:
    found = [text for path in sorted(IMAGES.glob("*.Dockerfile")) for text in problems(read_dockerfile(path))]
    print("\n".join(found) or "nothing to say")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
