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

from tasks.training.adapters import base_precision, lora_config
from tasks.training.checkpoints import run_name
from tasks.training.config import RewardConfig
from tasks.training.encode import encode_completion, encode_prompt, load_tokenizer
from tasks.training.examples import PreferenceExample
from tasks.training.folders import load_scalar_model, longest_row, save_model, training_device, write_json
from tasks.training.reward_figures import calibration, measure, models_agreement, scale_of, side_scores
from tasks.training.scoring import SCALE_FILE
from tasks.training.supervision import Supervision
from tasks.training.trl_trainer import run_trainer, trained_model, trainer_arguments

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Row = dict[str, Any]


def train_reward(
    config: RewardConfig,
    preferences: Sequence[PreferenceExample],
    model: Path,
    output: Path,
    seed: int,
    watched: Supervision,
    compared: Path | None = None,
) -> dict[str, Any]:
    """Fit a scalar head and the body of `model` to the preferences and save them in `output`.

    `reward_scale.json` beside the weights keeps mean and standard deviation of the raw scores over the policy's own
    samples among what was trained on (`scale_of`), by which `scoring` standardises. `compared` is the folder of
    another reward model, trained on other prompts, whose margins on the held-out rows are set beside this one's.

    Returns: counts, `held_out_*` figures (None without held-out rows) beside their `train_*` twins, of all rows and of
    each origin (`measure`), `held_out_calibration` (bins), with `compared` `models_agreement`, and `history` (a dict a
    step). Of several processes the first measures and saves, and the others return {}.
    Raises: ValueError: no comparison fits `max_tokens` and the context, or every completion got the same score.
    FloatingPointError: training diverged.
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
    run = run_name(config, seed, "reward", (model / "config.json").read_text(encoding="utf-8"), rows)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = make_trainer(config, rows, tokenizer, model, scratch, seed)
        history = run_trainer(trainer, watched, run)
    trained = trained_model(trainer, lambda: load_scalar_model(model))
    if trained is None:
        return {}
    reward = trained.to(training_device()).eval()
    scores, held_out_scores = side_scores(reward, rows), side_scores(reward, held_out_rows)
    metrics = measure(rows, scores, "train_") | measure(held_out_rows, held_out_scores, "held_out_")
    metrics["held_out_calibration"] = calibration(held_out_rows, held_out_scores)
    if compared:
        other = load_scalar_model(compared).to(reward.device).eval()
        metrics |= models_agreement(held_out_scores, side_scores(other, held_out_rows))
    scale = scale_of(rows, scores)
    save_model(reward, model, output, config.precision)
    write_json(output / SCALE_FILE, scale)
    return metrics | {
        "num_train": len(rows),
        "num_held_out": len(held_out_rows),
        "num_too_long": len(preferences) - len(rows) - len(held_out_rows),
        "num_steps": trainer.state.global_step,
        "score_mean": scale["mean"],
        "score_std": scale["std"],
        "history": history,
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


def make_trainer(
    config: RewardConfig, rows: list[Row], tokenizer: "PreTrainedTokenizerBase", model: Path, scratch: str, seed: int
) -> Any:
    """TRL's trainer of a scalar head and all weights under it, or adapters."""
    import torch
    from datasets import Dataset
    from trl import RewardConfig as TrlConfig

    from tasks.training.soft_reward import SoftPreferenceCollator, SoftRewardTrainer, blank_row

    torch.manual_seed(seed)  # the new head is drawn while loading, adapters while the trainer is made
    reward = load_scalar_model(model, base_precision(config))
    reward.score.float()  # it is trained, whatever the frozen weights under adapters are held in
    reward.config.pad_token_id = tokenizer.pad_token_id
    arguments = trainer_arguments(config, scratch, seed)
    return SoftRewardTrainer(
        model=reward,
        args=TrlConfig(center_rewards_coefficient=config.center_coefficient, **arguments),
        data_collator=SoftPreferenceCollator(pad_token_id=tokenizer.pad_token_id),
        train_dataset=Dataset.from_list([*_with_mean_weight_1(rows), blank_row(tokenizer.eos_token_id)]),
        processing_class=tokenizer,
        peft_config=lora_config(config, "SEQ_CLS"),
        head_learning_rate=config.head_learning_rate,
    )


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
            labels = preference.model_dump(include={"target_prob", "weight", "origin"})
            rows.append(sides | labels)
    return rows


def _with_mean_weight_1(rows: Sequence[Row]) -> list[Row]:
    """The rows with their weights scaled, so that weights say what counts more and not how fast to learn."""
    mean = statistics.fmean(row["weight"] for row in rows)
    return [row | {"weight": row["weight"] / mean} for row in rows]


def _prompt_key(preference: PreferenceExample, seed: int) -> bytes:
    text = "\x1e".join(f"{turn.role}\x1f{turn.content}" for turn in preference.prompt)
    return hashlib.sha256(f"{seed}\x1e{text}".encode()).digest()
