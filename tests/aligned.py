"""A small alignment run on the micro model, in process; `first_run` of conftest is one that several files look at."""

from pathlib import Path

from flows.config import AlignConfig, load_config

SMALL = [
    "run.serving.engine=transformers",
    "run.chunk_rows=8",
    "prompts.red_team_limit=12",
    "prompts.helpful_limit=6",
    "prompts.held_out_limit=12",
    "preferences.human_limit=12",
    "revise.num_rounds=2",
    "run.training.tracker=none",
    "reward.second_model_share=0",
    "rl.ppo.num_updates=2",
    "rl.ppo.batch_size=16",
    "rl.ppo.mini_batch_size=8",
    "rl.ppo.micro_batch_size=8",
    "reward.epochs=1",
    "gates.on_failure=warn",  # so few rows decide nothing
]


def small_config(folder: Path, *settings: str) -> AlignConfig:
    """The micro preset cut down to seconds, with its store below `folder`."""
    return load_config(["micro"], None, [*SMALL, f"run.store={folder / 'store'}", *settings])
