"""What an amendment costs on the micro world, beside the first run: rows kept and made a stage, and wall time.

Three amendments, each on its own copy of the first run's store: a reworded comparison question; a reworded critique
request; the same while the SL policy is kept.

    python -m benchmarks.reruns [--seed 0] [--set run.serving.engine=transformers]
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from flows.server import apply_settings

apply_settings()  # before anything imports Prefect

from flows.align import align  # noqa: E402
from flows.config import AlignConfig, load_config  # noqa: E402
from flows.plan import make_plan, summary  # noqa: E402
from flows.runner import AlignResult  # noqa: E402
from flows.server import prefect_server  # noqa: E402
from tasks.store import Store  # noqa: E402

Edit = Callable[[list[dict[str, Any]]], None]


def reword_question(principles: list[dict[str, Any]]) -> None:
    principles[0]["comparison_question"] += " Consider each of them with care."


def reword_critique(principles: list[dict[str, Any]]) -> None:
    """As another principle of the file says it: of other words the micro model knows nothing, and confuses them."""
    first, second = [principle for principle in principles if principle.get("critique_request")][:2]
    first["critique_request"] = second["critique_request"]


AMENDMENTS: dict[str, tuple[Edit, float]] = {
    "comparison question reworded": (reword_question, 0.0),
    "critique reworded, policy trained anew": (reword_critique, 0.0),
    "critique reworded, policy kept": (reword_critique, 1.0),
}
"""What is edited, and the largest share of touched revisions at which the SL policy is kept."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], dest="settings")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, prefect_server():
        folder = Path(scratch)
        settings = [*options.settings, f"run.seed={options.seed}", f"run.store={folder / 'first'}"]
        config = load_config(["micro"], None, settings)
        first = timed("first run", config, whole=None)
        for number, (name, (edit, keep)) in enumerate(AMENDMENTS.items()):
            store = folder / f"amended-{number}"
            shutil.copytree(folder / "first", store)
            timed(name, amended(config, store, edit, keep), whole=first)


def amended(config: AlignConfig, store: Path, edit: Edit, keep: float) -> AlignConfig:
    document = yaml.safe_load(Path(config.constitution).read_text())
    edit(document["principles"])
    path = store.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(document))
    return config.model_copy(
        update={
            "constitution": str(path),
            "keep": config.keep.model_copy(update={"max_touched_fraction": keep}),
            "run": config.run.model_copy(update={"store": str(store)}),
        }
    )


def timed(name: str, config: AlignConfig, whole: float | None) -> float:
    """Plan, run and print; the wall seconds of the run."""
    print(f"\n== {name}\nplan: {summary(make_plan(config))}")
    started = time.monotonic()
    result = align(config)
    seconds = time.monotonic() - started
    show(Store.open(config.run.store), result)
    beside = f", {seconds / whole:.2f} of the first run" if whole else ""
    print(f"wall time {seconds:.1f} s{beside}", flush=True)
    return seconds


def show(store: Store, result: AlignResult) -> None:
    print(f"{'stage':<14}{'rows':>8}{'kept':>8}{'made':>8}{'seconds':>10}")
    for stage in result.stages:
        cost = store.manifest(stage.dataset, stage.version).cost
        made = 0 if stage.reused else int(cost.get("rows_made", 0))
        kept = stage.rows - made if "rows_made" in cost else ""
        seconds = "fresh" if stage.reused else f"{stage.seconds:.1f}"
        print(f"{stage.stage:<14}{stage.rows or '':>8}{kept:>8}{made if 'rows_made' in cost else '':>8}{seconds:>10}")


if __name__ == "__main__":
    main()
