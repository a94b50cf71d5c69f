"""One process of trainings of several, for tests: `torchrun ... tests/training_process.py job.json ...`.

A job names the trainer, its config, examples, folders and seed; each process writes result and log lines.
"""

import json
import sys
from pathlib import Path

from tasks.training.config import RewardConfig, SFTConfig
from tasks.training.examples import PreferenceExample, SFTExample
from tasks.training.ranks import Ranks
from tasks.training.reward import train_reward
from tasks.training.sft import train_sft
from tasks.training.supervision import Leaving, Supervision

KINDS = {"sft": (train_sft, SFTConfig, SFTExample), "reward": (train_reward, RewardConfig, PreferenceExample)}


def main(job_path: str) -> None:
    job = json.loads(Path(job_path).read_text())
    ranks, lines, steps = Ranks.join(), list[dict](), list[int]()

    def leaving() -> bool:
        """Only the last process is asked to leave, after `leave_after` steps."""
        steps.append(1)
        return ranks.rank == ranks.size - 1 and len(steps) == job.get("leave_after")

    train, config, example = KINDS[job["kind"]]
    points = Path(job["points"]) if job["points"] else None
    watched = Supervision(lines.append, points, leaving=leaving)
    rows = [example(**row) for row in job["examples"]]
    try:
        result = train(config(**job["config"]), rows, Path(job["model"]), Path(job["output"]), job["seed"], watched)
    except Leaving as left:
        result = {"left": str(left)}
    told = {"result": result, "lines": lines}
    Path(job["told"]).with_suffix(f".{ranks.rank}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    for path in sys.argv[1:]:
        main(path)
