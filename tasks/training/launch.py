"""Training in a child process: `python -m tasks.training.launch job.json FD`.

A child of its own gives back all memory, cannot take the stage down with it, and is where several processes
will be started. The parent reads JSON lines from a pipe: `log`, then `result` or `error`. The child dies with
its parent, however that dies (`tasks.processes`).
"""

import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, Literal

from tasks.processes import GuardedProcess, guarded
from tasks.schema import Frozen
from tasks.training.config import RewardConfig, SFTConfig
from tasks.training.examples import PreferenceExample, PromptExample, SFTExample, read_examples
from tasks.training.rl_config import PPOConfig
from tasks.training.supervision import Log, Supervision

ROOT = Path(__file__).parents[2]


Kind = Literal["sft", "reward", "ppo", "rloo", "grpo", "dpo"]


class TrainingJob(Frozen):
    """One training: what a trainer's arguments are, as JSON."""

    kind: Kind
    config: dict[str, Any]
    """Of `SFTConfig`, `RewardConfig`, `PPOConfig`, `GroupConfig` (rloo, grpo) or `DPOConfig`."""
    examples: Path
    """JSON lines (`write_examples`) of `SFTExample`, `PreferenceExample` or `PromptExample`."""
    model: Path
    """Folder of the model to train."""
    reward: Path | None = None
    """Folder of the reward model; PPO, RLOO and GRPO need it."""
    held_out_reward: Path | None = None
    """Folder of a reward model that only measures; of use to PPO."""
    output: Path
    """Folder that the trained model is written to."""
    seed: int
    checkpoint: Path | None = None
    """Folder of resume points; used by PPO alone so far."""
    rollouts: Path | None = None
    """File for PPO's kept episodes."""


class TrainingRefused(ValueError):
    """The trainer could not use what it was given; says what and what to do."""


class TrainingDied(RuntimeError):
    """The training process failed or was killed; says how, with the end of its output."""


def launch(job: TrainingJob, on_log: Log, threads: int = 1, log_path: Path | None = None) -> dict[str, Any]:
    """Run the job in a child process and return what its trainer returns.

    `on_log` gets each log line as it comes (`step` and `num_steps` among it). With `threads` above 1 a CPU run
    is not reproducible to the bit. `log_path` keeps the process's own output, appended.

    Raises: TrainingRefused: bad input. TrainingDied: any other failure, or death by a signal.
    """
    with tempfile.TemporaryDirectory() as scratch:
        job_path = Path(scratch, "job.json")
        job_path.write_text(job.model_dump_json(), encoding="utf-8")
        read_end, write_end = os.pipe()
        with os.fdopen(read_end, encoding="utf-8") as events:
            argv = [sys.executable, "-m", "tasks.training.launch", str(job_path), str(write_end)]
            log_path = log_path or Path(scratch, "training.log")
            process = guarded(
                argv, child_environment(threads), log_path, cwd=ROOT, pass_fds=[write_end], grace_seconds=10
            )
            os.close(write_end)  # else the pipe would never end
            with process:
                last = follow(events, on_log)
                return _outcome(job, last, process)


def follow(events: Iterable[str], on_log: Log) -> dict[str, Any]:
    """Hand on log lines until the stream ends; the last event that is none, or {} if there was none."""
    last: dict[str, Any] = {}
    for line in events:
        if not line.endswith("\n"):
            break  # the writer died within a line
        event = json.loads(line)
        if "log" in event:
            on_log(event["log"])
        else:
            last = event
    return last


def child_environment(threads: int) -> dict[str, str]:
    """Ours, with the thread count, no telemetry and no network: all that is read is in local folders."""
    return os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
    }


def run_job(job: TrainingJob, log: Log) -> dict[str, Any]:
    """Run the job here, in this process."""
    watched = Supervision(log=log, checkpoints=job.checkpoint)
    if job.kind == "sft":
        from tasks.training.sft import train_sft

        examples = list(read_examples(job.examples, SFTExample))
        return train_sft(SFTConfig(**job.config), examples, job.model, job.output, job.seed, watched)
    if job.kind == "reward":
        from tasks.training.reward import train_reward

        preferences = list(read_examples(job.examples, PreferenceExample))
        config = RewardConfig(**job.config)
        return train_reward(config, preferences, job.model, job.output, job.seed, watched)
    from tasks.training.ppo.trainer import train_ppo

    if job.reward is None:
        raise ValueError("ppo: no reward model, expected the folder of one in `reward`")
    prompts = [example.prompt for example in read_examples(job.examples, PromptExample)]
    return train_ppo(
        PPOConfig(**job.config),
        prompts,
        job.model,
        job.reward,
        job.output,
        job.seed,
        watched,
        rollouts=job.rollouts,
    )


def _outcome(job: TrainingJob, last: dict[str, Any], process: GuardedProcess) -> dict[str, Any]:
    code = process.wait()
    if "error" in last:
        error = last["error"]
        if error["bad_input"]:
            raise TrainingRefused(error["message"])
        raise TrainingDied(f"{job.kind}: {error['type']}: {error['message']}\n{process.log_tail()}")
    if code != 0 or "result" not in last:
        raise TrainingDied(f"{job.kind}: {_how_it_ended(code)}\n{process.log_tail()}")
    result: dict[str, Any] = last["result"]
    return result


def _how_it_ended(code: int) -> str:
    if code == -signal.SIGKILL:
        return (
            "the training process was killed by SIGKILL, most often because memory ran out; "
            "lower micro_batch_size or max_tokens, or set gradient_checkpointing"
        )
    if code < 0:
        return f"the training process was killed by {signal.Signals(-code).name}"
    return f"the training process ended with exit code {code} and no result"


def _main(job_path: str, fd: str) -> None:
    from transformers.utils import logging

    logging.disable_progress_bar()
    with os.fdopen(int(fd), "w", encoding="utf-8") as events:
        try:
            job = TrainingJob.model_validate_json(Path(job_path).read_text(encoding="utf-8"))
            _send(events, {"result": run_job(job, lambda line: _send(events, {"log": line}))})
        except Exception as error:  # the border: the parent must learn why, the log keeps the traceback
            _send(events, {"error": _describe(error)})
            raise


def _send(events: IO[str], event: dict[str, Any]) -> None:
    line = json.dumps(event, default=float)  # default: a Trainer logs numpy and torch scalars
    print(line, flush=True)
    events.write(line + "\n")
    events.flush()


def _describe(error: Exception) -> dict[str, Any]:
    message = str(error)
    if type(error).__name__ == "OutOfMemoryError":  # torch's; naming it would import torch
        message += "; lower micro_batch_size or max_tokens, or set gradient_checkpointing"
    return {"type": type(error).__name__, "message": message, "bad_input": isinstance(error, ValueError)}


if __name__ == "__main__":
    _main(*sys.argv[1:])
