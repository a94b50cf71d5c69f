"""The sums of `tasks/planning/sizing.py` beside what a CPU measures: `python -m benchmarks.sizing --check`.

Memory: SFT of two small Llamas. Time: processor seconds of a step of the smaller give the operations a second that are
achieved here, with which the larger's step is computed. Storage and stages: a small alignment of the micro model.
Processor seconds, since others may use the machine; what a process takes before its first step is not in them.
"""

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.memory import EXAMPLES, ROWS, SIZES, estimate, make_models, measure
from infra.images.try_in_chroot import SMALL
from tasks.planning.sizing import FORWARD, TRAINED
from tasks.planning.workload import Workload, asked, stored_rows, trained_tokens
from tasks.store import Manifest, Store
from tasks.training.config import SFTConfig
from tasks.training.encode import load_tokenizer
from tasks.training.preflight.rows import measure_rows
from tasks.training.preflight.shape import read_shape

ROOT = Path(__file__).resolve().parent.parent
MICRO = ROOT / "tasks" / "micro" / "model"
EPOCHS = (2, 6)
"""Of two trainings of 8 rows each: their difference is steps alone."""
DATASETS = {"respond": "completions", "revise": "revisions", "compare": "comparisons", "label": "labels"}
FLOAT32 = 4
"""Bytes a parameter that the micro preset stores."""


def check() -> None:
    print("| what | computed | measured | computed / measured |\n|---|---|---|---|")
    achieved = check_small_llamas()
    check_micro_run(achieved)


def say(what: str, computed: float, measured: float, unit: str) -> None:
    print(f"| {what} | {computed:,.2f} {unit} | {measured:,.2f} {unit} | {computed / measured:.2f} |", flush=True)


def check_small_llamas() -> float:
    """Memory and time of SFT; returns the operations a second that the smaller one achieved."""
    achieved = 0.0
    for size in SIZES:
        with tempfile.TemporaryDirectory() as scratch:
            models = make_models(Path(scratch), size)
            config = SFTConfig(micro_batch_size=ROWS, batch_size=ROWS, epochs=EPOCHS[0])
            seconds, peaks = zip(*(timed(config, epochs, models, Path(scratch)) for epochs in EPOCHS), strict=True)
            computed = estimate("sft", config, models)
            rows = measure_rows("sft", config, [EXAMPLES["sft"]], load_tokenizer(models["model"]), context=1024)
            operations = TRAINED * read_shape(models["model"], "tokens").num_parameters * ROWS * rows.longest
        step = (seconds[1] - seconds[0]) / (EPOCHS[1] - EPOCHS[0])
        say(f"memory of SFT, {size}", computed / 2**20, max(peaks) / 2**20, "MiB")
        if achieved:
            say(f"a step of SFT, {size}, by the rate of the smaller", operations / achieved, step, "s")
        achieved = achieved or operations / step
        print(f"| operations a second achieved, {size} | | {operations / step / 1e9:.1f} G | |", flush=True)
    return achieved


def timed(config: SFTConfig, epochs: int, models: dict[str, Path], scratch: Path) -> tuple[float, int]:
    """(processor seconds, peak bytes) of a training process."""
    before = spent()
    most, _ = measure("sft", config.model_copy(update={"epochs": epochs}), models, scratch)
    return spent() - before, most


def spent() -> float:
    """Processor seconds of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def check_micro_run(achieved: float) -> None:
    """A small alignment in a store of its own, that is thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        found = align(Path(folder) / "store")
    rows = {stage: found[dataset] for stage, dataset in DATASETS.items()}
    work = workload(rows)
    size = read_shape(MICRO, "tokens").num_parameters
    computed_rows = sum(number * (350 + 2.5 * tokens) for number, tokens in (stored_rows(work)[s] for s in DATASETS))
    say("rows stored by four stages", computed_rows / 1024, sum(map(stored, rows.values())) / 1024, "KiB")
    models = [found[f"models/{name}"] for name in ("sl", "reward", "rl")]
    say("three models stored", 3 * FLOAT32 * size / 2**20, sum(map(stored, models)) / 2**20, "MiB")
    for stage, manifest in rows.items():
        tokens = asked(work)[stage]
        computed = FORWARD * size * (tokens.read + tokens.written) / achieved
        say(f"{stage}, micro model", computed, manifest.cost["seconds"] - manifest.cost["seconds_starting"], "s")
    for stage, manifest in (("sft", models[0]), ("reward", models[1])):
        computed = TRAINED * size * trained_tokens(work)[stage] / achieved
        say(f"{stage}, micro model, its process and imports too", computed, manifest.cost["seconds"], "s")


def align(store: Path) -> dict[str, Manifest]:
    """The newest version of each dataset of a small run. Raises: CalledProcessError: the run failed."""
    command = [sys.executable, "-m", "flows", "align", "--preset", "micro", "--store", str(store)]
    command += [word for setting in SMALL for word in ("--set", setting)]
    env: dict[str, Any] = {**os.environ, "OMP_NUM_THREADS": "1", "PREFECT_HOME": str(store.parent / "prefect")}
    subprocess.run(command, cwd=ROOT, env=env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
    opened = Store.open(str(store))
    names = [*DATASETS.values(), "models/sl", "models/reward", "models/rl"]
    return {name: opened.versions(name)[-1] for name in names}


def workload(rows: dict[str, Manifest]) -> Workload:
    """The counts of that run, with lengths as they came out; prompts of the micro world have about 15 tokens."""
    written = rows["respond"].cost["num_tokens"] / rows["respond"].cost["rows_made"]
    counts = {"red_team_prompts": 12, "helpful_prompts": 6, "helpful_samples": 1, "rounds": 2, "human_comparisons": 12}
    lengths = {"prompt_tokens": 15, "completion_tokens": round(written), "request_tokens": 30}
    return Workload.model_validate({**counts, **lengths, "pairs": 2, "held_out_prompts": 12})


def stored(manifest: Manifest) -> int:
    return sum(part.bytes for part in manifest.parts)
