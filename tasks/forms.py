"""A config's JSON schema made fit for the form that Prefect draws of it, and for the check that its server makes.

What the form does on its own (Prefect 3.8): it sorts by `position`, titles a section by its class, shows a choice of
types badly, calls whatever is not required optional, and leaves an emptied field out, so that a default which nobody
saw would take its place. Descriptions are plain text to it.
"""

import sys
from collections.abc import Sequence
from typing import Any

SPELLINGS = {
    word.lower(): word
    for word in ("SFT", "RL", "PPO", "DPO", "KL", "EOS", "LoRA", "URL", "GPU", "CPU", "GiB", "dtype", "P")
}
"""How a title writes what is no common word."""


def as_form(schema: dict[str, Any], order: Sequence[str], finite: bool) -> None:
    """Change a model's schema in place: its fields in this order, each with a title and, at most, one type.

    A field that has something in it by default is required, so that emptying it is an error; one that may be None or
    empty may be left empty. With `finite` no number is infinite.
    """
    fields: dict[str, Any] = schema.get("properties", {})
    for position, name in enumerate(order):
        field = fields[name]
        field |= {"position": position, "title": title(name)}
        take_one_type(field)
        if field.get("format") == "path":
            del field["format"]  # a form would take one of the slashes of s3:// away
        if finite and field.get("type") == "number":
            refuse_what_is_not_finite(field)
        if "description" in field:
            field["description"] = plain(field["description"])
        if "default" in field:
            field["default"] = without_none(field["default"])
            if field["default"] is None:
                del field["default"]
    if "description" in schema:
        schema["description"] = plain(schema["description"])
    required = set(schema.get("required", []))
    schema["required"] = [
        name for name in order if name in required or fields[name].get("default", "") not in ("", [], {})
    ]


def title(name: str) -> str:
    """`num_lora_layers` as `Num LoRA layers`: its name can still be told."""
    words = " ".join(SPELLINGS.get(word, word) for word in name.split("_"))
    return words[:1].upper() + words[1:]


def refuse_what_is_not_finite(field: dict[str, Any]) -> None:
    """Python's JSON knows infinities and NaN, which is not smaller and not larger than any bound."""
    if not {"maximum", "exclusiveMaximum"} & set(field):
        field["maximum"] = sys.float_info.max
    field["not"] = {"exclusiveMaximum": -sys.float_info.max}


def plain(text: str) -> str:
    """A docstring as a form shows it, which knows no markup."""
    return text.replace("`", "'").replace("\n", " ")


def take_one_type(field: dict[str, Any]) -> None:
    """Instead of a choice between a type and None, or between words."""
    choices = [choice for choice in field.get("anyOf", []) if choice != {"type": "null"}]
    words = [word for choice in choices for word in choice.get("enum", [choice.get("const")])]
    if len(choices) == 1:
        field |= choices[0]
        del field["anyOf"]
    elif choices and None not in words:
        field |= {"type": "string", "enum": words}
        del field["anyOf"]


def without_none(value: Any) -> Any:
    """JSON without the keys whose value is null."""
    if isinstance(value, dict):
        return {key: without_none(inner) for key, inner in value.items() if inner is not None}
    return [without_none(inner) for inner in value] if isinstance(value, list | tuple) else value
