"""What the children of `benchmarks.ppo` share: the job, a meter that measures all of them alike, the result.

Runs in Solon's environment and in TRL's: it needs torch and the standard library, nothing of Solon's.
"""

import gc
import importlib.metadata
import json
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

PACKAGES = ("torch", "transformers", "accelerate", "trl")
UPDATE_OVER = "an update is over\n"
"""The line after which a child waits until it is told to go on."""


class Job(NamedTuple):
    """One training: the same for every column of a seed but for `column` and `output`."""

    column: str
    policy: str
    """Folder of the SL policy."""
    reward: str
    """Folder of the reward model."""
    score_mean: float
    score_std: float
    """By which raw scores are standardised."""
    prompts: list[list[dict[str, str]]]
    """Conversations, for Solon."""
    prompt_ids: list[list[int]]
    """The same as token ids, for TRL."""
    settings: dict[str, Any]
    """Of `tasks.training.rl_config.PPOConfig`."""
    seed: int
    output: str
    """Folder for the final policy."""


def kept_beside(output: str | Path) -> Path:
    """The folder for the policies that a training keeps along its way."""
    return Path(f"{output}-kept")


class Meter:
    """Where an update's CPU time goes. The first update warms up: of it only the optimizer steps count.

    After each update it waits for its next turn: for a line on standard input, or for its end.

    Sections exclude each other: what is collected as garbage while sampling is `gc`, not `sample`. They are in CPU
    seconds, which other work on the machine disturbs less than wall seconds.
    """

    def __init__(self) -> None:
        from torch.optim.optimizer import register_optimizer_step_post_hook

        self.sections: dict[str, float] = defaultdict(float)
        self.optimizer_steps = 0
        self._updates: list[tuple[float, float]] = []  # wall and CPU seconds of each
        self._turn = time.perf_counter(), time.process_time()
        self._stack, self._since = ["rest"], time.process_time()
        gc.callbacks.append(self._on_collection)
        register_optimizer_step_post_hook(self._on_step)

    def become(self, section: str) -> None:
        """From here on time goes to this section."""
        self._book()
        self._stack[-1] = section

    @contextmanager
    def within(self, section: str) -> Iterator[None]:
        """Time inside goes to this section, afterwards to the one before."""
        self._book()
        self._stack.append(section)
        try:
            yield
        finally:
            self._book()
            self._stack.pop()

    def timed(self, section: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, its time booked under `section`."""

        def call(*args: Any, **kwargs: Any) -> Any:
            with self.within(section):
                return function(*args, **kwargs)

        return call

    def end_update(self) -> None:
        """An update is over: wait for the next turn."""
        self.become("rest")
        if not self._updates:
            self.sections.clear()
        wall, cpu = self._turn
        self._updates.append((time.perf_counter() - wall, time.process_time() - cpu))
        print(UPDATE_OVER, end="", flush=True)
        sys.stdin.readline()
        self._turn = time.perf_counter(), time.process_time()

    def figures(self) -> dict[str, Any]:
        """What was measured: seconds of the updates after the first one, all optimizer steps, the largest memory."""
        return {
            "num_updates": len(self._updates),
            "loop_seconds": sum(wall for wall, _ in self._updates[1:]),
            "loop_cpu_seconds": sum(cpu for _, cpu in self._updates[1:]),
            "sections": dict(self.sections),
            "optimizer_steps": self.optimizer_steps,
            "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "versions": versions(),
        }

    def _book(self) -> None:
        now = time.process_time()
        self.sections[self._stack[-1]] += now - self._since
        self._since = now

    def _on_collection(self, phase: str, info: dict[str, int]) -> None:
        self._book()
        if phase == "start":
            self._stack.append("gc")
        elif self._stack[-1] == "gc":  # a collection that had begun before the meter is not ours to end
            self._stack.pop()

    def _on_step(self, *_: Any) -> None:
        self.optimizer_steps += 1


def versions() -> dict[str, str]:
    """Of this environment."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def run_child(train: Callable[[Job, Meter], None]) -> None:
    """Train what the job file on the command line says; the last line printed is the figures as JSON."""
    job = Job(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    meter = Meter()
    train(job, meter)
    print(json.dumps(meter.figures()), flush=True)
