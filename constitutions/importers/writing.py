"""A constitution as YAML that a person edits: no defaults, texts of several lines as blocks."""

import os
import re
from pathlib import Path
from typing import Any

import yaml

from constitutions.demonstrations import Turn
from constitutions.model import Constitution
from constitutions.schema import FILE as SCHEMA


class _Dumper(yaml.SafeDumper):
    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)  # lists stand in from their key


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    """A block where there are lines; in quotes, with escapes, where YAML would read another line end as a plain one."""
    style = '"' if re.search("[\r\x85\u2028\u2029]", value) else "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def yaml_text(constitution: Constitution, folder: Path, comments: tuple[str, ...] = ()) -> str:
    """The file's text, which reads back as this very constitution; `folder` is where it will lie."""
    schema = Path(os.path.relpath(SCHEMA, folder)).as_posix()
    head = [f"yaml-language-server: $schema={schema}", *(" ".join(comment.split()) for comment in comments)]
    document = constitution.model_dump(exclude_defaults=True)
    order = ["id", "title", "description", "bias_note", "clusters", "principles"]
    body = {name: _plain(document[name]) for name in [*order, *document] if name in document}
    written = yaml.dump(body, Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=110)
    return "".join(f"# {line}\n" for line in head) + written


def _plain(value: Any) -> Any:
    """Lists for tuples, and one turn of the human as its text."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if not isinstance(value, tuple | list):
        return value
    if len(value) == 1 and isinstance(value[0], dict) and value[0].keys() == Turn.model_fields.keys():
        return value[0]["content"]
    return [_plain(entry) for entry in value]
