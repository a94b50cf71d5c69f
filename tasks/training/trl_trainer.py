"""What the two TRL trainers, SFT and reward, share: their arguments and how they run."""

from typing import TYPE_CHECKING, Any

from tasks.training.config import RewardConfig, SFTConfig
from tasks.training.supervision import Log

if TYPE_CHECKING:
    from transformers import Trainer, TrainerCallback

LOG_LINES = 50  # about so many log lines a training, however long it is


def trainer_arguments(config: SFTConfig | RewardConfig, scratch: str, seed: int, num_rows: int) -> dict[str, Any]:
    """Constant rate, no trackers, no progress bars, nothing saved in `scratch`."""
    import torch

    num_steps = -(-num_rows // config.batch_size) * config.epochs
    return {
        "output_dir": scratch,
        "num_train_epochs": config.epochs,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "max_grad_norm": config.max_grad_norm,
        "per_device_train_batch_size": config.micro_batch_size,
        "gradient_accumulation_steps": config.batch_size // config.micro_batch_size,
        "max_length": None,  # longer rows were left out, so that none loses its EOS
        "bf16": config.precision == "bfloat16",
        "gradient_checkpointing": config.gradient_checkpointing,
        "use_cpu": not torch.cuda.is_available(),
        "logging_steps": max(1, num_steps // LOG_LINES),
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "seed": seed,
    }


def run_trainer(trainer: "Trainer", log: Log) -> list[float]:
    """Train, handing on log lines; returns the logged losses, each a mean over its log interval."""
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(_forwarding(log))
    use_cache = trainer.model.config.use_cache
    trainer.train()
    trainer.model.config.use_cache = use_cache  # a Trainer may turn it off, and generation would be slow
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]


def _forwarding(log: Log) -> "TrainerCallback":
    from transformers import TrainerCallback

    class Forward(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
            if "loss" in logs:  # the last line is a summary without one
                log({"step": state.global_step, "num_steps": state.max_steps} | logs)

    return Forward()
