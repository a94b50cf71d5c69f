"""Low-rank adapters (Hu et al. 2021, arXiv 2106.09685) while training; what is kept is always plain weights.

peft is imported inside functions. Serving and later stages know nothing of adapters: `merged` adds them to the weights.
"""

from typing import TYPE_CHECKING, Literal

from tasks.training.config import Precision, TrainerConfig

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedModel

TaskType = Literal["CAUSAL_LM", "SEQ_CLS"]


def lora_config(config: TrainerConfig, task_type: TaskType) -> "LoraConfig | None":
    """Adapters on every linear layer but the head; None where all weights are trained (rank 0).

    The head of a "SEQ_CLS" model, which starts at random, is trained whole. Seed torch before adapters are made: half
    of each is drawn. Without dropout, so that a training draws nothing else.
    """
    if config.lora_rank == 0:
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha or 2 * config.lora_rank,
        lora_dropout=0.0,
        target_modules="all-linear",
        modules_to_save=["score"] if task_type == "SEQ_CLS" else None,
        task_type=task_type,
    )


def base_precision(config: TrainerConfig) -> Precision:
    """What the weights are loaded in: trained ones in float32, those that adapters leave as they are in `precision`."""
    return config.precision if config.lora_rank else "float32"


def merged(model: "PreTrainedModel") -> "PreTrainedModel":
    """The model with its adapters added to its weights, in float32; one without adapters as it is."""
    from peft import PeftModel

    if not isinstance(model, PeftModel):
        return model
    return model.float().merge_and_unload()
