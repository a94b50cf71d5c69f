"""Supervised finetuning with TRL: the SL policy learns the revisions (section 3.1, "SL-CAI").

Loss is on the completion only, its EOS included.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.training.config import SFTConfig
from tasks.training.encode import encode_completion, encode_prompt, load_tokenizer
from tasks.training.examples import SFTExample
from tasks.training.folders import load_policy, longest_row, save_model
from tasks.training.supervision import Supervision
from tasks.training.trl_trainer import run_trainer, trainer_arguments

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def train_sft(
    config: SFTConfig, examples: Sequence[SFTExample], model: Path, output: Path, seed: int, watched: Supervision
) -> dict[str, Any]:
    """Finetune `model` on the examples' completions and save it in `output`.

    Returns: `num_examples`, `num_too_long` (left out), `num_steps`, `first_loss` and `last_loss` (mean of a
    log interval, nats a token).
    Raises: ValueError: no example fits `max_tokens` and the context, or the tokenizer cannot end a turn.
    """
    from datasets import Dataset
    from trl import SFTTrainer

    tokenizer = load_tokenizer(model)
    limit = longest_row(model, config.max_tokens)
    rows = [row for example in examples if (row := encode_row(tokenizer, example, limit))]
    if not rows:
        raise ValueError(
            f"sft: none of {len(examples)} examples fits {limit} tokens; "
            "raise max_tokens (the context permitting) or give examples"
        )
    policy = load_policy(model)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = SFTTrainer(
            model=policy,
            args=_trl_arguments(config, scratch, seed, len(rows)),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
        )
        losses = run_trainer(trainer, watched.log)
    save_model(policy, model, output, config.precision)
    return {
        "num_examples": len(rows),
        "num_too_long": len(examples) - len(rows),
        "num_steps": trainer.state.global_step,
        "first_loss": losses[0],
        "last_loss": losses[-1],
    }


def encode_row(
    tokenizer: "PreTrainedTokenizerBase", example: SFTExample, max_tokens: int
) -> dict[str, list[int]] | None:
    """`input_ids` and the `completion_mask` that TRL turns into labels; None if longer than `max_tokens`."""
    prompt = encode_prompt(tokenizer, example.prompt)
    completion = encode_completion(tokenizer, example.completion)
    if len(prompt) + len(completion) > max_tokens:
        return None
    return {
        "input_ids": prompt + completion,
        "completion_mask": [0] * len(prompt) + [1] * len(completion),
    }


def _trl_arguments(config: SFTConfig, scratch: str, seed: int, num_rows: int) -> Any:
    from trl import SFTConfig as TrlConfig

    return TrlConfig(completion_only_loss=True, **trainer_arguments(config, scratch, seed, num_rows))
