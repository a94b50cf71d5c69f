"""What `test_training_ppo_evaluation` has done by two processes: `torchrun ... -m tests.ppo_leaving FOLDER`.

They train with measurements, leave after the second update because the second process is asked to, and go on. Each
leaves in `FOLDER/rank-N.json` what it logged, whether it left, and its result.
"""

import json
import sys
from pathlib import Path

from tasks.schema import Message
from tasks.training.ppo.trainer import train_ppo
from tasks.training.ranks import Ranks
from tasks.training.rl_config import PPOConfig
from tasks.training.supervision import Leaving, Supervision

CONFIG = PPOConfig(
    num_updates=4,
    batch_size=16,
    mini_batch_size=8,
    micro_batch_size=8,
    learning_rate=1e-3,
    value_learning_rate=1e-3,
    max_tokens=6,
    checkpoint_every=100,
    eval_every=2,
    eval_prompts=3,  # which two processes cannot share equally
)
PROMPTS = [[Message(role="user", content=f"{'abcdefghij'[i % 10]}{'klmn'[i // 10]} go")] for i in range(40)]


def main(folder: Path) -> None:
    rank = Ranks.join().rank
    given = CONFIG, PROMPTS, folder / "policy", folder / "likes_length", folder / "model", 0
    steps: list[int] = []
    asked: list[int] = []

    def leaving() -> bool:
        asked.append(len(asked) + 1)
        return rank == 1 and asked[-1] == 2

    def log(line: dict[str, float]) -> None:
        steps.append(int(line["step"]))

    left, judge = "", {"held_out_reward": folder / "likes_brevity"}
    try:
        train_ppo(*given, Supervision(log, folder / "points", leaving=leaving), **judge)
    except Leaving as reason:
        left = str(reason)
    result = train_ppo(*given, Supervision(log, folder / "points"), **judge)
    told = {"steps": steps, "left": left, "result": result}
    (folder / f"rank-{rank}.json").write_text(json.dumps(told), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
