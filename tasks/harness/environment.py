"""lm-eval's own environment: made at first use from pinned requirements, and asked what tasks it knows."""

import difflib
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
SETUP = REPOSITORY / "infra" / "setup_environments.py"
PYTHON = REPOSITORY / ".solon" / "tools" / "lm-eval" / "bin" / "python"
VERSION = "import importlib.metadata as m; print(m.version('lm_eval'))"
NAMES = (
    "import json, sys; from lm_eval.tasks import TaskManager; "
    "print(json.dumps(TaskManager(include_path=sys.argv[1] or None).all_tasks))"
)
KEPT_FROM = ("AWS_", "OPENAI_", "PREFECT_", "WANDB_")
"""What lm-eval has no use for, credentials among it: it would send an OPENAI_API_KEY to whatever server it asks."""
OURS = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV")

_TASK = re.compile(r"[A-Za-z0-9_][\w.:+()-]*", re.ASCII)


class HarnessError(ValueError):
    """lm-eval cannot be had, does not know what it is asked, or failed. The message says what to do."""


def lm_eval_python() -> Path:
    """The Python of lm-eval's environment, which is made if need be; or what SOLON_LM_EVAL_PYTHON names.

    Raises: HarnessError: it is not there and cannot be made.
    """
    given = os.environ.get("SOLON_LM_EVAL_PYTHON")
    if not given:
        return _made(PYTHON)
    if not Path(given).exists():
        raise HarnessError(f"SOLON_LM_EVAL_PYTHON: no file {given}; unset it to have the environment made")
    return Path(given)


def _made(python: Path) -> Path:
    """A second call ends at once: the environment's stamp says what it was made from."""
    base = Path(sys.executable).resolve()  # outside our environment, which has no pip to read its settings by
    command = [str(base), str(SETUP), "--tool", "lm-eval"]
    done = subprocess.run(command, stdout=sys.stderr, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise HarnessError(
            f"lm-eval's environment could not be made:\n{done.stderr[-2000:].strip()}\n"
            "it needs a package index once (0.9 GB on disk); or set SOLON_LM_EVAL_PYTHON to a Python that has "
            "infra/requirements/lm-eval.txt installed"
        )
    return python


def clean_environment() -> dict[str, str]:
    """The environment for lm-eval: ours without foreign credentials and our interpreter's settings, nothing reported.

    HF_HUB_OFFLINE, HF_HOME and HF_TOKEN stay as they are set.
    """
    env = {k: v for k, v in os.environ.items() if not k.startswith(KEPT_FROM) and k not in OURS}
    return env | {
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_UPDATE_DOWNLOAD_COUNTS": "0",
        "DO_NOT_TRACK": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def installed_version(python: Path) -> str:
    """lm-eval's version in that environment. Raises: HarnessError: it has none."""
    return _say(python, VERSION, "")


def task_names(python: Path, include: Path | None) -> list[str]:
    """Every task, group and tag that lm-eval knows, those in the folder `include` among them; takes some seconds.

    Raises: HarnessError.
    """
    names: list[str] = json.loads(_say(python, NAMES, str(include.absolute()) if include else ""))
    return names


def _say(python: Path, code: str, argument: str) -> str:
    done = subprocess.run(
        [str(python), "-I", "-c", code, argument],
        env=clean_environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise HarnessError(
            f"lm-eval in {python} does not work: {done.stderr.strip()[-600:]}\n"
            "remove its environment to have it made anew"
        )
    return done.stdout.strip().splitlines()[-1]


def split_tasks(text: str) -> list[str]:
    """Task names from `a,b`, each once. Raises: HarnessError: none, or no name, such as a path or `mmlu*`."""
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    wrong = [name for name in names if not _TASK.fullmatch(name) or name.endswith(".yaml")]
    if wrong or not names:
        raise HarnessError(
            f"--tasks {text!r}: {wrong[:3] or 'nothing'} is no task name; expected names with commas between, such as "
            "arc_easy,mmlu; a task of your own has its name in a YAML file in the folder that --include names"
        )
    return names


def check_tasks(asked: Sequence[str], known: Sequence[str]) -> None:
    """Raises: HarnessError: lm-eval does not know one of them; lists names that are near."""
    unknown = [name for name in asked if name not in set(known)]
    if unknown:
        near = {name: difflib.get_close_matches(name, known, n=5, cutoff=0.5) for name in unknown}
        told = "; ".join(f"{name!r} (near: {', '.join(found) or 'nothing'})" for name, found in near.items())
        raise HarnessError(
            f"lm-eval knows no task {told}. It knows {len(known)}; a folder of your own tasks is named by --include"
        )
