"""Solon's PPO as the other child of `benchmarks.ppo`: `train_ppo` as the stage calls it, with a meter at its parts."""

import inspect
from pathlib import Path
from typing import Any

from benchmarks.ppo_child import Job, Meter, kept_beside, run_child
from tasks.schema import Message


def train(job: Job, meter: Meter) -> None:
    from tasks.training.ppo import loop, trainer
    from tasks.training.rl_config import PPOConfig
    from tasks.training.supervision import Supervision

    attach(loop, meter)
    trainer.train_ppo(
        PPOConfig(**job.settings),
        [[Message(**message) for message in prompt] for prompt in job.prompts],
        Path(job.policy),
        Path(job.reward),
        Path(job.output),
        job.seed,
        Supervision(log=lambda line: meter.end_update()),
        kept=kept_beside(job.output),
    )


def attach(loop: Any, meter: Meter) -> None:
    """Book the two halves of an update, and within the first the sampling."""
    collect = loop.collect_episodes
    signature = inspect.signature(collect)

    def collect_episodes(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs)
        given.apply_defaults()
        given.arguments["sample"] = meter.timed("sample", given.arguments["sample"])
        with meter.within("measure"):
            return collect(*given.args, **given.kwargs)

    loop.collect_episodes = collect_episodes
    loop.optimise = meter.timed("optimise", loop.optimise)


if __name__ == "__main__":
    run_child(train)
