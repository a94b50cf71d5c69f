"""A small SFT job, for tests of how trainings are started and watched."""

from pathlib import Path

from tasks.schema import Message
from tasks.training.config import SFTConfig
from tasks.training.examples import SFTExample, write_examples
from tasks.training.job import TrainingJob
from tasks.training.launch_config import LaunchConfig

CONFIG = SFTConfig(epochs=2, learning_rate=1e-2, batch_size=8, micro_batch_size=4, max_tokens=64, checkpoint_every=2)
EXAMPLES = [SFTExample(prompt=[Message(role="user", content=f"line\nbreak {i} €")], completion="né") for i in range(16)]
ALONE = LaunchConfig(tracker="none", grace_seconds=30)
PAIR = LaunchConfig(tracker="none", grace_seconds=30, num_processes=2)


def sft_job(folder: Path, base: Path, **changes: object) -> TrainingJob:
    fields: dict[str, object] = {
        "kind": "sft",
        "config": CONFIG.model_dump(),
        "examples": write_examples(folder / "examples.jsonl", EXAMPLES),
        "model": base,
        "output": folder / "model",
        "seed": 0,
    }
    return TrainingJob.model_validate(fields | changes)
