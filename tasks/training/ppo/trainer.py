"""The loop of PPO: sample, score, estimate advantages, optimise; again (section 4.1)."""

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tasks.schema import Message
from tasks.training.checkpoints import Checkpoints
from tasks.training.encode import encode_prompt
from tasks.training.folders import longest_row, save_model
from tasks.training.ppo.checkpoint import Progress, load_checkpoint, save_checkpoint
from tasks.training.ppo.episodes import Episodes, Models, collect_episodes, load_models
from tasks.training.ppo.losses import adapt_kl_coef
from tasks.training.ppo.update import make_optimizer, optimise
from tasks.training.rl_config import PPOConfig
from tasks.training.supervision import Log, Supervision


def train_ppo(
    config: PPOConfig,
    prompts: Sequence[Sequence[Message]],
    policy: Path,
    reward: Path,
    output: Path,
    seed: int,
    watched: Supervision,
    rollouts: Path | None = None,
) -> dict[str, Any]:
    """Train `policy` against `reward` on the prompts and save it in `output`.

    Where `watched` keeps resume points, a run that finds one goes on from it to exactly the result it would have
    had. `rollouts`, if given, becomes a file of JSON lines, the kept episodes: prompt (position in `prompts`), update,
    completion, score, kl, num_tokens.

    Returns: `num_prompts`, `num_too_long` (left out), `history` (a dict of metrics an update).
    Raises: ValueError: no prompt fits, models that do not belong together, a checkpoint of another run.
    FloatingPointError: training diverged.
    """
    torch.manual_seed(seed)  # only a head that the reward folder lacks would be drawn from it
    models = load_models(policy, reward)
    if config.gradient_checkpointing:
        _enable_gradient_checkpointing(models)
    room = longest_row(policy, config.max_prompt_tokens + config.max_tokens) - config.max_tokens
    encoded = _encode_prompts(models, prompts, room)
    run = _run_name(config, seed, policy, reward, encoded)
    optimizer = make_optimizer(models.learner, config)
    points = Checkpoints(watched.checkpoints, run, watched.on_checkpoint)
    progress = load_checkpoint(points, models.learner, optimizer)
    progress = progress or Progress(kl_coef=config.kl_coef)
    while progress.next_update < config.num_updates:
        _run_update(models, optimizer, config, encoded, seed, progress, watched.log)
        if progress.next_update % config.checkpoint_every == 0:
            save_checkpoint(points, progress, models.learner, optimizer)
    save_model(models.learner.policy, policy, output, config.precision)
    if rollouts:
        lines = (json.dumps(rollout, ensure_ascii=False, sort_keys=True) + "\n" for rollout in progress.rollouts)
        rollouts.write_text("".join(lines), encoding="utf-8")
    return {
        "num_prompts": len(encoded),
        "num_too_long": len(prompts) - len(encoded),
        "history": progress.history,
    }


def draw_prompts(num_prompts: int, batch_size: int, seed: int, update: int) -> list[int]:
    """Positions of an update's prompts: pass after pass over all of them, each pass in its own order."""
    drawn: list[int] = []
    position = update * batch_size
    while len(drawn) < batch_size:
        round_, start = divmod(position + len(drawn), num_prompts)
        order = torch.randperm(num_prompts, generator=generator(seed, "prompts", round_))
        drawn += order[start : start + batch_size - len(drawn)].tolist()
    return drawn


def generator(seed: int, purpose: str, number: int) -> torch.Generator:
    """Random numbers that depend on these three alone, so that a resumed run draws the same."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{number}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def _run_update(
    models: Models,
    optimizer: torch.optim.Optimizer,
    config: PPOConfig,
    encoded: list[tuple[int, list[int]]],
    seed: int,
    progress: Progress,
    log: Log,
) -> None:
    """One round; `progress` moves on by one update."""
    update, started = progress.next_update, time.monotonic()
    drawn = [encoded[i] for i in draw_prompts(len(encoded), config.batch_size, seed, update)]
    shape = (config.batch_size, config.max_tokens)
    uniforms = torch.rand(shape, dtype=torch.float64, generator=generator(seed, "samples", update))
    episodes = collect_episodes(models, config, [ids for _, ids in drawn], uniforms, progress.kl_coef)
    collected = time.monotonic()
    losses = optimise(models, optimizer, episodes, config, generator(seed, "shuffles", update))
    metrics = {"update": update, **_summary(episodes), "kl_coef": progress.kl_coef, **losses}
    progress.history.append(metrics)
    progress.rollouts += _kept_rollouts(models, episodes, [i for i, _ in drawn], update, config.rollouts_kept)
    if config.target_kl is not None:
        progress.kl_coef = adapt_kl_coef(
            progress.kl_coef, metrics["kl"], config.target_kl, config.batch_size, config.kl_horizon
        )
    progress.next_update += 1
    now = time.monotonic()
    seconds = {"collect_seconds": collected - started, "optimise_seconds": now - collected}
    log({"step": update + 1, "num_steps": config.num_updates, **metrics, **seconds})


def _summary(episodes: Episodes) -> dict[str, float]:
    """Means over episodes; `kl` is summed over an episode's tokens, `entropy` averaged over tokens; nats."""
    lengths = episodes.mask.sum(1).float()
    return {
        "score": episodes.scores.mean().item(),
        "score_std": episodes.scores.std().item(),
        "kl": episodes.kl.sum(1).mean().item(),
        "entropy": episodes.entropy,
        "eos_share": episodes.ended.float().mean().item(),
        "num_tokens": lengths.mean().item(),
    }


def _kept_rollouts(
    models: Models, episodes: Episodes, positions: list[int], update: int, count: int
) -> list[dict[str, Any]]:
    kl = episodes.kl.sum(1).tolist()
    return [
        {
            "prompt": positions[i],
            "update": update,
            "completion": models.tokenizer.decode(episodes.completions[i], skip_special_tokens=True),
            "score": episodes.scores[i].item(),
            "kl": kl[i],
            "num_tokens": len(episodes.completions[i]),
        }
        for i in range(min(count, len(positions)))
    ]


def _encode_prompts(models: Models, prompts: Sequence[Sequence[Message]], room: int) -> list[tuple[int, list[int]]]:
    """(position, ids) of those short enough."""
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


def _run_name(config: PPOConfig, seed: int, policy: Path, reward: Path, encoded: list[tuple[int, list[int]]]) -> str:
    """Hash of what a checkpoint must agree on: config, seed, models' configs, prompts (weights are not read)."""
    parts = [config.model_dump_json(), str(seed), json.dumps(encoded)]
    parts += [(folder / "config.json").read_text(encoding="utf-8") for folder in (policy, reward)]
    return hashlib.sha256("\x1e".join(parts).encode()).hexdigest()
