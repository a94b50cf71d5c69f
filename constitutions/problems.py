"""What is wrong with a file, in words: line, field, what it holds and what was expected there."""

import difflib
from collections.abc import Iterator

import yaml
from pydantic import BaseModel
from pydantic_core import ErrorDetails

from constitutions.demonstrations import ComparisonDemonstration, RevisionDemonstration, Turn
from constitutions.model import Constitution, Principle
from constitutions.sections import Cluster, Section

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

_MODELS: dict[str, type[BaseModel]] = {
    "principles": Principle,
    "clusters": Cluster,
    "sections": Section,
    "revision_demonstrations": RevisionDemonstration,
    "comparison_demonstrations": ComparisonDemonstration,
    "prompt": Turn,
    "conversation": Turn,
}


def syntax_line(error: yaml.YAMLError, text: str) -> int:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return error.problem_mark.line + 1
    return text.count("\n", 0, getattr(error, "position", 0)) + 1  # a control character: ReaderError


def syntax_reason(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError):
        return error.problem or error.context or "unreadable"
    return getattr(error, "reason", "unreadable")


def duplicate_keys(node: yaml.Node, location: Location, seen: set[int]) -> Iterator[Problem]:
    if id(node) in seen:  # an alias of something already visited
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from duplicate_keys(item, (*location, index), seen)
    elif isinstance(node, yaml.MappingNode):
        first: dict[str, int] = {}
        for key, value in node.value:
            here, line = (*location, str(key.value)), key.start_mark.line + 1
            if first.setdefault(str(key.value), line) != line:
                yield line, f"{_field(here)}: given twice, first on line {first[str(key.value)]}"
            yield from duplicate_keys(value, here, seen)


def described(root: yaml.Node, detail: ErrorDetails) -> Problem:
    location: Location = (*detail["loc"], *detail.get("ctx", {}).get("where", ()))
    line, node = _find(root, location)
    return line, f"{_field(location) or 'constitution'}: {_describe(detail, location, node)}"


def line_of(root: yaml.Node, location: Location) -> int:
    """Line of the field, or of the nearest thing around it."""
    return _find(root, location)[0]


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
        return _suggest(str(location[-1]), _keys_of(location[:-1]))
    if detail["type"] == "literal_error":
        return f"{_shown(node)}, expected {detail['ctx']['expected']}"
    expected = _EXPECTED.get(detail["type"])
    return f"{_shown(node)}, expected {expected}" if expected else detail["msg"]


def _keys_of(location: Location) -> list[str]:
    """What the mapping at this place may hold."""
    within = [_MODELS[part] for part in location if isinstance(part, str) and part in _MODELS]
    return list(within[-1].model_fields) if within else ["extends", *Constitution.model_fields]


def _suggest(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    return f"unknown key; did you mean {near[0]}?" if near else f"unknown key; known are {', '.join(known)}"


def _shown(node: yaml.Node | None) -> str:
    if isinstance(node, yaml.ScalarNode):
        value = node.value.strip()
        return "empty" if not value else value if len(value) <= 60 else value[:57] + "..."
    return "a list" if isinstance(node, yaml.SequenceNode) else "a mapping"


def _field(location: Location) -> str:
    """principles[3].weight"""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).removeprefix(".")
