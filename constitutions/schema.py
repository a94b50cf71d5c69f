"""The format as JSON Schema, for editors that complete and check a constitution while it is written.

python -m constitutions.schema    writes constitutions/constitution.schema.json
"""

import json
from pathlib import Path
from typing import Any

from constitutions.model import Constitution

FILE = Path(__file__).with_name("constitution.schema.json")
EXTENDS = {
    "title": "Extends",
    "type": "string",
    "minLength": 1,
    "description": "Another constitution, in this folder or shipped: its principles are added to, replaced by id, "
    "or given other settings (an id with `enabled: false`, `weight` and so on, and no text).",
}


def schema() -> dict[str, Any]:
    """JSON Schema of a file. What spans several fields, such as a request without its pair, only loading checks."""
    document = Constitution.model_json_schema(mode="validation")
    document["properties"] = {"extends": EXTENDS} | document["properties"]
    document["required"] = ["id"]
    document["anyOf"] = [{"required": ["principles"]}, {"required": ["extends"]}]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **document, "title": "Solon constitution"}


def schema_text() -> str:
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(schema_text(), encoding="utf-8")
    print(FILE)
