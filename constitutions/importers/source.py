"""Which importer a file or folder is for, and what comes out of it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from constitutions.base import ConstitutionError
from constitutions.importers import anthropic
from constitutions.importers.checking import expect
from constitutions.importers.lines import read_lines
from constitutions.importers.llm_swarm import read_llm_swarm
from constitutions.importers.naming import slug
from constitutions.model import Constitution

Format = Literal["anthropic", "llm-swarm", "lines"]
FORMATS: tuple[Format, ...] = get_args(Format)


@dataclass(frozen=True)
class Imported:
    constitution: Constitution
    format: Format
    notes: tuple[str, ...]
    """What was read, and what a reader would not guess."""


def import_constitution(paths: Sequence[Path], format: str = "auto", name: str | None = None) -> Imported:
    """The constitution in foreign files; a folder stands for those of the paper's five files that it has.

    Raises: ConstitutionError: a file or a format that cannot be read, a key that is not known.
    """
    known = ("auto", *FORMATS)
    expect(format in known, "--format", repr(format), " or ".join(known))
    expect(bool(paths), "import", "no file", "a file, several of the paper's, or a folder of them")
    files = [file for path in paths for file in _files(path)]
    names = [file.name for file in files]
    twice = sorted({name for name in names if names.count(name) > 1})
    expect(not twice, ", ".join(str(file) for file in files), f"{', '.join(twice)} twice", "each file name once")
    title = name or slug(paths[0].stem if len(paths) == 1 else paths[0].resolve().parent.name)
    texts = {file.name: _read(file) for file in files}
    if format == "lines" or (format == "auto" and not _is_json(files)):
        file = _only(texts)
        return _imported("lines", read_lines(texts[file], file, title))
    contents = {file: _parse(text, file) for file, text in texts.items()}
    swarm = any(isinstance(content, dict) and "constitutions" in content for content in contents.values())
    if format == "llm-swarm" or (format == "auto" and swarm):
        file = _only(texts)
        return _imported("llm-swarm", read_llm_swarm(contents[file], file, title))
    constitution, notes = anthropic.read_anthropic(contents, title)
    written = {data.decode() for data in anthropic.export_anthropic(constitution).values()}
    notes += [f"{file} comes back with other spacing or escapes" for file in texts if texts[file] not in written]
    return _imported("anthropic", (constitution, notes))


def _imported(format: Format, made: tuple[Constitution, list[str]]) -> Imported:
    return Imported(made[0], format, tuple(made[1]))


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = [path / name for name in anthropic.FILES if (path / name).is_file()]
    expect(bool(found), f"{path}/", "none of the paper's files", f"one of {', '.join(anthropic.FILES)}")
    return found


def _is_json(files: list[Path]) -> bool:
    return len(files) > 1 or files[0].suffix == ".json" or _read(files[0]).lstrip()[:1] in ("{", "[")


def _only(texts: dict[str, str]) -> str:
    expect(len(texts) == 1, ", ".join(texts), f"{len(texts)} files", "one file of this format at a time")
    return next(iter(texts))


def _read(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConstitutionError(f"{file}: a byte that is not UTF-8 at {error.start}, expected UTF-8 text") from error
    except OSError as error:
        raise ConstitutionError(f"{file}: {error.strerror}, expected a file to import") from error


def _parse(text: str, file: str) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [key for key, _ in pairs]
        twice = sorted({key for key in names if names.count(key) > 1})
        expect(not twice, file, f"key {', '.join(twice)} twice in one mapping", "each key once: one would be lost")
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise ConstitutionError(
            f"{file}:{error.lineno}: not JSON: {error.msg}; for plain text --format lines"
        ) from error
