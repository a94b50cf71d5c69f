"""The reward model, fitted to soft preference labels with TRL (section 4.1: the "preference model").

The loss is the cross entropy between the labeller's P(chosen better) and sigmoid(r_chosen - r_rejected).
TRL's `RewardTrainer` knows only certain preferences, hence the subclass.
"""

import hashlib
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.training.config import RewardConfig
from tasks.training.encode import encode_completion, encode_prompt, load_tokenizer
from tasks.training.examples import PreferenceExample
from tasks.training.folders import load_scalar_model, longest_row, save_model, write_json
from tasks.training.scoring import SCALE_FILE, raw_scores
from tasks.training.supervision import Supervision
from tasks.training.trl_trainer import run_trainer, trainer_arguments

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Row = dict[str, Any]


def train_reward(
    config: RewardConfig,
    preferences: Sequence[PreferenceExample],
    model: Path,
    output: Path,
    seed: int,
    watched: Supervision,
) -> dict[str, Any]:
    """Fit a scalar head and the body of `model` to the preferences and save them in `output`.

    `reward_scale.json` beside the weights keeps mean and standard deviation of the raw scores over the
    completions trained on, by which `scoring` standardises.

    Returns: counts, and `held_out_*` figures (None without held-out rows) beside their `train_*` twins:
    `cross_entropy`, its `entropy_floor` (nats a comparison), `accuracy` (see `agreement`); weights do not enter them.
    Raises: ValueError: no comparison fits `max_tokens` and the context, or every completion got the same score.
    """
    tokenizer = load_tokenizer(model)
    train, held_out = split_by_prompt(preferences, config.held_out_fraction, seed)
    limit = longest_row(model, config.max_tokens)
    rows = _encode_rows(tokenizer, train, limit)
    held_out_rows = _encode_rows(tokenizer, held_out, limit)
    if not rows:
        raise ValueError(
            f"reward: none of {len(train)} comparisons fits {limit} tokens; "
            "raise max_tokens (the context permitting) or give comparisons"
        )
    reward, num_steps = _fit(config, rows, tokenizer, model, seed, watched)
    metrics = _measure(reward, rows, "train_")
    metrics |= _measure(reward, held_out_rows, "held_out_")
    scale = _scale(raw_scores(reward, [row[side] for row in rows for side in ("chosen_ids", "rejected_ids")]))
    save_model(reward, model, output, config.precision)
    write_json(output / SCALE_FILE, scale)
    return metrics | {
        "num_train": len(rows),
        "num_held_out": len(held_out_rows),
        "num_too_long": len(preferences) - len(rows) - len(held_out_rows),
        "num_steps": num_steps,
        "score_mean": scale["mean"],
        "score_std": scale["std"],
    }


def split_by_prompt(
    preferences: Sequence[PreferenceExample], fraction: float, seed: int
) -> tuple[list[PreferenceExample], list[PreferenceExample]]:
    """(train, held out), in order; `fraction` of the prompts is held out, with all their comparisons.

    A prompt is held out by the rank of a hash of it and the seed, so that it depends on no order.
    """
    prompts = {_prompt_key(preference, seed) for preference in preferences}
    held_out_keys = set(sorted(prompts)[: round(len(prompts) * fraction)])
    train: list[PreferenceExample] = []
    held_out: list[PreferenceExample] = []
    for preference in preferences:
        (held_out if _prompt_key(preference, seed) in held_out_keys else train).append(preference)
    return train, held_out


def agreement(margins: Sequence[float], targets: Sequence[float]) -> float | None:
    """Share of comparisons whose margin r_chosen - r_rejected is on the label's side.

    Undecided labels (0.5) are left aside; None if no label is decided.
    """
    decided = [(margin > 0) == (target > 0.5) for margin, target in zip(margins, targets, strict=True) if target != 0.5]
    return sum(decided) / len(decided) if decided else None


def _fit(
    config: RewardConfig,
    rows: list[Row],
    tokenizer: "PreTrainedTokenizerBase",
    model: Path,
    seed: int,
    watched: Supervision,
) -> tuple["PreTrainedModel", int]:
    import torch
    from datasets import Dataset
    from trl import RewardConfig as TrlConfig

    from tasks.training.soft_reward import SoftPreferenceCollator, SoftRewardTrainer

    torch.manual_seed(seed)  # the new head is drawn while loading
    reward = load_scalar_model(model)
    reward.config.pad_token_id = tokenizer.pad_token_id
    with tempfile.TemporaryDirectory() as scratch:
        trainer = SoftRewardTrainer(
            model=reward,
            args=TrlConfig(
                center_rewards_coefficient=config.center_coefficient,
                **trainer_arguments(config, scratch, seed, len(rows)),
            ),
            data_collator=SoftPreferenceCollator(pad_token_id=tokenizer.pad_token_id),
            train_dataset=Dataset.from_list(_with_mean_weight_1(rows)),
            processing_class=tokenizer,
        )
        run_trainer(trainer, watched.log)
    return reward.eval(), trainer.state.global_step


def _encode_rows(
    tokenizer: "PreTrainedTokenizerBase", preferences: Sequence[PreferenceExample], max_tokens: int
) -> list[Row]:
    rows = []
    for preference in preferences:
        prompt = encode_prompt(tokenizer, preference.prompt)
        chosen = prompt + encode_completion(tokenizer, preference.chosen)
        rejected = prompt + encode_completion(tokenizer, preference.rejected)
        if max(len(chosen), len(rejected)) <= max_tokens:
            sides = {"chosen_ids": chosen, "rejected_ids": rejected}
            rows.append(sides | {"target_prob": preference.target_prob, "weight": preference.weight})
    return rows


def _with_mean_weight_1(rows: Sequence[Row]) -> list[Row]:
    """The rows with their weights scaled, so that weights say what counts more and not how fast to learn."""
    mean = statistics.fmean(row["weight"] for row in rows)
    return [row | {"weight": row["weight"] / mean} for row in rows]


def _measure(reward: "PreTrainedModel", rows: list[Row], prefix: str) -> dict[str, float | None]:
    """Cross entropy beside the least it could be: the entropy of the labels themselves."""
    import torch
    from torch.nn.functional import binary_cross_entropy, binary_cross_entropy_with_logits

    if not rows:
        return dict.fromkeys((prefix + "cross_entropy", prefix + "entropy_floor", prefix + "accuracy"))
    chosen = raw_scores(reward, [row["chosen_ids"] for row in rows])
    rejected = raw_scores(reward, [row["rejected_ids"] for row in rows])
    margins = torch.tensor(chosen) - torch.tensor(rejected)
    targets = torch.tensor([row["target_prob"] for row in rows])
    return {
        prefix + "cross_entropy": binary_cross_entropy_with_logits(margins, targets).item(),
        prefix + "entropy_floor": binary_cross_entropy(targets, targets).item(),
        prefix + "accuracy": agreement(margins.tolist(), targets.tolist()),
    }


def _scale(scores: Sequence[float]) -> dict[str, float]:
    scale = {"mean": statistics.fmean(scores), "std": statistics.pstdev(scores)}
    if not scale["std"] > 1e-6:
        raise ValueError(
            f"reward: all {len(scores)} training completions score {scale['mean']:.4g}, expected different ones; "
            "are the comparisons' two sides equal, or is the learning rate far off?"
        )
    return scale


def _prompt_key(preference: PreferenceExample, seed: int) -> bytes:
    text = "\x1e".join(f"{turn.role}\x1f{turn.content}" for turn in preference.prompt)
    return hashlib.sha256(f"{seed}\x1e{text}".encode()).digest()
