"""What an amendment costs in generator calls, and whether the plan said so beforehand.

A fake generator whose texts never repeat stands for the models, so that nothing matches by accident; store, stages,
draws and plan are the real ones.

    python -m benchmarks.amendments --prompts 10000
"""

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from constitutions import Constitution, draw
from tasks.chunks import forecast_rows
from tasks.constitution import ConstitutionStage
from tasks.generation import GeneratingStage
from tasks.label import LabelConfig, LabelStage
from tasks.respond import RespondConfig, RespondStage
from tasks.revise import ReviseConfig, ReviseStage
from tasks.schema import Comparison, DatasetRef, Message, ModelRef, Prompt
from tasks.serving import Choice, Generation
from tasks.stage import RunContext, Session
from tasks.store import Derivation, Store
from tasks.store.identity import digest, rows_to_table

MODEL = ModelRef(model="external", version="f" * 32, content_hash="f" * 64, source="fake")
NUM_ROUNDS = 4


class Killed(BaseException):
    """The process died."""


class CountingGenerator:
    """Writes `text 0`, `text 1`, ... and a tail, the number for its `{0}`; counts its calls, and may die at one."""

    def __init__(self, tail: str = "") -> None:
        self.tail = tail
        self.numbers = itertools.count()
        self.num_calls = 0
        self.dies_at: int | None = None

    def generate(self, requests: list[Any], sampling: Any) -> list[Generation]:
        numbers = [next(self.numbers) for _ in self._counted(requests)]
        return [Generation(f"text {number}{self.tail.format(number)}", "stop", 8, 8) for number in numbers]

    def choose(self, requests: list[Any], answers: Any) -> list[Choice]:
        return [Choice((-0.5, -1.0)) for _ in self._counted(requests)]

    def _counted(self, requests: list[Any]) -> list[Any]:
        self.num_calls += len(requests)
        if self.dies_at is not None and self.num_calls > self.dies_at:
            raise Killed
        return requests


class WithoutWeights(Store):
    """A store that has any outside model."""

    def fetch_model(self, ref: ModelRef) -> Path:
        return Path("unused")


class Outcome(NamedTuple):
    """What making a stage took."""

    rows: int
    forecast: int
    made: int
    calls: int
    seconds: float


class World:
    """Prompts, completions and comparisons in a store, and the stages on them."""

    def __init__(self, folder: Path, num_prompts: int, run: RunContext | None = None) -> None:
        self.store = WithoutWeights(Store.open(str(folder)).backend, folder / "cache")
        self.generator = CountingGenerator()
        self.session = Session(self.store, open_generator=self.opened)
        self.run = run or RunContext()
        self.prompt_ids = [prompt_id_of(i) for i in range(num_prompts)]
        self.prompts = self.given("prompts", map(prompt, range(num_prompts)), Prompt, num_prompts)
        self.comparisons = self.given("comparisons", map(comparison, self.prompt_ids), Comparison, num_prompts)
        respond = RespondStage(run=self.run, prompts=self.prompts, helpful_only=MODEL, config=RespondConfig())
        self.completions = respond.make(self.session)

    @contextmanager
    def opened(self, *_: object) -> Iterator[CountingGenerator]:
        yield self.generator

    def given(self, dataset: str, rows: Iterator[Any], row_type: Any, num_rows: int) -> DatasetRef:
        derivation = Derivation(
            stage="given", dataset=dataset, code_version=1, config={"rows": num_rows}, inputs={},
            constitution=None, models={}, seed=0, force=None,
        )  # fmt: skip
        with self.store.writer(derivation) as writer:
            while batch := list(itertools.islice(rows, 4096)):
                writer.append(rows_to_table(batch, row_type))
            return writer.commit(metrics={}, cost={})

    def revise(
        self, constitution: Constitution, stage_type: type[ReviseStage] = ReviseStage, **run: Any
    ) -> ReviseStage:
        return stage_type(
            run=self.run.model_copy(update=run),
            prompts=self.prompts,
            completions=self.completions,
            constitution=self.keep(constitution),
            helpful_only=MODEL,
            config=ReviseConfig(num_rounds=NUM_ROUNDS),
        )

    def label(self, constitution: Constitution) -> LabelStage:
        return LabelStage(
            run=self.run,
            prompts=self.prompts,
            comparisons=self.comparisons,
            constitution=self.keep(constitution),
            feedback=MODEL,
            evaluator="feedback",
            config=LabelConfig(),
        )

    def keep(self, constitution: Constitution) -> DatasetRef:
        stage = ConstitutionStage(run=self.run, document=constitution.model_dump(mode="json"))
        ref = stage.result(self.store) or stage.make(self.session)
        assert isinstance(ref, DatasetRef)
        return ref

    def make(self, stage: GeneratingStage) -> Outcome:
        """Forecast the stage, make it unless it is there, and count."""
        found = stage.result(self.store)
        forecast = 0 if found else forecast_rows(stage, self.store).to_make
        before, started = self.generator.num_calls, time.monotonic()
        ref = found or stage.make(self.session)
        assert isinstance(ref, DatasetRef)
        made = 0 if found else int(self.store.manifest(ref.dataset, ref.version).cost["rows_made"])
        return Outcome(ref.rows, forecast, made, self.generator.num_calls - before, time.monotonic() - started)


def prompt_id_of(number: int) -> str:
    return digest(number)[:20]


def prompt(number: int) -> Prompt:
    prompt_id = prompt_id_of(number)
    messages = [Message(role="user", content=f"Question {number}?")]
    names = {"row_id": f"train/{prompt_id}", "reuse_key": prompt_id, "prompt_id": prompt_id}
    return Prompt(**names, kind="red_team", split="train", source=f"{number}", messages=messages)


def comparison(prompt_id: str) -> Comparison:
    names = {"row_id": f"{prompt_id}/0", "reuse_key": prompt_id, "prompt_id": prompt_id}
    return Comparison(**names, completion_a=f"a {prompt_id}", completion_b="b", num_tokens=2)


def principle(number: int, wording: str = "") -> dict[str, Any]:
    texts = {"critique_request": f"Criticise {number}{wording}.", "revision_request": f"Revise {number}."}
    return {"id": f"p-{number:02d}", "cluster": "one", **texts, "comparison_question": f"Which is better by {number}?"}


def constitution(principles: list[dict[str, Any]]) -> Constitution:
    return Constitution.model_validate({"id": "amended", "principles": principles})


def moved_draws(world: World, old: Constitution, new: Constitution) -> float:
    """Share of the draws that go to another principle."""
    keys = [(prompt_id, number) for prompt_id in world.prompt_ids for number in range(NUM_ROUNDS)]
    before, after = old.revision_principles(), new.revision_principles()
    seed = world.run.seed
    return sum(draw(before, seed, "revise", *k).id != draw(after, seed, "revise", *k).id for k in keys) / len(keys)


def touched_chain_rows(world: World, old: Constitution, new: Constitution) -> int:
    """By definition: in every chain, the rounds from the first on whose principle or its text is another."""
    before, after, seed, total = old.revision_principles(), new.revision_principles(), world.run.seed, 0
    for prompt_id in world.prompt_ids:
        pairs = (
            (draw(before, seed, "revise", prompt_id, k), draw(after, seed, "revise", prompt_id, k))
            for k in range(NUM_ROUNDS)
        )
        first = next((k for k, (a, b) in enumerate(pairs) if a.revision_hash != b.revision_hash), NUM_ROUNDS)
        total += NUM_ROUNDS - first
    return total


def amendments() -> dict[str, tuple[Constitution, bool]]:
    """Each amended constitution, and whether it changes anything that a row depends on."""
    first = [principle(i) for i in range(16)]
    return {
        "reword one": (constitution([principle(3, " kindly"), *first[:3], *first[4:]]), True),
        "add one": (constitution([*first, principle(16)]), True),
        "remove one": (constitution(first[:7] + first[8:]), True),
        "reorder the file": (constitution(first[::-1]), False),
        "rename a cluster": (constitution([p | {"cluster": "two"} for p in first]), False),
        "edit a note": (constitution([p | {"source": "a note"} for p in first]), False),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=10_000)
    count = parser.parse_args().prompts
    with tempfile.TemporaryDirectory() as folder:
        amend_each(World(Path(folder) / "amend", count))
        go_back_and_forth(World(Path(folder) / "back", count))
        kill_and_amend(World(Path(folder) / "kill", count, RunContext(chunk_rows=max(count // 10, 1))))


HEADER = ("what was done", "rows", "forecast", "made", "by definition", "calls", "draws moved", "seconds")


def show(*cells: Any) -> None:
    print(f"{cells[0]:<44}" + "".join(f"{cell!s:>14}" for cell in cells[1:]), flush=True)


def amend_each(world: World) -> None:
    """Acceptance 1: each amendment on its own store state, from the same first constitution."""
    first = constitution([principle(i) for i in range(16)])
    show(*HEADER)
    base = world.make(world.revise(first))
    show("revise: first run", base.rows, base.forecast, base.made, base.rows, base.calls, "", f"{base.seconds:.1f}")
    for name, (amended, _) in amendments().items():
        expected, moved = touched_chain_rows(world, first, amended), moved_draws(world, first, amended)
        out = world.make(world.revise(amended))
        show(
            f"revise: {name}",
            out.rows,
            out.forecast,
            out.made,
            expected,
            out.calls,
            f"{moved:.4f}",
            f"{out.seconds:.1f}",
        )
    out = world.make(world.label(first))
    show("label: first run", out.rows, out.forecast, out.made, out.rows, out.calls, "", f"{out.seconds:.1f}")
    reworded = [principle(i) for i in range(16)]
    reworded[5] |= {"comparison_question": "Which is kinder?"}
    drawn = sum(draw(first.comparison_principles(), 0, "label", f"{i}/0").id == "p-05" for i in world.prompt_ids)
    out = world.make(world.label(constitution(reworded)))
    show(
        "label: reword one question", out.rows, out.forecast, out.made, 2 * drawn, out.calls, "0", f"{out.seconds:.1f}"
    )


def go_back_and_forth(world: World) -> None:
    """Acceptance 2: A to B to A, a raised code_version, and force."""

    class Raised(ReviseStage):
        code_version = ReviseStage.code_version + 1

    first = constitution([principle(i) for i in range(16)])
    second = amendments()["reword one"][0]
    steps: dict[str, Callable[[], ReviseStage]] = {
        "A": lambda: world.revise(first),
        "A to B": lambda: world.revise(second),
        "A to B to A": lambda: world.revise(first),
        "code_version raised": lambda: world.revise(first, Raised),
        "force": lambda: world.revise(first, force=("revise",)),
        "A once more": lambda: world.revise(first),
    }
    for name, stage in steps.items():
        out = world.make(stage())
        show(f"revise: {name}", out.rows, out.forecast, out.made, "", out.calls, "", f"{out.seconds:.1f}")


def kill_and_amend(world: World) -> None:
    """Acceptance 2: killed after half of its chunks, then amended: what the chunks hold is not made again."""
    first = constitution([principle(i) for i in range(16)])
    amended = amendments()["reword one"][0]
    whole = 2 * NUM_ROUNDS * len(world.prompt_ids)
    world.generator.dies_at = world.generator.num_calls + whole // 2
    try:
        world.make(world.revise(first))
    except Killed:
        before, world.generator.dies_at = world.generator.num_calls, None
    out = world.make(world.revise(amended))
    show(
        "revise: killed half-way, then amended",
        out.rows,
        out.forecast,
        out.made,
        "",
        world.generator.num_calls - before,
        "",
        f"{out.seconds:.1f}",
    )
    manifest = world.store.versions("revisions")[-1]
    print(f"  rows taken from chunks that were never committed: {manifest.sources}")


if __name__ == "__main__":
    main()
