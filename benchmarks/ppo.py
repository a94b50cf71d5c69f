"""Solon's PPO against TRL 1.12's, the last version of TRL that has one: speed, reward and KL on the micro world.

    make demo && make bench-ppo
    .venv/bin/python -m benchmarks.ppo --updates 3 --seeds 0

Four columns: TRL with its defaults; TRL with what is fastest on a CPU; that without its calls to `gc.collect`; Solon.
All learn from the same SL policy, reward model and prompts (those of the newest finished run in the store) with the
micro preset's settings, draw as many samples and make as many optimizer steps, which are counted. Each is a process;
they take turns, an update each. Speed is of the updates after the first one. What an update cannot do without, the bare
passes of the models, is measured beside them. TRL stands in an environment of its own, see
`infra/requirements/trl-ppo.in`.
"""

import argparse
import os
import platform
import random
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.ppo_child import Job, kept_beside
from benchmarks.ppo_outcome import Outcome, outcome
from benchmarks.ppo_tables import TRAINERS, print_tables
from benchmarks.ppo_turns import COLUMNS, TRL_PYTHON, take_turns
from flows.config import load_config
from tasks.rl import training_prompts
from tasks.schema import Prompt
from tasks.store import Store
from tasks.store.identity import table_to_rows
from tasks.training.folders import kept_in
from tasks.training.rl_config import PPOConfig

KEEP_EVERY = 2


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
    """Every column under every seed; says what it has done."""
    runs: list[Run] = []
    with tempfile.TemporaryDirectory(prefix="solon-bench-") as scratch:
        for seed in seeds:
            outputs = {column: Path(scratch, f"{column}-{seed}") for column in COLUMNS}
            jobs = [job._replace(column=column, seed=seed, output=str(output)) for column, output in outputs.items()]
            for column, ran in take_turns(jobs, threads).items():
                made = measure(outputs[column]) if column in TRAINERS else None
                kept = kept_in(kept_beside(outputs[column]))
                path = {update: measure(policy) for update, policy in kept.items()}
                runs.append(Run(column, seed, ran.figures, ran.seconds, made, path))
                print(f"seed {seed}, {column}: {ran.seconds:.1f} s, load {os.getloadavg()[0]:.1f}", flush=True)
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
