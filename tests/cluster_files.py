"""What is written for a cluster, as the tests of it read it."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate.utils
import yaml

from deployments.job_templates import base_job_template
from deployments.pools import POOLS

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "infra" / "kubernetes"
FILES = sorted(path for path in FOLDER.rglob("*.yaml") if path.parent.name != "helm")
MANIFESTS = [path for path in FILES if path.name != "kustomization.yaml"]
VALUES = sorted((FOLDER / "helm").glob("*.yaml"))

Object = dict[str, Any]


KUBERNETES = "1.33"
"""The release whose schemas are asked."""
# it would read them anew for each object
kubernetes_validate.utils.schema_contents = cache(kubernetes_validate.utils.schema_contents)


def validate(found: Object) -> None:
    """Raises: kubernetes_validate.ValidationError: Kubernetes would not take it; a field too many counts."""
    kubernetes_validate.validate(found, KUBERNETES, strict=True)


def documents(path: Path) -> list[Object]:
    return deepcopy(parsed(path))


@cache
def parsed(path: Path) -> list[Object]:
    return list(yaml.safe_load_all(path.read_text()))


def objects() -> list[Object]:
    """All that is applied, the optional files too."""
    return [found for path in MANIFESTS for found in documents(path)]


def named(kind: str, name: str, namespace: str | None = None) -> Object:
    [found] = [
        each
        for each in objects()
        if (each["kind"], each["metadata"]["name"]) == (kind, name)
        and namespace in (None, each["metadata"].get("namespace"))
    ]
    return found


def pods() -> dict[str, Object]:
    """The pod (metadata and spec) of each Deployment and Job, and of each pool's runs as their template has it."""
    written = {
        each["metadata"]["name"]: each["spec"]["template"] for each in objects() if "template" in each.get("spec", {})
    }
    return written | {pool.name: pool_pod(pool.name) for pool in POOLS}


def pool_pod(pool: str) -> Object:
    """With the defaults of its variables in their places."""
    template = base_job_template(pool)
    defaults = {name: each.get("default") for name, each in template["variables"]["properties"].items()}
    pod: Object = filled(template["job_configuration"]["job_manifest"]["spec"]["template"], defaults)
    return pod


def filled(value: Any, variables: Mapping[str, Any]) -> Any:
    if isinstance(value, dict):
        return {key: filled(inner, variables) for key, inner in value.items()}
    if isinstance(value, list):
        return [filled(inner, variables) for inner in value]
    if isinstance(value, str) and value.startswith("{{ "):
        return variables[value[3:-3]]
    return value


def entries(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every (dotted path, value) that is no mapping and no list; places in lists are left out of the path."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from entries(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for inner in value:
            yield from entries(inner, path)
    else:
        yield path, value
