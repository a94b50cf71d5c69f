"""One task of lm-eval asked of a server: its command, its progress, and what is said when it fails."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tasks.harness.environment import HarnessError, clean_environment
from tasks.processes import GuardedProcess, guarded
from tasks.schema import Settings
from tasks.serving import ServingConfig, TransientServingError
from tasks.serving.addresses import stands_for_several
from tasks.serving.vllm_engine import Server

POLL_SECONDS = 0.5
"""How late a dead server is noticed and progress is shown."""
_REQUESTS = re.compile(r"Requesting API:[^\r\n]*?(\d+)/(\d+) \[")


class CapabilityConfig(Settings):
    """How lm-eval puts its tasks. Without any of it, as the task says."""

    limit: int | None = None
    """Only the first so many documents of each task: for a try, not for a figure."""
    num_fewshot: int | None = None
    """Worked examples before each question. None: as many as the task says."""
    chat_template: Literal["none", "model"] = "none"
    """`none`: texts as the task has them. `model`: as turns in the model's own chat template."""


class Told(NamedTuple):
    """What lm-eval has to be told of the model, since a server does not say it."""

    tokenizer: Path
    """The folder of the model: lm-eval makes tokens itself, and sends those."""
    context_tokens: int
    """Longer prompts lose their beginning, as everywhere in lm-eval."""
    stop_ids: frozenset[int]
    """Ends of a text: a server of ours does not read a model's generation_config.json."""
    add_bos: bool
    """Whether texts begin with the tokenizer's BOS: lm-eval's API models leave it out unless they are told."""


def expect_one_server(serving: ServingConfig) -> None:
    """Raises: HarnessError: several servers are named, of which lm-eval would take none."""
    if len(serving.urls) > 1 or any(map(stands_for_several, serving.urls)):
        raise HarnessError(f"--url {serving.url!r} is several servers, and lm-eval asks one: name one of them")


def told_of(folder: Path, config: CapabilityConfig, serving: ServingConfig) -> Told:
    """What lm-eval has to be told of the model in `folder`.

    Raises: ServingError: no tokenizer, no template where one is asked for. HarnessError: `begins_with_bos`.
    """
    from transformers import AutoTokenizer

    from tasks.serving.rendering import Renderer

    renderer = Renderer.load(folder, serving)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    add_bos = begins_with_bos(tokenizer, config.chat_template)
    return Told(folder.absolute(), renderer.context_tokens, renderer.stop_ids, add_bos)


def begins_with_bos(tokenizer: Any, chat_template: str) -> bool:
    """Whether this tokenizer puts tokens before a text, and the text is not one of a template that has them already.

    Raises: HarnessError: it puts tokens behind the text as well, which lm-eval would take for the text's.
    """
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a", add_special_tokens=True)["input_ids"]
    before = next((i for i in range(len(whole)) if whole[i : i + len(plain)] == plain), 0)
    if chat_template == "model":
        turns = tokenizer.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False)
        return bool(before) and not turns.startswith(tokenizer.decode(whole[:before]))
    if before and len(whole) > before + len(plain):
        raise HarnessError(
            f"the tokenizer writes {tokenizer.convert_ids_to_tokens(whole)} for the text 'a': with tokens on both "
            "sides lm-eval would count those behind it; take that one out of the tokenizer's post-processor"
        )
    return bool(before)


def command(
    python: Path, task: str, include: Path | None, config: CapabilityConfig, told: Told, server: Server,
    serving: ServingConfig, output: Path,
) -> list[str]:  # fmt: skip
    """lm-eval's command for one task; as JSON, since paths may have commas. Never with `--trust_remote_code`."""
    model: dict[str, Any] = {
        "model": server.model_name,
        "base_url": f"{server.url}/v1/completions",
        "tokenizer": str(told.tokenizer),
        "tokenizer_backend": "huggingface",
        "tokenized_requests": True,
        "max_length": told.context_tokens,
        "add_bos_token": told.add_bos,
        "num_concurrent": max(2, serving.max_concurrency),  # alone, it goes on with a request that failed
        "max_retries": serving.num_retries + 1,
        "timeout": int(serving.request_seconds),
    }
    # isolated (-I), so that no folder of the user's is taken for a module of lm-eval's
    argv = [str(python), "-I", "-m", "lm_eval", "run", "--model", "local-completions", "--tasks", task]
    argv += ["--model_args", json.dumps(model), "--gen_kwargs", json.dumps({"stop_token_ids": sorted(told.stop_ids)})]
    argv += ["--output_path", str(output), "--log_samples"]
    argv += ["--include_path", str(include.absolute())] if include else []
    argv += ["--limit", str(config.limit)] if config.limit is not None else []
    argv += ["--num_fewshot", str(config.num_fewshot)] if config.num_fewshot is not None else []
    return [*argv, "--apply_chat_template"] if config.chat_template == "model" else argv


def run_to_end(argv: list[str], server: Server, folder: Path, show: Callable[[int, int], None]) -> None:
    """Run lm-eval until it has ended well, its log in `folder`; `show` is told requests done and asked.

    It is stopped when this process ends or the server does, however that happens.

    Raises: TransientServingError: the server died. HarnessError: lm-eval failed; with the end of its log.
    """
    shutil.rmtree(folder, ignore_errors=True)
    with guarded(argv, clean_environment(), folder / "lm-eval.log") as process:
        while (code := ended(process)) is None and server.death() is None:
            if found := progress(process.log_path):
                show(*found)
    if death := server.death():
        raise TransientServingError(f"{server.url}: the server died under lm-eval: {death}")
    if code:
        raise HarnessError(f"lm-eval ended with code {code}, from the end of {process.log_path}:\n{end(process)}")


def ended(process: GuardedProcess) -> int | None:
    """The exit code, or None after `POLL_SECONDS`."""
    try:
        return process.wait(POLL_SECONDS)
    except subprocess.TimeoutExpired:
        return None


def progress(log: Path) -> tuple[int, int] | None:
    """Requests done and asked, as the last bar in the log says; None before there is one."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        bars = _REQUESTS.findall(file.read().decode(errors="replace"))
    return (int(bars[-1][0]), int(bars[-1][1])) if bars else None


def end(process: GuardedProcess) -> str:
    """The last lines without progress bars."""
    lines = [line.rstrip() for line in process.log_tail(400).splitlines() if line.strip() and "%|" not in line]
    return "\n".join(line[:300] for line in lines[-12:])


def results_file(folder: Path) -> Path:
    """The one file of results. Raises: HarnessError: there is none: lm-eval warns and ends well if it cannot write."""
    found = list(folder.rglob("results_*.json"))
    if len(found) != 1:
        raise HarnessError(
            f"lm-eval left {len(found)} files of results in {folder}, expected one; see lm-eval.log there"
        )
    return found[0]


def without_place(value: Any) -> Any:
    """JSON without the keys that say where it ran: addresses, folders, the machine."""
    if isinstance(value, Mapping):
        kept = {key: inner for key, inner in value.items() if key not in ("base_url", "tokenizer", "pretty_env_info")}
        return {key: without_place(inner) for key, inner in kept.items()}
    return [without_place(inner) for inner in value] if isinstance(value, list) else value
