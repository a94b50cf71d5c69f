"""Reads a constitution from YAML; whatever is wrong is reported with file, line and field, all at once."""

import difflib
from collections.abc import Iterator
from pathlib import Path

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from constitutions.model import Constitution, ConstitutionError, Principle

Location = tuple[int | str, ...]
Problem = tuple[int, str]  # line from 1, message

_EXPECTED = {
    "greater_than": "a number above 0",
    "float_type": "a number above 0",
    "finite_number": "a number above 0",
    "int_type": "a whole number",
    "bool_type": "true or false",
    "string_type": "text (in quotes, where YAML reads it as something else)",
    "string_too_short": "text",
    "string_pattern_mismatch": "lower-case letters, digits and hyphens, such as harm-1",
    "tuple_type": "a list",
    "model_type": "a mapping of keys to values",
}


class _Loader(yaml.SafeLoader):
    """Safe YAML in which a date is text: nothing in a constitution is a date, and a wrong one has no line."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML declares it so
        start: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for start, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def load_constitution(path: Path | str) -> Constitution:
    """The constitution in a YAML file.

    Raises: ConstitutionError: one line for each thing that is wrong, `file:line: field: value, expected ...`.
    """
    file = Path(path)
    text = _read(file)
    try:
        root = yaml.compose(text, _Loader)
        content = yaml.load(text, _Loader)  # a SafeLoader: builds plain values only
    except yaml.YAMLError as error:
        raise ConstitutionError(f"{file}:{_syntax_line(error, text)}: not YAML: {_syntax_reason(error)}") from error
    if root is None or not isinstance(content, dict):
        found = "empty" if root is None else f"{type(content).__name__} at the top"
        raise ConstitutionError(f"{file}:1: {found}, expected a mapping with id and principles")
    problems = list(_duplicate_keys(root, (), set()))
    try:
        constitution = Constitution.model_validate(content)
    except ValidationError as error:
        problems += [_problem(root, detail) for detail in error.errors()]
    if problems:
        raise ConstitutionError("\n".join(f"{file}:{line}: {message}" for line, message in sorted(problems)))
    return constitution


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        known = ", ".join(sorted(p.name for p in Path(__file__).parent.glob("*.yaml")))
        raise ConstitutionError(f"{file}: no such file; constitutions/ has {known}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConstitutionError(f"{file}:{line}: a byte that is not UTF-8, expected UTF-8 text") from error
    except OSError as error:
        raise ConstitutionError(f"{file}: {error.strerror}, expected a readable YAML file") from error


def _syntax_line(error: yaml.YAMLError, text: str) -> int:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return error.problem_mark.line + 1
    return text.count("\n", 0, getattr(error, "position", 0)) + 1  # a control character: ReaderError


def _syntax_reason(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError):
        return error.problem or error.context or "unreadable"
    return getattr(error, "reason", "unreadable")


def _duplicate_keys(node: yaml.Node, location: Location, seen: set[int]) -> Iterator[Problem]:
    if id(node) in seen:  # an alias of something already visited
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _duplicate_keys(item, (*location, index), seen)
    elif isinstance(node, yaml.MappingNode):
        first: dict[str, int] = {}
        for key, value in node.value:
            here, line = (*location, str(key.value)), key.start_mark.line + 1
            if first.setdefault(str(key.value), line) != line:
                yield line, f"{_field(here)}: given twice, first on line {first[str(key.value)]}"
            yield from _duplicate_keys(value, here, seen)


def _problem(root: yaml.Node, detail: ErrorDetails) -> Problem:
    location: Location = detail.get("ctx", {}).get("where", detail["loc"])
    line, node = _find(root, location)
    return line, f"{_field(location) or 'constitution'}: {_describe(detail, location, node)}"


def _find(root: yaml.Node, location: Location) -> tuple[int, yaml.Node | None]:
    """Line of the field, or of the nearest thing around it; and its node, None where the file has none."""
    node, line = root, root.start_mark.line + 1
    for part in location:
        found = [(at, value) for at, key, value in _children(node) if key == str(part)]
        if not found:
            return line, None
        at, node = found[-1]
        line = at.start_mark.line + 1
    return line, node


def _children(node: yaml.Node) -> Iterator[tuple[yaml.Node, str, yaml.Node]]:
    if isinstance(node, yaml.SequenceNode):
        yield from ((item, str(index), item) for index, item in enumerate(node.value))
    elif isinstance(node, yaml.MappingNode):
        yield from ((key, str(key.value), value) for key, value in node.value)


def _describe(detail: ErrorDetails, location: Location, node: yaml.Node | None) -> str:
    if detail["type"] == "missing":
        return "missing"
    if detail["type"] == "extra_forbidden":
        return _suggest(str(location[-1]), Principle if "principles" in location[:-1] else Constitution)
    expected = _EXPECTED.get(detail["type"])
    return f"{_shown(node)}, expected {expected}" if expected else detail["msg"]


def _suggest(key: str, model: type[BaseModel]) -> str:
    near = difflib.get_close_matches(key, model.model_fields, n=1)
    return (
        f"unknown key; did you mean {near[0]}?" if near else f"unknown key; known are {', '.join(model.model_fields)}"
    )


def _shown(node: yaml.Node | None) -> str:
    if isinstance(node, yaml.ScalarNode):
        value = node.value.strip()
        return "empty" if not value else value if len(value) <= 60 else value[:57] + "..."
    return "a list" if isinstance(node, yaml.SequenceNode) else "a mapping"


def _field(location: Location) -> str:
    """principles[3].weight"""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).removeprefix(".")
