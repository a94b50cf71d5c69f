"""Each stage of an alignment fails once, in its middle, and is retried: `python -m tests.faults.each_stage`.

A real server and worker run a small alignment whose stages are runs of their own. After each failure somebody clicks
Retry on the alignment's page, in a browser. Prints a line for each stage: how many chunks (of a training: steps) a run
makes to which nothing happens, how many were made before the failure, and how many after it. These must be the rest;
of a training at most the rest, which goes on until it has left. What comes out must be the same as without failures.
Exit code 1 where it is not so.
"""

import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any
from uuid import UUID

from flows.artifacts.progress import TRAININGS
from flows.children import ended_badly, state_of
from flows.config import AlignConfig
from tasks.stage import STAGES as stage_names
from tasks.store import Store
from tests.aligned import small_config
from tests.browser.pages import Pages, browser
from tests.faults import held
from tests.faults.orchestration import stack_with_stages
from tests.prefect_stack import PrefectStack

DEPLOYMENT = "align/test"
SETTINGS = [
    "run.executor=deployments",
    "reward.second_model_share=0.3",
    "sft.training.epochs=20",  # so that there are steps left when one fails
    "reward.epochs=20",
    "rl.ppo.num_updates=6",
]
STAGES = [stage for stage in stage_names if stage != "improve"]  # which only other configs have


class Notes:
    """What the stages have noted, and the orders that they take."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def take(self) -> Counter[str]:
        """What ran since the last look, by `stage what`."""
        path = self.folder / held.RAN
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return Counter(lines)

    def told_to_fail(self) -> str:
        """The stage that failed as it was told, which is taken back."""
        (stage,) = {line.split()[0] for line in self.read() if line.endswith(" failed")}
        (self.folder / f"fail-{stage}").unlink()
        return stage

    def read(self) -> list[str]:
        return (self.folder / held.RAN).read_text().splitlines()


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="solon-each-") as name, stack_with_stages(Path(name)) as stack:
        notes = Notes(Path(stack.environment[held.ORDERS]))
        undisturbed = config(Path(name, "undisturbed"))
        run = stack.start(DEPLOYMENT, parameters(undisturbed))
        assert state_of(stack.finished(run, 3600)).is_completed(), stack.read(run).state
        expected = units(notes.take())
        with browser(f"http://127.0.0.1:{stack.port}") as pages:
            again = config(Path(name, "again"))
            before, after, starts = fail_each(stack, pages, notes, again)
        expected_content, content = contents(undisturbed), contents(again)
    print(f"{'stage':16} {'in all':>6} {'before':>6} {'after':>6} {'expected':>8} {'starts':>6}")
    wrong = [stage for stage in STAGES if not show(stage, expected, before, after, starts)]
    wrong += [f"content of {name}" for name in expected_content if content.get(name) != expected_content[name]]
    print("not as they must be: " + ", ".join(wrong) if wrong else "all as they must be")
    return bool(wrong)


def config(folder: Path) -> AlignConfig:
    return small_config(folder, *SETTINGS)


def parameters(config: AlignConfig) -> dict[str, Any]:
    return {"config": config.model_dump(mode="json", exclude_none=True)}


def fail_each(
    stack: PrefectStack, pages: Pages, notes: Notes, config: AlignConfig
) -> tuple[Counter[str], Counter[str], dict[str, int]]:
    """Units made before and after each stage's failure, and how often each stage's run was started."""
    for stage in STAGES:
        (notes.folder / f"fail-{stage}").touch()
    before, after = Counter[str](), Counter[str]()
    run: UUID = stack.start(DEPLOYMENT, parameters(config))
    while ended_badly(stack.finished(run, 900)):
        stage = notes.told_to_fail()
        print(f"{stage} failed: {state_of(stack.read(run)).message}", flush=True)
        made = units(notes.take())
        before[stage] = made.pop(stage, 0)  # the others have failed earlier
        after += made
        pages.open_run(str(run)).retry()
    return before, after + units(notes.take()), {name: child.run_count for name, child in stack.children(run).items()}


def units(noted: Counter[str]) -> Counter[str]:
    """Chunks and steps by stage."""
    made = Counter[str]()
    for line, count in noted.items():
        stage, what, *_ = line.split()
        if what != "failed":
            made[stage] += count
    return made


def show(stage: str, expected: Counter[str], before: Counter[str], after: Counter[str], starts: dict[str, int]) -> bool:
    """Print a stage's line; whether only what was missing was made."""
    rest = expected[stage] - before[stage]
    print(
        f"{stage:16} {expected[stage]:6} {before[stage]:6} {after[stage]:6} {rest:8} {starts.get(stage, 0):6}",
        flush=True,
    )
    is_rest = after[stage] <= rest if stage in TRAININGS else after[stage] == rest
    if stage == "judge":  # the micro world's rules judge in no time, so nothing of it is kept
        is_rest = after[stage] == expected[stage]
    return is_rest and (stage in held.CHEAP or before[stage] > 0)


def contents(config: AlignConfig) -> dict[str, list[tuple[str, str]]]:
    """Versions and content of every dataset and model; the report tells how long things took."""
    store = Store.open(config.run.store)
    names = [name for name in store.datasets() if name != "report"]
    return {name: sorted((m.version, m.content_hash) for m in store.versions(name)) for name in names}


if __name__ == "__main__":
    sys.exit(main())
