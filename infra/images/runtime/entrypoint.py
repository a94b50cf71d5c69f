"""What every container of Solon starts with: folders to write in, Prefect's settings, secrets; then the command.

    python -m infra.images.runtime.entrypoint python -m prefect worker start ...

A secret comes as a file, never as an argument or a line of a compose file: NAME_FILE says where, NAME is set from it.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from flows.server import read_settings

SECRETS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "HF_TOKEN",
    "PREFECT_API_AUTH_STRING",
    "PREFECT_SERVER_API_AUTH_STRING",
    "PREFECT_SERVER_DATABASE_CONNECTION_URL",
    "SOLON_NOTIFY_URL",
    "WANDB_API_KEY",
)
SCRATCH = Path("/scratch")
FOLDERS = ("solon", "prefect", "cache")


class StartError(ValueError):
    """The container cannot start; the message says what to set."""


def read_secrets(env: Mapping[str, str]) -> dict[str, str]:
    """NAME from each NAME_FILE. Raises: StartError: both are set, or the file cannot be read or is empty."""
    found = dict[str, str]()
    for name in SECRETS:
        path = env.get(f"{name}_FILE")
        if not path:
            continue
        if name in env:
            raise StartError(f"both {name} and {name}_FILE are set; set one")
        found[name] = read_secret(name, Path(path))
    return found


def read_secret(name: str, path: Path) -> str:
    try:
        value = path.read_text().strip()
    except OSError as error:
        raise StartError(f"{name}_FILE: {error}; user {os.getuid()} must be able to read the file") from None
    if not value:
        raise StartError(f"{name}_FILE: {path} is empty; write the secret into it")
    return value


def environment(env: Mapping[str, str]) -> dict[str, str]:
    """Prefect's settings under what is set already, with secrets."""
    return {**read_settings(), **env, **read_secrets(env)}


def make_folders(scratch: Path) -> None:
    """Raises: StartError: scratch cannot be written."""
    try:
        for name in FOLDERS:
            (scratch / name).mkdir(exist_ok=True)
    except OSError as error:
        raise StartError(f"{error}; mount a volume at {scratch} that user {os.getuid()} may write") from None


def main() -> None:
    command = sys.argv[1:]
    if not command:
        sys.exit("entrypoint: no command; expected one, such as ./solon --help")
    try:
        make_folders(SCRATCH)
        env = environment(os.environ)
    except StartError as error:
        sys.exit(f"entrypoint: {error}")
    try:
        os.execvpe(command[0], command, env)
    except OSError as error:
        sys.exit(f"entrypoint: cannot start {command[0]}: {error}")


if __name__ == "__main__":
    main()
