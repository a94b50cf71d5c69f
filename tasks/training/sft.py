"""Supervised finetuning with TRL: the SL policy learns the revisions (section 3.1, "SL-CAI").

Loss is on the completion only, its EOS included.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.training.adapters import base_precision, lora_config
from tasks.training.checkpoints import run_name
from tasks.training.config import SFTConfig
from tasks.training.encode import encode_completion, encode_prompt, load_tokenizer
from tasks.training.examples import SFTExample
from tasks.training.folders import load_policy, longest_row
from tasks.training.kept import keeping
from tasks.training.supervision import Supervision
from tasks.training.trl_trainer import run_trainer, save_trained_policy, trainer_arguments

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Row = dict[str, list[int]]


def train_sft(
    config: SFTConfig,
    examples: Sequence[SFTExample],
    model: Path,
    output: Path,
    seed: int,
    watched: Supervision,
    kept: Path | None = None,
) -> dict[str, Any]:
    """Finetune `model` on the examples' completions and save it in `output`; `kept` gets the policies along the way.

    Returns: `num_examples`, `num_too_long` (left out), `num_rows` (fewer than examples where several are packed into
    one), `num_steps`, `first_loss` and `last_loss` (of a step, nats a token), `history` (a dict a step).
    Raises: ValueError: no example fits `max_tokens` and the context, or the tokenizer cannot end a turn.
    FloatingPointError: training diverged.
    """
    tokenizer = load_tokenizer(model)
    limit = longest_row(model, config.max_tokens)
    rows = [row for example in examples if (row := encode_row(tokenizer, example, limit))]
    if not rows:
        raise ValueError(
            f"sft: none of {len(examples)} examples fits {limit} tokens; "
            "raise max_tokens (the context permitting) or give examples"
        )
    run = run_name(config, seed, "sft", (model / "config.json").read_text(encoding="utf-8"), rows)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = make_trainer(config, rows, tokenizer, model, limit, scratch, seed)
        history = run_trainer(trainer, watched, run, keeping(kept, model, config))
        save_trained_policy(trainer, model, output, config.precision)
    return {
        "num_examples": len(rows),
        "num_too_long": len(examples) - len(rows),
        "num_rows": len(trainer.train_dataset) - 1,  # without the blank one
        "num_steps": trainer.state.global_step,
        "first_loss": history[0]["loss"],
        "last_loss": history[-1]["loss"],
        "history": history,
    }


def encode_row(tokenizer: "PreTrainedTokenizerBase", example: SFTExample, max_tokens: int) -> Row | None:
    """`input_ids` and `completion_mask`, 1 on what is learned; None if longer than `max_tokens`."""
    prompt = encode_prompt(tokenizer, example.prompt)
    completion = encode_completion(tokenizer, example.completion)
    if len(prompt) + len(completion) > max_tokens:
        return None
    return {
        "input_ids": prompt + completion,
        "completion_mask": [0] * len(prompt) + [1] * len(completion),
    }


def make_trainer(
    config: SFTConfig,
    rows: list[Row],
    tokenizer: "PreTrainedTokenizerBase",
    model: Path,
    limit: int,
    scratch: str,
    seed: int,
) -> Any:
    """TRL's trainer of all weights, or of adapters; packed rows have `limit` tokens."""
    import torch
    from trl import SFTConfig as TrlConfig

    from tasks.training.completion_trainer import CompletionTrainer, learned_rows

    torch.manual_seed(seed)  # adapters are drawn while the trainer is made
    arguments = trainer_arguments(config, scratch, seed)
    packing = {"packing": True, "packing_strategy": "bfd", "max_length": limit} if config.packing else {}
    return CompletionTrainer(
        model=load_policy(model, base_precision(config)),
        args=TrlConfig(**arguments | packing, dataset_kwargs={"skip_prepare_dataset": True}),
        train_dataset=learned_rows(rows, limit if config.packing else None, tokenizer.eos_token_id),
        processing_class=tokenizer,
        peft_config=lora_config(config, "CAUSAL_LM"),
    )
