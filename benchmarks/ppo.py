"""Solon's PPO against TRL 1.12's, the last version of TRL that has one: speed, reward and KL on the micro world.

    make demo && make bench-ppo
    .venv/bin/python -m benchmarks.ppo --updates 3 --seeds 0

Three columns: TRL as it is; TRL without its calls to `gc.collect`; Solon. All learn from the same SL policy, reward
model and prompts (those of the newest finished run in the store) with the micro preset's settings, draw as many samples
and make as many optimizer steps, which are counted. They run in turn, a process each, in an order that changes from
seed to seed. Speed is of the updates after the first one. What an update cannot do without, the bare passes of the
models, is measured beside them. TRL stands in an environment of its own, see `infra/requirements/trl-ppo.in`.
"""

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.ppo_child import Job, kept_beside
from benchmarks.ppo_outcome import Outcome, outcome
from benchmarks.ppo_tables import TRAINERS, print_tables
from flows.config import load_config
from tasks.rl import training_prompts
from tasks.schema import Prompt
from tasks.store import Store
from tasks.store.identity import table_to_rows
from tasks.training.folders import kept_in
from tasks.training.launch_command import ALLOCATOR, child_environment
from tasks.training.launch_config import LaunchConfig
from tasks.training.rl_config import PPOConfig

ROOT = Path(__file__).resolve().parent.parent
TRL_PYTHON = ROOT / ".solon" / "tools" / "trl-ppo" / "bin" / "python"
KEEP_EVERY = 2
COLUMNS = {
    # column: interpreter, module
    "trl": (TRL_PYTHON, "benchmarks.trl_ppo"),
    "trl-without-collect": (TRL_PYTHON, "benchmarks.trl_ppo"),
    "solon": (Path(sys.executable), "benchmarks.solon_ppo"),
    "floor": (Path(sys.executable), "benchmarks.ppo_floor"),
}


class Start(NamedTuple):
    """Where all columns start from."""

    policy: Path
    reward: Path
    prompts: list[Prompt]
    names: str


class Run(NamedTuple):
    """One column under one seed."""

    column: str
    seed: int
    figures: dict[str, Any]
    """As `Meter.figures` has them."""
    seconds: float
    """Of the whole process."""
    outcome: Outcome | None
    """None for the floor, which trains nothing."""
    path: dict[int, Outcome]
    """Of the policies that Solon kept along the way, by the updates behind them."""


def main() -> None:
    options = parse_options()
    if not TRL_PYTHON.exists():
        raise SystemExit(f"{TRL_PYTHON} does not exist; `make bench-ppo` makes TRL's environment")
    start, config = find_start(options.store), settings(options.updates)
    print_machine(options.threads, start, config)
    import torch

    torch.set_num_threads(options.threads)
    held_out = [row for row in start.prompts if row.split == "held_out" and row.status == "ok"]
    drawn = random.Random(0).sample(held_out, min(options.measured, len(held_out)))
    measured = encoded(start.policy, drawn)

    def measure(policy: Path) -> Outcome:
        return outcome(policy, start.policy, start.reward, measured, config, seed=0)

    before = measure(start.policy)
    print_tables(run_columns(first_job(start, config), options.seeds, options.threads, measure), before, config)


def run_columns(job: Job, seeds: Sequence[int], threads: int, measure: Callable[[Path], Outcome]) -> list[Run]:
    """Every column under every seed, in an order that turns on with each seed; says what it has done."""
    runs, columns = [], [*COLUMNS]
    with tempfile.TemporaryDirectory(prefix="solon-bench-") as scratch:
        for seed in seeds:
            for column in columns:
                output = Path(scratch, f"{column}-{seed}")
                figures, seconds = run_column(job._replace(column=column, seed=seed, output=str(output)), threads)
                made = measure(output) if column in TRAINERS else None
                path = {update: measure(policy) for update, policy in kept_in(kept_beside(output)).items()}
                runs.append(Run(column, seed, figures, seconds, made, path))
                print(f"seed {seed}, {column}: {seconds:.1f} s, load {os.getloadavg()[0]:.1f}", flush=True)
            columns = [*columns[1:], columns[0]]
    return runs


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", default=".solon/store")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--updates", type=int, help="of PPO; the micro preset's if not given")
    parser.add_argument(
        "--measured", type=int, default=512, help="held-out prompts that final policies are measured on"
    )
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if options.updates is not None and options.updates < 2:
        parser.error(f"--updates is {options.updates}, expected at least 2: the first one warms up")
    return options


def settings(num_updates: int | None) -> PPOConfig:
    """The micro preset's; nothing is measured while it trains, since TRL measures nothing either.

    Solon writes some policies along its way, in the time that is measured, for a comparison at TRL's KL.
    """
    config = load_config(["micro"], None, []).rl.ppo
    quiet = {"eval_prompts": 0, "rollouts_kept": 0, "keep_every": KEEP_EVERY}
    return config.model_copy(update=quiet | ({"num_updates": num_updates} if num_updates else {}))


def find_start(store_uri: str) -> Start:
    """SL policy, reward model and prompts of the newest finished run that learnt from a reward model."""
    store = Store.open(store_uri)
    finished = [m.derivation.cites for m in store.versions("models/rl") if m.derivation.cites.keys() >= {"reward"}]
    if not finished:
        raise SystemExit(f"store {store_uri} has no finished run with a reward model; `make demo` makes one")
    cites = {role: finished[-1][role].rsplit("/", 1) for role in ("policy", "reward", "prompts")}
    policy, reward, prompts = (store.manifest(dataset, version) for dataset, version in cites.values())
    return Start(
        policy=store.fetch_model(policy.model_ref()),
        reward=store.fetch_model(reward.model_ref()),
        prompts=table_to_rows(store.read(prompts.dataset_ref()), Prompt),
        names=", ".join("/".join(cite) for cite in cites.values()),
    )


def encoded(policy: Path, prompts: list[Prompt]) -> list[list[int]]:
    from tasks.training.encode import encode_prompt, load_tokenizer

    tokenizer = load_tokenizer(policy)
    return [encode_prompt(tokenizer, row.messages) for row in prompts]


def first_job(start: Start, config: PPOConfig) -> Job:
    """What is the same in every column and seed."""
    from tasks.training.scoring import load_scale

    prompts = training_prompts(start.prompts, helpful_share=None)
    mean, std = load_scale(start.reward)
    return Job(
        column="",
        policy=str(start.policy),
        reward=str(start.reward),
        score_mean=mean,
        score_std=std,
        prompts=[[message.model_dump() for message in row.messages] for row in prompts],
        prompt_ids=encoded(start.policy, prompts),
        settings=config.model_dump(mode="json"),
        seed=0,
        output="",
    )


def run_column(job: Job, threads: int) -> tuple[dict[str, Any], float]:
    """Run a child to its end; its figures, and the seconds that it took from start to end."""
    python, module = COLUMNS[job.column]
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "job.json")
        path.write_text(json.dumps(job._asdict()), encoding="utf-8")
        started = time.monotonic()
        command = [str(python), "-m", module, str(path)]
        environment = child_environment(LaunchConfig(threads=threads))
        if python == TRL_PYTHON:  # how the allocator is set is how Solon starts trainings, not how TRL comes
            environment = {name: value for name, value in environment.items() if name not in ALLOCATOR}
        result = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
        seconds = time.monotonic() - started
    if result.returncode:
        raise SystemExit(f"{module} ({job.column}) failed with exit code {result.returncode}\n{result.stderr}")
    return json.loads(result.stdout.splitlines()[-1]), seconds


def print_machine(threads: int, start: Start, config: PPOConfig) -> None:
    """Where, from what and how."""
    cpu = next(
        (s.split(":")[1].strip() for s in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in s), ""
    )
    print(
        f"{os.cpu_count()} CPUs ({cpu}), {platform.system()} {platform.machine()}, Python {platform.python_version()}"
    )
    print(f"load {os.getloadavg()[0]:.1f} before the start, {threads} thread(s) a training")
    print(f"from {start.names}")
    print(
        f"{config.num_updates} updates of {config.batch_size} samples, mini-batches of {config.mini_batch_size}, "
        f"{config.num_epochs} epoch(s), up to {config.max_tokens} tokens, KL coefficient {config.kl_coef}, "
        f"learning rates {config.learning_rate} and {config.value_learning_rate}",
        flush=True,
    )


if __name__ == "__main__":
    main()
