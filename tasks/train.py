"""Run a trainer in a child process and commit the model it leaves: the common half of sft, reward and ppo.

The child's log lines show as progress and are kept, as the model's `history`, in its manifest.
"""

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from tasks.schema import ModelRef
from tasks.serving import close_all
from tasks.stage import Session, Stage
from tasks.training.examples import write_examples
from tasks.training.launch import Kind, TrainingJob, launch


def run_training(
    stage: Stage,
    session: Session,
    config: BaseModel,
    examples: Sequence[BaseModel],
    kind: Kind,
    model: ModelRef,
    reward: ModelRef | None = None,
    held_out_reward: ModelRef | None = None,
    on_rollouts: Callable[[Path], None] | None = None,
) -> ModelRef:
    """Train a `kind` of model on the examples and commit the folder it writes.

    Raises: ValueError: the trainer refused its input. TrainingDied: its process was killed.
    """
    if shutil.which("nvidia-smi"):
        close_all()  # an inference server would hold the GPU memory that training needs
    started, history = time.monotonic(), list[dict[str, Any]]()

    def on_log(line: dict[str, Any]) -> None:
        history.append(line)
        session.progress.update(line["step"], line["num_steps"], training_note(line))

    derivation = stage.derivation(session.store)
    work = session.store.cache / "training" / derivation.version
    work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=work) as scratch:
        folder = Path(scratch)
        job = TrainingJob(
            kind=kind,
            config=config.model_dump(mode="json"),
            examples=str(write_examples(folder / "examples.jsonl", examples)),
            model=str(session.store.fetch_model(model)),
            reward=str(session.store.fetch_model(reward)) if reward else None,
            held_out_reward=str(session.store.fetch_model(held_out_reward)) if held_out_reward else None,
            output=str(folder / "model"),
            rollouts=str(folder / "rollouts.jsonl") if on_rollouts else None,
            checkpoint=str(work / "checkpoints"),
            seed=stage.run.seed,
        )
        final = launch(job, on_log, threads=stage.run.training.threads, log_path=work / "training.log")
        if on_rollouts and (folder / "rollouts.jsonl").exists():
            on_rollouts(folder / "rollouts.jsonl")
        history = final.pop("history", history)
        gpus = 1 if shutil.which("nvidia-smi") else 0
        cost = {"seconds": time.monotonic() - started, "num_examples": len(examples), "gpus": gpus}
        metrics = {"final": final, "history": history}
        ref = session.store.commit_model(derivation, folder / "model", metrics=metrics, cost=cost)
        log = (work / "training.log").read_bytes()
        session.store.put_blob(derivation.dataset, derivation.version, "training.log", log)
    shutil.rmtree(work)  # its resume points have served
    return ref


def training_note(line: dict[str, Any]) -> str:
    """The log line's figures in a few words."""
    shown = {key: line[key] for key in ("loss", "score", "kl", "entropy") if key in line}
    return ", ".join(f"{key} {value:.3f}" for key, value in shown.items())
