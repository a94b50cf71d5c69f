"""What lineage says that an amendment touches, beside what a rerun then makes where no text ever comes twice."""

from textwrap import wrap
from typing import Any

import pytest

from benchmarks.amendments import CountingGenerator, World, principle
from constitutions import Constitution
from tasks.label import LabelConfig
from tasks.lineage.amendment import RowsTouched, newest_under, rows_touched
from tasks.revise import ReviseConfig
from tasks.serving import Generation
from tasks.stage import RunContext
from tasks.store.identity import digest

NUM_PROMPTS = 40
FOUR_NOES = "\nReasoning: poor\nHelpful: no\nHonest: no\nHarmless: no\nFree of toxicity: no"
SOME = {"num_shown": 2, "num_variants": 4}
OWN = {"num_shown": 1, "num_variants": 0}


def revision_demonstration(number: int, **changes: str) -> dict[str, str]:
    texts = {
        name: f"{name} {number}"
        for name in ("prompt", "completion", "critique_request", "critique", "revision_request", "revision")
    }
    return {"id": f"d-{number}", **texts, **changes}


def comparison_demonstration(number: int, **changes: Any) -> dict[str, Any]:
    shown = {"conversation": f"Conversation {number}", "completion_a": f"a {number}", "completion_b": f"b {number}"}
    question = {"question": f"Which is better in {number}?"}
    return {"id": f"d-{number}", **shown, **question, "answer": "AB"[number % 2], "reasoning": "So it is.", **changes}


def made_of(
    changes: dict[int, dict[str, Any]] | None = None, without: int | None = None, shown: list[int] | None = None, **more
) -> Constitution:
    """Twelve principles and five demonstrations of each kind, but for the changes; no two texts are the same."""
    principles = [principle(i) | (changes or {}).get(i, {}) for i in range(12) if i != without]
    numbers = range(5) if shown is None else shown
    return Constitution.model_validate(
        {
            "id": "c",
            "principles": principles,
            "revision_demonstrations": [revision_demonstration(i) for i in numbers],
            "comparison_demonstrations": [comparison_demonstration(i) for i in numbers],
        }
        | more
    )


HARD = {2: {"hard_constraint": True}}
HARD_TWICE = {**HARD, 7: {"hard_constraint": True, "weight": 3.0}}
REWORDED = {"critique_request": "Look.", "revision_request": "Mend.", "comparison_question": "Which one?"}
OTHER_SHOWN = [revision_demonstration(i, **({"critique": "Other."} if i == 3 else {})) for i in range(5)]
AMENDMENTS: dict[str, tuple[Constitution, Constitution]] = {
    "one reworded": (made_of(), made_of({3: REWORDED})),
    "one removed": (made_of(), made_of(without=4)),
    "one added": (made_of(without=4), made_of()),
    "weights": (made_of(), made_of({1: {"weight": 4.0}, 5: {"weight": 0.2}})),
    "only a critique request reworded": (made_of(), made_of({3: {"critique_request": "Look."}})),
    "a demonstration removed": (made_of(), made_of(shown=[0, 1, 2, 4])),
    "a demonstration added": (made_of(shown=[0, 1, 4]), made_of(shown=[0, 1, 2, 4])),
    "a demonstration's critique reworded": (made_of(), made_of(revision_demonstrations=OTHER_SHOWN)),
    "all demonstrations removed": (made_of(), made_of(shown=[])),
    "made a hard constraint": (made_of(), made_of(HARD)),
    "a hard constraint no more": (made_of(HARD), made_of()),
    "one more hard constraint": (made_of(HARD), made_of(HARD_TWICE)),
    "a hard constraint reworded": (made_of(HARD_TWICE), made_of({**HARD_TWICE, 2: {**HARD[2], **REWORDED}})),
    "a hard constraint removed": (made_of(HARD_TWICE), made_of(HARD_TWICE, without=7)),
    "reworded beside hard constraints": (made_of(HARD_TWICE), made_of({**HARD_TWICE, 3: REWORDED})),
}


class DistinctTexts(CountingGenerator):
    """Texts that have no word in common, with the four answers where they are asked for."""

    def generate(self, requests: list[Any], sampling: Any) -> list[Generation]:
        texts = [" ".join(wrap(digest(next(self.numbers)), 8)) for _ in self._counted(requests)]
        asked = ["Free of toxicity:" in request.messages[-1].content for request in requests]
        tails = [FOUR_NOES if reasoned else "" for reasoned in asked]
        return [Generation(text + tail, "stop", 8, 8) for text, tail in zip(texts, tails, strict=True)]


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path, NUM_PROMPTS, RunContext(chunk_rows=64))
    world.generator = DistinctTexts()
    return world


def rerun(world: World, stage_of: Any, config: Any, pair: tuple[Constitution, Constitution], phase: Any) -> RowsTouched:
    """What is said to be touched, after it was found that the plan says and the rerun makes just that many rows."""
    old, new = pair
    first, second = (stage_of(c).model_copy(update={"config": config}) for c in pair)
    world.make(first)
    (manifest,) = newest_under(world.store, old, phase)
    said = rows_touched(world.store, manifest, old, new, phase)
    out = world.make(second)
    assert (said.made_anew, said.made_anew) == (out.forecast, out.made)
    assert said.rows == manifest.statuses["ok"]
    return said


def pairs(settings: dict[str, Any], main: str) -> list[tuple[str, str]]:
    """Every amendment under the main setting, and a few under each of the others."""
    few = ("weights", "only a critique request reworded", "a demonstration removed", "one more hard constraint")
    return [(main, name) for name in AMENDMENTS] + [(how, name) for how in settings if how != main for name in few]


REVISING = {
    "all shown": {},
    "some shown": {"demonstrations": SOME},
    "each its own": {"demonstrations": OWN},
    "no critique": {"critique": "none", "demonstrations": SOME},
    "reasoned": {"critique": "reasoned"},
}


@pytest.mark.parametrize(("how", "name"), pairs(REVISING, "some shown"))
def test_revisions_said_to_be_touched_are_those_a_rerun_makes(world, how, name):
    rerun(world, world.revise, ReviseConfig(num_rounds=3, **REVISING[how]), AMENDMENTS[name], "revision")


LABELLING = {
    "all shown": {},
    "some shown": {"demonstrations": SOME},
    "each its own": {"demonstrations": OWN},
    "three principles": {"num_principles": 3, "demonstrations": SOME},
    "more than there are": {"num_principles": 20, "demonstrations": SOME},
    "all at once": {"principles": "all", "demonstrations": SOME},
    "reasoned": {"form": "reasoned", "num_samples": 2, "num_principles": 2, "demonstrations": SOME},
    "scores": {"form": "score", "num_principles": 2},
    "visible reasoning": {"visible_reasoning": "judged"},
}


@pytest.mark.parametrize(("how", "name"), pairs(LABELLING, "three principles"))
def test_labels_said_to_be_touched_are_those_a_rerun_makes(world, how, name):
    rerun(world, world.label, LabelConfig(**LABELLING[how]), AMENDMENTS[name], "comparison")
