"""RLOO and GRPO with TRL: a prompt's completions are judged against each other, without a value model.

Ahmadian et al. 2024 (arXiv 2402.14740) and Shao et al. 2024 (arXiv 2402.03300). The same reward model, prompts and
SL policy as PPO's; TRL samples in process and holds the policy to the SL policy.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tasks.schema import Message
from tasks.training.adapters import base_precision, lora_config
from tasks.training.checkpoints import run_name
from tasks.training.encode import encode_prompt, load_tokenizer
from tasks.training.folders import load_policy, longest_row
from tasks.training.kept import keeping
from tasks.training.ppo.loop import draw_prompts
from tasks.training.rl_config import GroupConfig
from tasks.training.supervision import Supervision
from tasks.training.trl_trainer import run_trainer, save_trained_policy, trainer_arguments

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

GroupAlgorithm = Literal["rloo", "grpo"]


def train_group(
    algorithm: GroupAlgorithm,
    config: GroupConfig,
    prompts: Sequence[Sequence[Message]],
    policy: Path,
    reward: Path,
    output: Path,
    seed: int,
    watched: Supervision,
    kept: Path | None = None,
) -> dict[str, Any]:
    """Train `policy` against `reward` on the prompts, held to itself as it was, and save it in `output`; `kept` gets
    the policies along the way.

    Returns: `algorithm`, `num_prompts`, `num_too_long` (left out), `num_steps`, `num_completions` (sampled),
    `history` (a dict a step; `group_trainers.our_figures`).
    Raises: ValueError: no prompt fits, or models that do not belong together. FloatingPointError: training diverged.
    """
    tokenizer = load_tokenizer(policy)
    if load_tokenizer(reward).get_vocab() != tokenizer.get_vocab():
        raise ValueError(
            f"{algorithm}: reward model {reward} and policy {policy} have different vocabularies, expected the same: "
            "train the reward model from this policy"
        )
    room = longest_row(policy, config.max_prompt_tokens + config.max_tokens) - config.max_tokens
    encoded = [ids for prompt in prompts if len(ids := encode_prompt(tokenizer, prompt)) <= room]
    if not encoded:
        raise ValueError(
            f"{algorithm}: none of {len(prompts)} prompts fits {room} tokens; "
            "raise max_prompt_tokens (the context less max_tokens permitting) or give prompts"
        )
    shapes = [(folder / "config.json").read_text(encoding="utf-8") for folder in (policy, reward)]
    with tempfile.TemporaryDirectory() as scratch:
        trainer = make_trainer(algorithm, config, encoded, tokenizer, policy, reward, scratch, seed)
        run = run_name(config, seed, algorithm, *shapes, encoded)
        history = run_trainer(trainer, watched, run, keeping(kept, policy, config))
        save_trained_policy(trainer, policy, output, config.precision)
    return {
        "algorithm": algorithm,
        "num_prompts": len(encoded),
        "num_too_long": len(prompts) - len(encoded),
        "num_steps": trainer.state.global_step,
        "num_completions": trainer.state.global_step * config.batch_size,
        "history": history,
    }


def make_trainer(
    algorithm: GroupAlgorithm,
    config: GroupConfig,
    encoded: list[list[int]],
    tokenizer: "PreTrainedTokenizerBase",
    policy: Path,
    reward: Path,
    scratch: str,
    seed: int,
) -> Any:
    """TRL's trainer with our reward model; `encoded` are the prompts to draw from."""
    from datasets import Dataset

    from tasks.training.group_trainers import TRAINERS, reward_function

    trainer, arguments = TRAINERS[algorithm]
    num_drawn = config.num_steps * config.batch_size // config.group_size
    # drawn here, one pass over them, because TRL's sampler forgets where it was when a training goes on
    rows = [{"prompt": encoded[i]} for i in draw_prompts(len(encoded), num_drawn, seed, 0)]
    args = arguments(**group_arguments(config, scratch, seed))
    return trainer(
        model=load_policy(policy, base_precision(config)),
        reward_funcs=reward_function(reward, tokenizer.eos_token_id, config, args.device),
        args=args,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=lora_config(config, "CAUSAL_LM"),
    )


def group_arguments(config: GroupConfig, scratch: str, seed: int) -> dict[str, Any]:
    """A batch is sampled in one go and makes one optimizer step."""
    shared = trainer_arguments(config, scratch, seed)
    return shared | {
        "max_steps": config.num_steps,
        "num_generations": config.group_size,
        "max_completion_length": config.max_tokens,
        "temperature": config.temperature,
        "beta": config.kl_coef,
        "epsilon": config.clip_range,
        "shuffle_dataset": False,
    }
