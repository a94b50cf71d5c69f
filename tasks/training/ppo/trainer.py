"""PPO from model folders to a model folder (section 4.1): `loop` has the loop, this what is before and after it."""

import contextlib
import json
import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from tasks.schema import Message
from tasks.training.adapters import merged
from tasks.training.checkpoints import Checkpoints, run_name
from tasks.training.encode import encode_prompt
from tasks.training.folders import load_policy, longest_row, save_model
from tasks.training.kept import keeping
from tasks.training.ppo.best import BestPolicy
from tasks.training.ppo.checkpoint import Progress, load_checkpoint
from tasks.training.ppo.episodes import Models, load_models
from tasks.training.ppo.evaluation import Prompt, load_held_out_reward, set_aside
from tasks.training.ppo.loop import Training, run_updates
from tasks.training.ppo.rollout import Sampler, sample_completions
from tasks.training.ppo.rules import Stop, choose_result
from tasks.training.ppo.update import make_optimizer
from tasks.training.ranks import Ranks
from tasks.training.rl_config import PPOConfig
from tasks.training.supervision import Supervision

logger = logging.getLogger(__name__)


def train_ppo(
    config: PPOConfig,
    prompts: Sequence[Sequence[Message]],
    policy: Path,
    reward: Path,
    output: Path,
    seed: int,
    watched: Supervision,
    rollouts: Path | None = None,
    held_out_reward: Path | None = None,
    kept: Path | None = None,
) -> dict[str, Any]:
    """Train `policy` against `reward` on the prompts and save the best policy measured in `output`.

    It is measured on prompts set aside, by `held_out_reward` if there is one; where none are set aside, the last
    policy is saved. Training ends early where one of `config.rules` is broken: the result is the best before.
    Where `watched` keeps resume points, a run that finds one goes on from it to exactly the result it would have
    had. `rollouts`, if given, becomes a file of JSON lines, the kept episodes: prompt (position in `prompts`), update,
    completion, score, kl, num_tokens. `kept`, if given, gets a folder for each policy kept along the way, whole once it
    has its name. Of several processes the first writes.

    Returns: `algorithm`; `num_prompts` (trained on), `num_eval_prompts` (set aside), `num_too_long` (left out);
    `num_updates` (done), `best_update` and `outcome` (the result, as a number and in words), `stopped` (None or
    `rule`, `update`, `message`); `evaluations` (figures of `evaluate` by `update`); `history` (metrics an update).
    Raises: ValueError: no prompt fits, models that do not belong together, a checkpoint of another run.
    FloatingPointError: training diverged. Leaving: asked to by `watched`; the resume point is written.
    """
    ranks = Ranks.join()
    room = longest_row(policy, config.max_prompt_tokens + config.max_tokens) - config.max_tokens
    with _sampler(config, ranks, policy, room + config.max_tokens) as sample:
        training = _prepare(config, prompts, policy, reward, seed, watched, held_out_reward, ranks, room, kept)
        stop = run_updates(training, sample)
    result = _conclude(training, stop, policy, output, rollouts)
    num_fit = len(training.trained_on) + len(training.measured_on)
    return result | {"num_too_long": len(prompts) - num_fit}


def _prepare(
    config: PPOConfig,
    prompts: Sequence[Sequence[Message]],
    policy: Path,
    reward: Path,
    seed: int,
    watched: Supervision,
    held_out_reward: Path | None,
    ranks: Ranks,
    room: int,
    kept: Path | None,
) -> Training:
    """A training at its start, or where its newest resume point left it."""
    torch.manual_seed(seed)  # for what is drawn while loading: adapters, and a head that the reward folder lacks
    models = load_models(policy, reward, config, ranks)
    if config.gradient_checkpointing:
        _enable_gradient_checkpointing(models)
    encoded = _encode_prompts(models, prompts, room)
    trained_on, measured_on = set_aside(encoded, config.eval_prompts, seed)
    folders = [policy, reward, *([held_out_reward] if held_out_reward else [])]
    configs = [json.loads((folder / "config.json").read_text(encoding="utf-8")) for folder in folders]
    points = Checkpoints(watched.checkpoints, run_name(config, seed, encoded, configs), watched.on_checkpoint)
    ranks.expect_agreement(points.newest_step(), "the step of the newest resume point")
    judge = load_held_out_reward(held_out_reward, models, config.precision) if held_out_reward else None
    optimizer = make_optimizer(models.learner, config)
    return Training(
        config=config,
        seed=seed,
        ranks=ranks,
        models=models,
        optimizer=optimizer,
        trained_on=trained_on,
        measured_on=measured_on,
        held_out_reward=judge,
        points=points,
        watched=watched,
        best=BestPolicy.load(points.newest()),
        kept=keeping(kept, policy, config),
        progress=load_checkpoint(points, models.learner, optimizer) or Progress(kl_coef=config.kl_coef),
    )


def _sampler(config: PPOConfig, ranks: Ranks, policy: Path, max_model_tokens: int) -> AbstractContextManager[Sampler]:
    if config.rollouts == "in_process":
        return contextlib.nullcontext(sample_completions)
    if ranks.size > 1:
        raise ValueError(
            f"ppo: rollouts is vllm with {ranks.size} processes, expected one: "
            "set num_processes to 1, or rl.ppo.rollouts to in_process"
        )
    from tasks.training.ppo.vllm_rollouts import VLLMRollouts

    return VLLMRollouts(policy, config.precision, max_model_tokens, config.rollout_memory_share)


def _conclude(
    training: Training, stop: Stop | None, policy: Path, output: Path, rollouts: Path | None
) -> dict[str, Any]:
    """Save the result, and say which it is."""
    progress = training.progress
    best_update, outcome = choose_result(training.config.rules, progress.evaluations, progress.next_update, stop)
    stopped = stop and {
        "rule": stop.rule,
        "update": stop.update,
        "message": f"{stop.message}. The result is {outcome}",
    }
    if stopped:
        logger.warning(stopped["message"])
    if training.ranks.is_first:
        _save_policy(training, best_update, policy, output)
        if rollouts:
            lines = (json.dumps(rollout, ensure_ascii=False, sort_keys=True) + "\n" for rollout in progress.rollouts)
            rollouts.write_text("".join(lines), encoding="utf-8")
    training.ranks.wait()
    return {
        "algorithm": "ppo",
        "num_prompts": len(training.trained_on),
        "num_eval_prompts": len(training.measured_on),
        "num_updates": progress.next_update,
        "best_update": best_update,
        "outcome": outcome,
        "stopped": stopped,
        "evaluations": progress.evaluations,
        "history": progress.history,
    }


def _save_policy(training: Training, update: int, policy: Path, output: Path) -> None:
    """The policy after so many updates: the one as it is now, the best one, or the SL policy itself."""
    learner = training.models.learner.policy
    if update == 0:
        learner = load_policy(policy)
    elif update != training.progress.next_update:
        training.best.put_back(learner)
    save_model(merged(learner), policy, output, training.config.precision)


def _encode_prompts(models: Models, prompts: Sequence[Sequence[Message]], room: int) -> list[Prompt]:
    """Those short enough."""
    every = [(i, encode_prompt(models.tokenizer, prompt)) for i, prompt in enumerate(prompts)]
    encoded = [(i, ids) for i, ids in every if len(ids) <= room]
    if not encoded:
        raise ValueError(
            f"ppo: none of {len(prompts)} prompts fits {room} tokens; "
            "raise max_prompt_tokens (the context less max_tokens permitting) or give prompts"
        )
    return encoded


def _enable_gradient_checkpointing(models: Models) -> None:
    for model in (models.learner.policy, models.learner.value):
        model.gradient_checkpointing_enable({"use_reentrant": False})
