"""Run a trainer in processes of its own and commit the model it leaves: the common half of sft, reward and rl.

Their log lines show as progress and are kept: thinned as the model's `history` in its manifest, whole beside it.
Resume points go to the store while it trains, so that a rerun goes on, on whatever machine.
"""

import json
import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tasks.across_nodes import train_across_nodes
from tasks.node_progress import thinned
from tasks.resume_points import ResumePoints
from tasks.schema import ModelRef
from tasks.serving import close_all
from tasks.stage import Progress, Session, Stage
from tasks.store import Derivation, Store, StoreError
from tasks.store.identity import digest
from tasks.training.config import check_divides
from tasks.training.examples import write_examples
from tasks.training.folders import kept_in
from tasks.training.job import TrainingJob
from tasks.training.launch import TrainingDied, keep_none, launch
from tasks.training.launch_command import Kind, check_launch
from tasks.training.launch_config import LaunchConfig
from tasks.training.nodes_config import Node
from tasks.training.preflight.memory import AnyConfig
from tasks.training.preflight.report import preflight
from tasks.training.preflight.rows import Example
from tasks.training.rl_config import PPOConfig
from tasks.training.trl_trainer import accumulation

SHOW_SECONDS = 1.0
COMMIT_SECONDS = 7200.0
"""How long the other nodes wait for the first to commit what was trained: a large model is copied to the store."""
COMMIT_POLL_SECONDS = 2.0

logger = logging.getLogger(__name__)


def run_training(
    stage: Stage,
    session: Session,
    config: AnyConfig,
    examples: Sequence[Example],
    kind: Kind,
    model: ModelRef,
    reward: ModelRef | None = None,
    held_out_reward: ModelRef | None = None,
    on_rollouts: Callable[[Path], None] | None = None,
    on_policy: Callable[[Path, int], None] = keep_none,
) -> ModelRef:
    """Train a `kind` of model on the examples and commit the folder it writes.

    Over several nodes this is called by a launcher first, which has it done, and then on each node (`session.node`).

    `on_policy` gets each policy that is kept along the way, and the updates behind it, before any later resume point
    is in the store; its folder is removed after.

    Raises: ValueError: the launch cannot be, or the trainer refused its input. TrainingLeft: it was asked to leave.
    TrainingDied: its process was killed. What it had is kept, and a rerun goes on from there.
    """
    launching, store, derivation = stage.run.training, session.store, stage.derivation(session.store)
    check_launch(kind, launching)
    if session.node is None and launching.nodes.num_nodes > 1:
        check_batch(kind, config, launching.total_processes)
        ref = train_across_nodes(stage, session)
        session.progress.trained(kind, store.manifest(ref.model, ref.version).metrics)
        return ref
    if shutil.which("nvidia-smi"):
        close_all()  # an inference server would hold the GPU memory that training needs
    given = {"model": model, "reward": reward, "held_out_reward": held_out_reward}
    expected = check_before(kind, config, examples, {k: v for k, v in given.items() if v}, store, launching)
    started, history = time.monotonic(), History(session.progress, kind)
    work = store.cache / "training" / digest(store.uri)[:12] / derivation.version  # two stores may train one version
    work.mkdir(parents=True, exist_ok=True)
    if session.node:  # all nodes must go on from the same point: the newest that the store has
        shutil.rmtree(work / "checkpoints", ignore_errors=True)
    points = ResumePoints(store, derivation, work / "checkpoints", work / "uploads")
    kept = KeptFolders(work / "kept", on_policy)
    kept.take_left_over()
    with tempfile.TemporaryDirectory(dir=work) as scratch:
        folder = Path(scratch)
        job = TrainingJob(
            kind=kind,
            config=config.model_dump(mode="json"),
            examples=write_examples(folder / "examples.jsonl", examples),
            model=store.fetch_model(model),
            reward=store.fetch_model(reward) if reward else None,
            held_out_reward=store.fetch_model(held_out_reward) if held_out_reward else None,
            output=folder / "model",
            rollouts=folder / "rollouts.jsonl" if on_rollouts else None,
            kept=kept.folder,
            checkpoint=points.folder,
            seed=stage.run.seed,
            run_name=f"{stage.stage}/{derivation.version[:12]}",
            node=session.node,
        )
        try:
            with points:
                final = launch(job, launching, history.add, points.keep, work / "training.log", kept.take)
        finally:
            keep_log(store, derivation, work / "training.log", session.node)
        if session.node and session.node.rank > 0:
            return committed_by_first(stage, store)
        if on_rollouts and (folder / "rollouts.jsonl").exists():
            on_rollouts(folder / "rollouts.jsonl")
        lines = final.pop("history", history.lines)
        gpus = launching.total_processes if shutil.which("nvidia-smi") else 0
        cost = {"seconds": time.monotonic() - started, "num_examples": len(examples), "gpus": gpus}
        keep_history(store, derivation, lines)
        metrics = {"final": final, "history": thinned(lines), "preflight": expected}
        session.progress.trained(kind, metrics)
        ref = store.commit_model(derivation, folder / "model", metrics=metrics, cost=cost)
    points.drop()
    shutil.rmtree(work)  # its resume points have served
    return ref


def check_before(
    kind: Kind,
    config: AnyConfig,
    examples: Sequence[Example],
    models: dict[str, ModelRef],
    store: Store,
    launching: LaunchConfig,
) -> dict[str, Any]:
    """Whether it will fit, and whether models and rows belong together, from their small files; as JSON.

    Raises: ValueError: it will not, or they do not; names the remedy.
    """
    folders = {role: store.fetch_model_files(ref) for role, ref in models.items()}
    report = preflight(kind, config, examples, folders, launching)
    logger.info("%s", report.table())
    for warning in report.warnings:
        logger.warning("%s: %s", kind, warning)
    return report.model_dump(mode="json")


class KeptFolders:
    """Policies kept along the way: handed on as they come, and those that a killed run left."""

    def __init__(self, folder: Path, hand_on: Callable[[Path, int], None]) -> None:
        self.folder, self._hand_on = folder, hand_on

    def take(self, policy: Path, update: int) -> None:
        self._hand_on(policy, update)
        shutil.rmtree(policy)

    def take_left_over(self) -> None:
        for update, policy in kept_in(self.folder).items():
            self.take(policy, update)


class History:
    """The log lines of this start of a training; shows them as progress, at most one a second."""

    def __init__(self, progress: Progress, kind: Kind, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.lines: list[dict[str, Any]] = []
        self._progress, self._kind, self._monotonic = progress, kind, monotonic
        self._shown = float("-inf")

    def add(self, line: dict[str, Any]) -> None:
        self.lines.append(line)
        now, is_last = self._monotonic(), line["step"] == line["num_steps"]
        if is_last or now - self._shown >= SHOW_SECONDS:
            self._shown = now
            self._progress.update(line["step"], line["num_steps"], training_note(line))
            self._progress.trained(self._kind, {"history": self.lines})


def training_note(line: dict[str, Any]) -> str:
    """The log line's figures in a few words."""
    shown = {key: line[key] for key in ("loss", "score", "kl", "entropy") if key in line}
    return ", ".join(f"{key} {value:.3f}" for key, value in shown.items())


def keep_history(store: Store, derivation: Derivation, lines: list[dict[str, Any]]) -> None:
    """Every line, as the blob `history.jsonl`."""
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    store.put_blob(derivation.dataset, derivation.version, "history.jsonl", text.encode())


def committed_by_first(
    stage: Stage, store: Store, sleep: Callable[[float], None] = time.sleep, seconds: float = COMMIT_SECONDS
) -> ModelRef:
    """What the first node commits: a node has ended well only if there is a result.

    Raises: TrainingDied: there is none for so long.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ref = stage.result(store)
        if isinstance(ref, ModelRef):
            return ref
        sleep(COMMIT_POLL_SECONDS)
    raise TrainingDied(f"{stage.stage}: the first node has not committed what was trained for {seconds:.0f} s")


def check_batch(kind: Kind, config: AnyConfig, num_processes: int) -> None:
    """Whether the batch, which is of all nodes together, can be cut over their processes; before any is started.

    Raises: ValueError: it cannot; names the settings.
    """
    if isinstance(config, PPOConfig):
        check_divides(config.batch_size, f"{kind}: batch_size", num_processes, "the number of processes")
        check_divides(config.mini_batch_size, f"{kind}: mini_batch_size", num_processes, "the number of processes")
    else:
        accumulation(config, num_processes)


def keep_log(store: Store, derivation: Derivation, log: Path, node: Node | None = None) -> None:
    """What the training's processes wrote, as the blob `training.log`, also of a training that failed.

    Of nodes but the first as `training.node-<n>.log`.
    """
    name = f"training.node-{node.rank}.log" if node and node.rank else "training.log"
    try:
        if log.exists():
            store.put_blob(derivation.dataset, derivation.version, name, log.read_bytes())
    except StoreError as error:  # the training's own end matters more than its log, which stays on this machine
        logger.warning("the log of this training was not kept in the store, it stands in %s: %s", log, error)
