"""Base job templates of the cluster's pools, from `job_templates.yaml`: one Job for all, each pool's own defaults."""

import difflib
from collections.abc import Iterable
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).with_name("job_templates.yaml")


ACCOUNTS = {"plan": "read", "constitution-changed": "amend"}
"""Whose service account a flow's runs have, where that is not called after the flow."""


class UnknownVariable(ValueError):
    """A job variable that no template has."""


def base_job_template(pool: str) -> dict[str, Any]:
    """The Job of a pool's runs, as Prefect takes it; the pool's name is a label of its pods.

    Raises: UnknownVariable: a default of the pool is for no variable.
    """
    read = deepcopy(read_file())
    configuration, variables, defaults = read["job_configuration"], read["variables"], read["pools"][pool]
    expect_known(f"{FILE.name}: pool {pool}", defaults)
    for name, default in defaults.items():
        variables["properties"][name]["default"] = default
    configuration["job_manifest"]["spec"]["template"]["metadata"]["labels"]["solon/pool"] = pool
    return {"job_configuration": configuration, "variables": variables}


def expect_known(who: str, variables: Iterable[str]) -> None:
    """Prefect itself would do nothing with a misspelt variable, and say nothing.

    Raises: UnknownVariable: the first one that is unknown, with what may be meant.
    """
    known = list(read_file()["variables"]["properties"])
    for name in variables:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            meant = f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(sorted(known))}"
            raise UnknownVariable(f"{who}: job variable {name!r} is unknown; {meant}")


def service_account(flow: str) -> str:
    """In the cluster, of a flow's runs: each stage has a role of its own in the store (infra/terraform/roles.json)."""
    return f"solon-{ACCOUNTS.get(flow, flow).replace('_', '-')}"


@cache
def read_file() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return read
