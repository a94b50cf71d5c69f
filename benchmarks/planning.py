"""Planning and making an amended stage of a million rows: seconds and peak memory, each in a process of its own.

python -m benchmarks.planning --rows 1000000
"""

import argparse
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.amendments import NUM_ROUNDS, CountingGenerator, World, amendments, constitution, principle
from tasks.chunks import forecast_rows
from tasks.stage import RunContext

FIRST = constitution([principle(number) for number in range(16)])
AMENDED = amendments()["reword one"][0]
TEXT = " lorem{0} ipsum{0} dolor{0} sit{0} amet{0}" * 10
"""A critique and a revision with it make a row of about 1 kB; no two are alike, or one would repeat the other."""


class Padded(World):
    """A world of rows of about 1 kB, with a generator that goes on where another process stopped."""

    def __init__(self, folder: str, num_prompts: int) -> None:
        super().__init__(Path(folder), num_prompts, RunContext(chunk_rows=4096))
        self.generator = CountingGenerator(TEXT)


def first_run(world: Padded) -> str:
    ref = world.revise(FIRST).make(world.session)
    parts = world.store.manifest(ref.dataset, ref.version).parts
    return f"{ref.rows} rows, {sum(part.bytes for part in parts) / 2**20:.0f} MiB on disk"


def plan(world: Padded) -> str:
    forecast = forecast_rows(world.revise(AMENDED), world.store)
    return f"{forecast.to_make} of {forecast.rows} rows to make"


def amended_run(world: Padded) -> str:
    ref = world.revise(AMENDED).make(world.session)
    cost = world.store.manifest(ref.dataset, ref.version).cost
    return f"{cost['rows_made']:.0f} made, {cost['rows_kept']:.0f} kept"


def measure(work: Callable[[Padded], str], folder: str, num_prompts: int, results: Any) -> None:
    world = Padded(folder, num_prompts)
    started = time.monotonic()
    said = work(world)
    results.put((said, time.monotonic() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    num_prompts = parser.parse_args().rows // NUM_ROUNDS
    spawn = multiprocessing.get_context("spawn")
    print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; {num_prompts} prompts, {NUM_ROUNDS} rounds")
    with tempfile.TemporaryDirectory() as folder:
        for work in (first_run, plan, amended_run):
            results = spawn.Queue()
            process = spawn.Process(target=measure, args=(work, folder, num_prompts, results))
            process.start()
            said, seconds, peak = results.get()
            process.join()
            print(f"{work.__name__:<14}{seconds:>8.1f} s{peak:>8.0f} MiB peak   {said}", flush=True)


if __name__ == "__main__":
    main()
