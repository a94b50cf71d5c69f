"""The policy documents of `infra/terraform`, rendered as Terraform's `templatefile` renders them.

Of Terraform's template language they use two things, and these are all that is understood here: `${name}`, and
`%{ for name in names }...%{ endfor }`, one not inside another. That Terraform gets the same texts is tested with it.
"""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).resolve().parent.parent / "infra" / "terraform"
POLICIES = FOLDER / "policies"

_LOOP = re.compile(r"%\{ for (\w+) in (\w+) \}(.*?)%\{ endfor \}", re.DOTALL)
_NAME = re.compile(r"\$\{(\w+)\}")

Document = dict[str, Any]


class Role(NamedTuple):
    """What `roles.json` says of one role."""

    policy: str = "work"
    makes: tuple[str, ...] = ()
    """Datasets."""
    reads: tuple[str, ...] = ()
    """Other datasets; `*` stands for any characters."""
    trains: tuple[str, ...] = ()
    """Of those that it makes, the ones with resume points and logs."""
    tags: tuple[str, ...] = ()
    """Keys of tags that it moves, below `datasets/`."""


def read_roles() -> dict[str, Role]:
    table: dict[str, dict[str, Any]] = json.loads((FOLDER / "roles.json").read_text(encoding="utf-8"))
    return {name: Role(**{key: _frozen(value) for key, value in role.items()}) for name, role in table.items()}


def _frozen(value: str | list[str]) -> Any:
    return tuple(value) if isinstance(value, list) else value


def role_policy(role: Role, bucket: str, root: str) -> str:
    """The text of a role's policy; `bucket` is an ARN, `root` is empty or ends in `/`."""
    lists = {name: value for name, value in role._asdict().items() if name != "policy"}
    return render(role.policy, bucket=bucket, root=root, **lists)


def render(policy: str, **values: str | tuple[str, ...]) -> str:
    """A template with its values. Raises: KeyError: it names one that is not given."""

    def loop(match: re.Match[str]) -> str:
        return "".join(match[3].replace(f"${{{match[1]}}}", item) for item in values[match[2]])

    text = (POLICIES / f"{policy}.json.tftpl").read_text(encoding="utf-8")
    return _NAME.sub(lambda match: str(values[match[1]]), _LOOP.sub(loop, text))


def without(document: str, sid: str) -> Document:
    """A document less one statement."""
    parsed: Document = json.loads(document)
    kept = [statement for statement in parsed["Statement"] if statement["Sid"] != sid]
    assert len(kept) == len(parsed["Statement"]) - 1, f"one statement is {sid}"
    return {**parsed, "Statement": kept}
