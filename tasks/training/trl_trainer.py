"""What all trainers that TRL and transformers bring share: arguments, supervision, resume points, the trained model."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.training.adapters import merged
from tasks.training.checkpoints import Checkpoints
from tasks.training.config import Precision, RewardConfig, SFTConfig
from tasks.training.folders import load_policy, save_model
from tasks.training.rl_config import DPOConfig, GroupConfig
from tasks.training.supervision import Leaving, Supervision

if TYPE_CHECKING:
    from transformers import PreTrainedModel, Trainer

    from tasks.training.kept import KeptPolicies

logger = logging.getLogger(__name__)


def trainer_arguments(
    config: SFTConfig | RewardConfig | GroupConfig | DPOConfig, scratch: str, seed: int
) -> dict[str, Any]:
    """Constant rate, every step logged, no trackers, no progress bars; resume points are `run_trainer`'s.

    Raises: ValueError: the batch cannot be cut into micro-batches over this many processes.
    """
    import torch

    passes = {} if isinstance(config, GroupConfig) else {"num_train_epochs": config.epochs, "max_length": None}
    return passes | {  # max_length: longer rows were left out, so that none loses its EOS
        "output_dir": scratch,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "max_grad_norm": config.max_grad_norm,
        "per_device_train_batch_size": config.micro_batch_size,
        "gradient_accumulation_steps": accumulation(config, int(os.environ.get("WORLD_SIZE", "1"))),
        "bf16": config.precision == "bfloat16",
        "gradient_checkpointing": config.gradient_checkpointing,
        "use_cpu": not torch.cuda.is_available(),
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # it would log another loss in the place of one that is not a number
        "save_strategy": "no",
        "save_steps": config.checkpoint_every,
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "seed": seed,
    }


def accumulation(config: SFTConfig | RewardConfig | GroupConfig | DPOConfig, num_processes: int) -> int:
    """Micro-batches of a process that make an optimizer step.

    Raises: ValueError: they do not divide the batch.
    """
    at_once = config.micro_batch_size * num_processes
    if config.batch_size % at_once:
        raise ValueError(
            f"batch_size is {config.batch_size}, expected a multiple of micro_batch_size ({config.micro_batch_size}) "
            f"times the number of processes ({num_processes}): lower micro_batch_size, or change num_processes"
        )
    return config.batch_size // at_once


def run_trainer(
    trainer: "Trainer", watched: Supervision, run: str, kept: "KeptPolicies | None" = None
) -> list[dict[str, Any]]:
    """Train under supervision; goes on from the newest resume point of `run` (`checkpoints.run_name`).

    Policies along the way are written to `kept`.

    Returns: the figures of every step, those before a resume among them: `step`, `num_steps`, `loss`, `grad_norm`
    and what else the trainer logs; a figure without a value is None.
    Raises: Leaving: it was asked to leave. FloatingPointError: training diverged. ValueError: a resume point is of
    another training, or sharding and adapters are asked for together.
    """
    from transformers import PrinterCallback

    from tasks.training.watching import Watch

    points = Checkpoints(kept_in(trainer, watched), run, watched.on_checkpoint)
    watch = Watch(trainer, watched, points, kept)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(watch)
    trainer.train(resume_from_checkpoint=watch.restore())
    trainer.model.config.use_cache = watch.use_cache  # a Trainer may turn it off, and generation would be slow
    watch.clean_up()
    if watch.left:
        raise Leaving(f"left after step {trainer.state.global_step} of {trainer.state.max_steps}")
    return [line for line in trainer.state.log_history if "loss" in line]


def kept_in(trainer: "Trainer", watched: Supervision) -> Path | None:
    """The folder of resume points; None where none are wanted, and under DeepSpeed.

    Raises: ValueError: sharding and adapters are asked for together.
    """
    from peft import PeftModel

    if is_sharded(trainer) and isinstance(trainer.model, PeftModel):
        raise ValueError("lora_rank is set and sharding is not none, expected one of them: adapters are small enough")
    if watched.checkpoints and trainer.is_deepspeed_enabled:
        logger.warning(
            "DeepSpeed keeps its state as pickles, which are not kept here: this training has no resume points and "
            "starts over if it is killed. sharding: fsdp2 has them"
        )
        return None
    return watched.checkpoints


def is_sharded(trainer: "Trainer") -> bool:
    """Whether a process holds only a part of the model."""
    return bool(trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled)


def policy_so_far(trainer: "Trainer", fresh: Callable[[], "PreTrainedModel"]) -> "PreTrainedModel | None":
    """The whole model as it is now in the process that writes, adapters apart; None in the others. All must ask.

    `fresh` loads the model as it was before: shards are gathered into it.
    """
    if not is_sharded(trainer):
        return trainer.accelerator.unwrap_model(trainer.model) if trainer.is_world_process_zero() else None
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if not trainer.is_world_process_zero():
        return None
    model = fresh()
    model.load_state_dict(state)
    return model


def trained_model(trainer: "Trainer", fresh: Callable[[], "PreTrainedModel"]) -> "PreTrainedModel | None":
    """As `policy_so_far`, with adapters merged into its weights: the training is over."""
    model = policy_so_far(trainer, fresh)
    return None if model is None else merged(model)


def save_trained_policy(trainer: "Trainer", source: Path, output: Path, precision: Precision) -> None:
    """Write the trained policy, with the tokenizer of the folder that it came from, in the process that writes."""
    policy = trained_model(trainer, lambda: load_policy(source))
    if policy is not None:
        save_model(policy, source, output, precision)
