"""The loop of PPO: sample, score, estimate advantages, optimise; now and then measure and write a resume point."""

import hashlib
import time
from dataclasses import dataclass
from typing import Any

import torch

from tasks.training.checkpoints import Checkpoints
from tasks.training.kept import KeptPolicies
from tasks.training.ppo.best import BestPolicy
from tasks.training.ppo.checkpoint import Progress, save_checkpoint
from tasks.training.ppo.episodes import Episodes, Models, collect_episodes
from tasks.training.ppo.evaluation import HeldOutReward, Prompt, check_finite, evaluate
from tasks.training.ppo.losses import adapt_kl_coef
from tasks.training.ppo.rollout import Sampler
from tasks.training.ppo.rules import Stop, best_evaluation, check_rules
from tasks.training.ppo.update import optimise
from tasks.training.ranks import Ranks
from tasks.training.rl_config import PPOConfig
from tasks.training.supervision import Leaving, Supervision


@dataclass(frozen=True)
class Training:
    """One training: what stays over its updates, and where it stands in `progress`, `best`, models and optimizer."""

    config: PPOConfig
    seed: int
    ranks: Ranks
    models: Models
    optimizer: torch.optim.Optimizer
    trained_on: list[Prompt]
    measured_on: list[Prompt]
    """Prompts set aside; if there are none, nothing is measured."""
    held_out_reward: HeldOutReward | None
    points: Checkpoints
    watched: Supervision
    progress: Progress
    best: BestPolicy
    kept: KeptPolicies | None = None
    """Where policies along the way go; None keeps none."""


def run_updates(training: Training, sample: Sampler) -> Stop | None:
    """Update until all updates are done or a rule is broken; returns the rule, if one was.

    Raises: FloatingPointError: training diverged. Leaving: asked to; the resume point is written.
    """
    config, progress = training.config, training.progress
    if training.measured_on and not progress.evaluations:
        _log(training, _measure(training, sample))
    while (stop := check_rules(config.rules, progress.history, progress.evaluations)) is None:
        if progress.next_update == config.num_updates:
            break
        line = _update(training, sample)
        if training.measured_on and _is_due(config, progress.next_update):
            line |= _measure(training, sample)
        _log(training, line)
        _keep_policy(training)  # first: who goes on from the resume point of this update finds its policy kept
        _keep_or_leave(training)
    return stop


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


def _update(training: Training, sample: Sampler) -> dict[str, Any]:
    """One update, and its log line; `progress` moves on by one."""
    config, models, progress, seed = training.config, training.models, training.progress, training.seed
    update, started = progress.next_update, time.monotonic()
    drawn = [training.trained_on[i] for i in draw_prompts(len(training.trained_on), config.batch_size, seed, update)]
    uniforms = _uniforms(config.batch_size, config.max_tokens, generator(seed, "samples", update))
    prompts = [ids for _, ids in drawn]
    episodes = collect_episodes(models, config, prompts, uniforms, progress.kl_coef, training.ranks, sample)
    check_finite(episodes)
    collected = time.monotonic()
    shuffle = generator(seed, "shuffles", update)
    losses = optimise(models, training.optimizer, episodes, config, shuffle, training.ranks)
    metrics = {"update": update, **_summary(episodes), "kl_coef": progress.kl_coef, **losses}
    progress.history.append(metrics)
    progress.rollouts += _kept_rollouts(models, episodes, [i for i, _ in drawn], update, config.rollouts_kept)
    if config.target_kl is not None:
        progress.kl_coef = adapt_kl_coef(
            progress.kl_coef, metrics["kl"], config.target_kl, config.batch_size, config.kl_horizon
        )
    progress.next_update += 1
    seconds = {"collect_seconds": collected - started, "optimise_seconds": time.monotonic() - collected}
    return {**metrics, **seconds}


def _is_due(config: PPOConfig, update: int) -> bool:
    return update % config.eval_every == 0 or update == config.num_updates


def _measure(training: Training, sample: Sampler) -> dict[str, float]:
    """Measure the policy as it is, keep it if it is the best so far, and return what a log line says of it."""
    config, progress, started = training.config, training.progress, time.monotonic()
    # common random numbers: what differs between two measurements is the policy alone
    uniforms = _uniforms(len(training.measured_on), config.max_tokens, generator(training.seed, "evaluation", 0))
    figures = evaluate(
        training.models, config, training.measured_on, uniforms, training.held_out_reward, training.ranks, sample
    )
    evaluation = {"update": progress.next_update, **figures}
    progress.evaluations.append(evaluation)
    is_better = best_evaluation(config.rules, progress.evaluations) is evaluation and progress.next_update > 0
    if is_better and training.ranks.is_first:
        training.best.take(training.models.learner.policy, progress.next_update)
    shown = {f"eval_{name}": value for name, value in figures.items() if value is not None}
    return {**shown, "evaluate_seconds": time.monotonic() - started}


def _uniforms(rows: int, max_tokens: int, drawn_by: torch.Generator) -> torch.Tensor:
    return torch.rand((rows, max_tokens), dtype=torch.float64, generator=drawn_by)


def _log(training: Training, line: dict[str, Any]) -> None:
    if training.ranks.is_first:
        steps = {"step": training.progress.next_update, "num_steps": training.config.num_updates}
        training.watched.log({**steps, **line})


def _keep_policy(training: Training) -> None:
    """Write the policy out as a model where that is due."""
    update, kept = training.progress.next_update, training.kept
    if kept is None or not kept.is_due(update):
        return
    if training.ranks.is_first:
        policy = training.models.learner.policy
        training.watched.on_policy(kept.write(policy, update, policy.config.use_cache), update)
    training.ranks.wait()


def _keep_or_leave(training: Training) -> None:
    """Write a resume point where one is due, or where the training is asked to leave."""
    update, config = training.progress.next_update, training.config
    leaving = training.ranks.any(training.watched.leaving())
    if leaving or update % config.checkpoint_every == 0:
        if training.ranks.is_first:
            _write_resume_point(training)
        training.ranks.wait()  # a process that ends early would take the one that writes with it
    if leaving:
        raise Leaving(f"ppo: asked to leave, left after update {update} of {config.num_updates}")


def _write_resume_point(training: Training) -> None:
    earlier = training.points.newest()
    save_checkpoint(
        training.points,
        training.progress,
        training.models.learner,
        training.optimizer,
        also=lambda folder: training.best.write(folder, earlier),
    )


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
