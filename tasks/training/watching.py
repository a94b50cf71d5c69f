"""The callback by which a transformers Trainer obeys `Supervision`. Importing this imports torch."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState
from transformers.trainer import TRAINER_STATE_NAME

from tasks.training.checkpoints import Checkpoints
from tasks.training.folders import load_policy
from tasks.training.kept import KeptPolicies
from tasks.training.ranks import Ranks
from tasks.training.supervision import Supervision
from tasks.training.trainer_state import from_plain, to_plain
from tasks.training.trl_trainer import policy_so_far


class Watch(TrainerCallback):
    """Hands on figures, writes resume points, stops a training that diverges or is asked to leave.

    A Trainer writes its own checkpoint, pickles and all, into a hidden folder beside the resume points, which all
    processes of a machine share; the first process makes a resume point of it. What the processes of other machines
    write, the state of their random numbers, is brought to it.
    """

    def __init__(
        self, trainer: Trainer, watched: Supervision, points: Checkpoints, kept: KeptPolicies | None = None
    ) -> None:
        self.left = False
        self.use_cache = trainer.model.config.use_cache
        self._trainer = trainer
        self._watched = watched
        self._points = points
        self._kept = kept
        self._ranks = Ranks.join()
        self._scratch = points.folder / ".trainer" if points.folder else None

    def restore(self) -> str | None:
        """Prepare the Trainer for a start or a resume; the folder that it is to resume from, or None."""
        self.clean_up()
        newest = self._points.newest()
        if self._scratch is None:
            return None
        self._ranks.expect_agreement(self._points.newest_step(), "the step of the newest resume point")
        self._trainer.args.output_dir = str(self._scratch)
        if newest is None:
            return None
        folder = self._scratch / "resumed"
        if self._ranks.first_of_node():
            from_plain(newest, folder)
        self._ranks.wait()
        lines = json.loads((folder / TRAINER_STATE_NAME).read_text(encoding="utf-8"))["log_history"]
        # TRL counts tokens from the start of a process; there is no other place to tell it
        self._trainer._total_train_tokens = int(lines[-1].get("num_tokens", 0)) if lines else 0
        return str(folder)

    def clean_up(self) -> None:
        """Delete what a Trainer wrote for itself, or what one that was killed left."""
        self._ranks.wait()
        if self._scratch and self._ranks.first_of_node():
            shutil.rmtree(self._scratch, ignore_errors=True)
        self._ranks.wait()

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._keep_policy(state.global_step)  # first: whoever goes on from a resume point finds what came before
        self.left = self._ranks.any(self._watched.leaving())
        if self._points.folder and (self.left or state.global_step % args.save_steps == 0):
            control.should_save = True
        if self.left:
            control.should_training_stop = True

    def _keep_policy(self, step: int) -> None:
        """Write the policy out as a model where that is due."""
        if self._kept is None or not self._kept.is_due(step):
            return
        source = self._kept.source
        policy = policy_so_far(self._trainer, lambda: load_policy(source))
        if policy is not None:
            self._watched.on_policy(self._kept.write(policy, step, self.use_cache), step)
        self._ranks.wait()

    def on_log(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if "loss" not in state.log_history[-1]:  # the last line is a summary without one
            return
        line = {"step": state.global_step, "num_steps": state.max_steps} | state.log_history[-1]
        state.log_history[-1] = finite_figures(line, args.learning_rate)
        if self._ranks.is_first:
            self._watched.log(state.log_history[-1])

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._ranks.wait()
        written = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        self._bring_random_states(written)
        if self._ranks.is_first:
            self._points.write(state.global_step, lambda folder: to_plain(written, folder))
        self._ranks.wait()
        if self._ranks.first_of_node():
            shutil.rmtree(written)

    def _bring_random_states(self, written: Path) -> None:
        """Each process writes the state of its random numbers, perhaps on another machine."""
        if self._ranks.size == 1:
            return
        states = self._ranks.gather_bytes((written / f"rng_state_{self._ranks.rank}.pth").read_bytes())
        if self._ranks.is_first:
            for rank, state in enumerate(states):
                (written / f"rng_state_{rank}.pth").write_bytes(state)


def finite_figures(line: dict[str, Any], learning_rate: float) -> dict[str, Any]:
    """The line with None for a figure that is not finite.

    Raises: FloatingPointError: it is the loss or the gradient norm; names the remedy.
    """
    broken = {name: value for name, value in line.items() if isinstance(value, float) and not math.isfinite(value)}
    fatal = [f"{name} is {broken[name]}" for name in ("loss", "grad_norm") if name in broken]
    if fatal:
        raise FloatingPointError(
            f"{' and '.join(fatal)} at step {line['step']}, expected finite ones; lower learning_rate "
            f"(now {learning_rate:g}), or use precision float32"
        )
    return {name: None if name in broken else value for name, value in line.items()}
