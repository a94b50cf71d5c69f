"""The preferences stage on a store: evaluators side by side, human comparisons by ratio and weight, its identity."""

import json
from pathlib import Path

import pytest

from constitutions import Constitution
from tasks.preference.reading import beside_labels
from tasks.preferences import PreferencesStage
from tasks.reward import preference_examples
from tasks.schema import Comparison, Label, Preference, Prompt
from tasks.stage import RunContext, Session, StageFailed
from tests.judged_rows import both, comparison
from tests.worlds import commit, commit_constitution, constitution_of, open_store, principle, prompt, rows_of

PROMPTS = [prompt(f"ask {i}") for i in range(3)]
COMPARISONS = [
    comparison(number, prompt_id=asked.prompt_id, row_id=f"{asked.prompt_id}/{number}")
    for asked in PROMPTS
    for number in range(2)
]


def labels_by(evaluator: str, probs: list[float], **fields) -> list[Label]:
    return [
        row
        for made, p in zip(COMPARISONS, probs, strict=True)
        for row in both(p, p, evaluator=evaluator, comparison_id=made.row_id, prompt_id=made.prompt_id, **fields)
    ]


PROBS = [0.9, 0.2, 0.6, 0.5, 0.7, 0.3]
LABELS = {"feedback": labels_by("feedback", PROBS), "strict": labels_by("strict", [0.5] * 6)}


class World:
    """A store with prompts, comparisons, the labels of two evaluators and a constitution."""

    def __init__(self, folder: Path) -> None:
        self.store = open_store(folder)
        self.folder = folder
        self.prompts = commit(self.store, "prompts", PROMPTS, Prompt)
        self.comparisons = commit(self.store, "comparisons", COMPARISONS, Comparison)
        self.labels = {name: commit(self.store, "labels", rows, Label) for name, rows in LABELS.items()}
        self.constitution = commit_constitution(self.store, constitution_of("one", "two"))

    def stage(self, labels=None, constitution=None, **config) -> PreferencesStage:
        return PreferencesStage(
            run=RunContext(),
            prompts=self.prompts,
            comparisons=self.comparisons,
            labels=labels or self.labels,
            constitution=constitution or self.constitution,
            config=config,
        )

    def version(self, **fields) -> str:
        return self.stage(**fields).derivation(self.store).version

    def rows(self, **fields) -> list[Preference]:
        return rows_of(self.store, self.stage(**fields).make(Session(self.store)), Preference)

    def human(self, count: int, unusable: int = 0) -> str:
        """A file of so many comparisons, the first of which cannot be used."""
        path = self.folder / f"human-{count}-{unusable}.jsonl"
        rows = [("\n\nHuman: q", "\n\nHuman: q")] * unusable
        rows += [
            (f"\n\nHuman: {i}\n\nAssistant: good", f"\n\nHuman: {i}\n\nAssistant: bad") for i in range(count - unusable)
        ]
        path.write_text("".join(json.dumps({"chosen": a, "rejected": b}) + "\n" for a, b in rows))
        return str(path)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    return World(tmp_path_factory.mktemp("preferences"))


def test_stage_one_row_a_comparison_in_order_with_its_own_prompt(world):
    rows = world.rows()
    assert [row.row_id for row in rows] == [f"ai/{made.row_id}" for made in COMPARISONS]
    assert [row.prompt for row in rows] == [asked.messages for asked in PROMPTS for _ in range(2)]
    wanted = [(p + 0.5) / 2 for p in PROBS]
    assert [row.target_prob for row in rows] == pytest.approx([max(p, 1 - p) for p in wanted])
    assert [row.chosen for row in rows] == ["text A" if p >= 0.5 else "text B" for p in wanted]


def test_stage_metrics_count_origins_deciders_and_silent_evaluators(world):
    silent = [r.model_copy(update={"status": "failed", "reason": "x", "prob_a": None}) for r in LABELS["strict"][:4]]
    broken = commit(world.store, "labels", silent + LABELS["strict"][4:], Label)
    ref = world.stage(labels={**world.labels, "strict": broken}, human=world.human(3)).make(Session(world.store))
    metrics = world.store.manifest_of(ref).metrics
    assert metrics == {"ai": 6, "human": 3, "decided_by": {"labels": 6}, "unanswered": {"strict": 2}}


def test_stage_labels_of_other_comparisons_are_refused(world):
    others = [row.model_copy(update={"comparison_id": f"x/{i}"}) for i, row in enumerate(LABELS["strict"])]
    labels = {"other": commit(world.store, "labels", others, Label)}
    with pytest.raises(StageFailed, match=r"labels of other: comparison 'x/0' is not among the comparisons"):
        world.rows(labels=labels)


def test_stage_comparison_without_labels_of_one_evaluator_takes_the_other(world):
    some = commit(world.store, "labels", LABELS["strict"][2:], Label)
    rows = world.rows(labels={"feedback": world.labels["feedback"], "strict": some})
    assert rows[0].target_prob == pytest.approx(0.9) and rows[1].target_prob == pytest.approx(0.65)


def test_labels_of_a_comparison_come_by_evaluator_whatever_order_they_were_given_in():
    pairs = list(zip([asked for asked in PROMPTS for _ in range(2)], COMPARISONS, strict=True))
    for names in (["feedback", "strict"], ["strict", "feedback"]):
        found = list(beside_labels(iter(pairs), {name: iter(LABELS[name]) for name in names}))
        assert [made for _, made, _ in found] == COMPARISONS
        assert {tuple(row.evaluator for row in rows) for _, _, rows in found} == {("feedback",) * 2 + ("strict",) * 2}


# --- identity -----------------------------------------------------------------------------------------------------


def test_version_does_not_depend_on_the_order_of_evaluators(world):
    assert world.version(labels=dict(reversed(world.labels.items()))) == world.version()
    assert world.rows(labels=dict(reversed(world.labels.items()))) == world.rows()


def test_version_moves_with_an_evaluator_and_with_a_setting(world):
    one = {"feedback": world.labels["feedback"]}
    versions = {world.version(), world.version(labels=one), world.version(clamp="off"), world.version(human_weight=2.0)}
    assert len(versions) == 4


def test_version_moves_with_priorities_and_constraints_and_with_no_other_edit(world):
    def under(**fields) -> str:
        amended = Constitution.model_validate(
            {"id": "t", "title": "t", "description": "d", "principles": [principle("one", **fields), principle("two")]}
        )
        return world.version(constitution=commit_constitution(world.store, amended))

    assert under() == under(comparison_question="Which is kinder?", weight=3.0) == world.version()
    assert len({under(), under(priority=1), under(hard_constraint=True)}) == 3


def test_stage_reads_priorities_from_the_constitution(world):
    second = labels_by("feedback", [1 - p for p in PROBS], slot="1", principle_id="two")
    pairs = zip(LABELS["feedback"][::2], LABELS["feedback"][1::2], second[::2], second[1::2], strict=True)
    labels = {"feedback": commit(world.store, "labels", [row for four in pairs for row in four], Label)}
    two_first = Constitution.model_validate(
        {"id": "t", "title": "t", "description": "d", "principles": [principle("one"), principle("two", priority=1)]}
    )
    ranked = world.rows(labels=labels, constitution=commit_constitution(world.store, two_first))
    assert [row.decided_by for row in ranked] == ["priority"] * 3 + ["labels"] + ["priority"] * 2
    assert (ranked[0].chosen, ranked[0].target_prob) == ("text B", pytest.approx(0.9))
    assert {row.decided_by for row in world.rows(labels=labels)} == {"labels"}


# --- human comparisons --------------------------------------------------------------------------------------------


def test_human_rows_carry_their_weight_and_name_themselves(world):
    human = [row for row in world.rows(human=world.human(4), human_weight=0.5) if row.origin == "human"]
    assert [(row.weight, row.decided_by, row.target_prob) for row in human] == [(0.5, "human", 1.0)] * 4


def test_human_fraction_takes_the_first_usable_rows_of_the_file(world):
    rows = [r for r in world.rows(human=world.human(9, unusable=2), human_fraction=0.4) if r.origin == "human"]
    assert [row.status for row in rows].count("ok") == 4  # beside 6 usable AI labels
    assert [row.row_id for row in rows] == [f"human/{i}" for i in range(6)]


def test_human_fraction_is_of_the_usable_ai_labels(world):
    rows = world.rows(human=world.human(9), human_fraction=0.5, min_margin=0.07)
    usable = [row.origin for row in rows if row.status == "ok"]
    assert usable.count("human") == usable.count("ai") == 4


def test_human_fraction_that_the_file_cannot_give_is_an_error_that_says_so(world):
    with pytest.raises(ValueError, match=r"0\.8 beside 6 usable AI labels asks for 24 .* gives 7 usable ones"):
        world.rows(human=world.human(9, unusable=2), human_fraction=0.8)


def test_human_identity_is_the_content_of_the_file(world):
    path = Path(world.human(5))
    moved = path.with_name("elsewhere.jsonl")
    moved.write_bytes(path.read_bytes())
    assert world.version(human=str(moved)) == world.version(human=str(path))
    assert world.version(human=str(path)) != world.version(human=world.human(6))


def test_weight_reaches_the_reward_model(world):
    examples = preference_examples(world.rows(human=world.human(2), human_weight=0.5))
    assert [example.weight for example in examples] == [1.0] * 6 + [0.5] * 2
