"""Reads a constitution from YAML; whatever is wrong is reported with file, line and field, all at once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from constitutions.extend import base_file, in_order, merged
from constitutions.model import Constitution, ConstitutionError
from constitutions.problems import described, duplicate_keys, line_of, syntax_line, syntax_reason

SHIPPED = Path(__file__).parent


@dataclass(frozen=True)
class Loaded:
    """A constitution, and which files it came from; paths are no part of what it is."""

    constitution: Constitution
    files: tuple[Path, ...]
    """The file itself, then the one that it extends, and so on."""
    origins: dict[str, Path]
    """Principle id -> the file that has its texts."""
    changed: frozenset[str]
    """Ids of principles that came from an extended file and got another setting, such as a weight, on the way."""


class _Loader(yaml.SafeLoader):
    """Safe YAML in which a date is text: nothing in a constitution is a date, and a wrong one has no line."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML declares it so
        start: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for start, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def load_constitution(path: Path | str) -> Constitution:
    """The constitution in a YAML file, with what it extends put into it.

    Raises: ConstitutionError: one line for each thing that is wrong, `file:line: field: value, expected ...`.
    """
    return load_with_origins(path).constitution


def load_with_origins(path: Path | str) -> Loaded:
    """The constitution in a YAML file, and where each of its principles comes from.

    Raises: ConstitutionError.
    """
    return _load(Path(path), ())


def _load(file: Path, extending: tuple[Path, ...]) -> Loaded:
    root, content = _parse(file)
    base = None
    if "extends" in content:
        line = line_of(root, ("extends",))
        base = _load(base_file(file, content.pop("extends"), line, extending, SHIPPED), (*extending, file))
    problems = list(duplicate_keys(root, (), set()))
    constitution = None
    try:
        constitution = Constitution.model_validate(merged(content, base.constitution) if base else content)
    except ValidationError as error:
        problems += [described(root, detail) for detail in error.errors()]
    if problems or constitution is None:
        raise ConstitutionError("\n".join(f"{file}:{line}: {message}" for line, message in sorted(problems)))
    if base is None:
        return Loaded(constitution, (file,), {p.id: file for p in constitution.principles}, frozenset())
    return _over(in_order(constitution, base.constitution), base, file)


def _over(constitution: Constitution, base: Loaded, file: Path) -> Loaded:
    """What `file` made of `base`: a principle whose texts are the base's still comes from there."""
    before = {p.id: p for p in base.constitution.principles}
    kept = [p for p in constitution.principles if p.id in before and p.hash == before[p.id].hash]
    origins = {p.id: file for p in constitution.principles} | {p.id: base.origins[p.id] for p in kept}
    changed = {p.id for p in kept if p != before[p.id]} | {p.id for p in kept if p.id in base.changed}
    return Loaded(constitution, (file, *base.files), origins, frozenset(changed))


def _parse(file: Path) -> tuple[yaml.Node, dict[Any, Any]]:
    text = _read(file)
    try:
        root = yaml.compose(text, _Loader)
        content = yaml.load(text, _Loader)  # a SafeLoader: builds plain values only
    except yaml.YAMLError as error:
        raise ConstitutionError(f"{file}:{syntax_line(error, text)}: not YAML: {syntax_reason(error)}") from error
    if root is None or not isinstance(content, dict):
        found = "empty" if root is None else f"{type(content).__name__} at the top"
        raise ConstitutionError(f"{file}:1: {found}, expected a mapping with id and principles")
    return root, content


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        known = ", ".join(sorted(p.name for p in SHIPPED.glob("*.yaml")))
        raise ConstitutionError(f"{file}: no such file; constitutions/ has {known}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConstitutionError(f"{file}:{line}: a byte that is not UTF-8, expected UTF-8 text") from error
    except OSError as error:
        raise ConstitutionError(f"{file}: {error.strerror}, expected a readable YAML file") from error
