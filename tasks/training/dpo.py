"""DPO with TRL: the policy learns from the preferences themselves (Rafailov et al. 2023, arXiv 2305.18290).

No reward model, no sampling: the loss is the reward model's, with beta log(policy / SL policy) in the place of
the score. TRL's `DPOTrainer` knows only certain preferences, hence the subclass.
"""

import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.training.adapters import base_precision, lora_config
from tasks.training.checkpoints import run_name
from tasks.training.encode import encode_completion, encode_prompt, load_tokenizer
from tasks.training.examples import PreferenceExample
from tasks.training.folders import load_policy, longest_row
from tasks.training.kept import keeping
from tasks.training.rl_config import DPOConfig
from tasks.training.supervision import Supervision
from tasks.training.trl_trainer import run_trainer, save_trained_policy, trainer_arguments

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Row = dict[str, Any]


def train_dpo(
    config: DPOConfig,
    preferences: Sequence[PreferenceExample],
    model: Path,
    output: Path,
    seed: int,
    watched: Supervision,
    kept: Path | None = None,
) -> dict[str, Any]:
    """Train `model` on the preferences, held to itself as it was, and save it in `output`; `kept` gets the policies
    along the way.

    Returns: `algorithm`, counts (`num_too_long` were left out), `first_loss` and `last_loss` (nats a comparison, of a
    step; log 2 is where it starts), `history` (a dict a step).
    Raises: ValueError: no comparison fits `max_tokens` and the context. FloatingPointError: training diverged.
    """
    tokenizer = load_tokenizer(model)
    limit = longest_row(model, config.max_tokens)
    rows = [row for example in preferences if (row := encode_pair(tokenizer, example, limit, config.soft_labels))]
    if not rows:
        raise ValueError(
            f"dpo: none of {len(preferences)} comparisons fits {limit} tokens; "
            "raise max_tokens (the context permitting) or give comparisons"
        )
    with tempfile.TemporaryDirectory() as scratch:
        trainer = make_trainer(config, rows, tokenizer, model, scratch, seed)
        # weights are not read: another policy of the same shape has its own folder of resume points
        shape = (model / "config.json").read_text(encoding="utf-8")
        run = run_name(config, seed, "dpo", shape, rows)
        history = run_trainer(trainer, watched, run, keeping(kept, model, config))
        save_trained_policy(trainer, model, output, config.precision)
    return {
        "algorithm": "dpo",
        "num_examples": len(rows),
        "num_too_long": len(preferences) - len(rows),
        "num_steps": trainer.state.global_step,
        "first_loss": history[0]["loss"],
        "last_loss": history[-1]["loss"],
        "history": history,
    }


def encode_pair(
    tokenizer: "PreTrainedTokenizerBase", example: PreferenceExample, max_tokens: int, soft_labels: bool
) -> Row | None:
    """Ids of prompt, chosen and rejected, with `target_prob` and `weight`; None if a side exceeds `max_tokens`."""
    prompt = encode_prompt(tokenizer, example.prompt)
    chosen = encode_completion(tokenizer, example.chosen)
    rejected = encode_completion(tokenizer, example.rejected)
    if len(prompt) + max(len(chosen), len(rejected)) > max_tokens:
        return None
    target_prob = example.target_prob if soft_labels else sure(example.target_prob)
    ids = {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}
    return ids | {"target_prob": target_prob, "weight": example.weight}


def sure(prob: float) -> float:
    """The label as a decision: 1, 0, or 0.5 where it leans to neither side."""
    return 0.5 if prob == 0.5 else float(prob > 0.5)


def make_trainer(
    config: DPOConfig, rows: list[Row], tokenizer: "PreTrainedTokenizerBase", model: Path, scratch: str, seed: int
) -> Any:
    """A `SoftDPOTrainer` whose reference is `model` as it is in the folder, or with LoRA the same without adapter."""
    from datasets import Dataset
    from trl import DPOConfig as TrlConfig

    from tasks.training.soft_dpo import SoftDPOTrainer, SoftPairCollator, blank_pair

    mean = statistics.fmean(row["weight"] for row in rows)  # weights say what counts more, not how fast to learn
    weighed = [row | {"weight": row["weight"] / mean} for row in rows]
    return SoftDPOTrainer(
        model=load_policy(model, base_precision(config)),
        args=TrlConfig(beta=config.beta, **trainer_arguments(config, scratch, seed)),
        data_collator=SoftPairCollator(pad_token_id=tokenizer.pad_token_id),
        train_dataset=Dataset.from_list([*weighed, blank_pair(tokenizer.eos_token_id)]),
        processing_class=tokenizer,
        peft_config=lora_config(config, "CAUSAL_LM"),
    )
