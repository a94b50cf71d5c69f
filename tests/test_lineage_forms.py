"""Lineage of what is not one drawn question: hard constraints, all questions at once, juries, rounds that improved."""

from pathlib import Path
from typing import Any

import pytest

from constitutions import Constitution
from tasks.lineage import Records, upstream
from tasks.lineage.amendment import newest_under, rows_touched
from tasks.lineage.graph import key_of
from tasks.lineage.rows import row_lineage
from tasks.lineage.touched import find_principle, touched
from tasks.revision.verdicts import ALL_PASSED, NO_OP
from tasks.schema import DatasetRef, Improvement, Judgement, Label, ModelRef, Preference, Revision
from tasks.store import Store
from tests.lineage_world import FEEDBACK, OUTSIDE, World, comparisons, derivation, labels, pick, revisions
from tests.lineage_world import small_constitution as small

SECOND = ModelRef(model="external", version="5ec0" + "0" * 36, content_hash="d" * 64, source="org/second")
PLAIN = small()
HARD = small(harm_2={"hard_constraint": True})


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(Store.open(str(tmp_path / "store"), cache=tmp_path / "cache"), tmp_path)
    world.refs = world.run(PLAIN)
    return world


def records_of(world: World) -> Records:
    return Records([manifest for name in world.store.datasets() for manifest in world.store.versions(name)])


def found_in(world: World, name: str, ref: Any) -> Any:
    records = records_of(world)
    versions = touched(world.store, records, find_principle(records, name), 1000).versions
    return next((v for v in versions if v.key == f"{ref.dataset}/{ref.version}"), None)


def commit(
    world: World, stage: str, dataset: str, given: dict, rows: list, row_type: Any, slice_: str | None, **config
):
    return world.rows(derivation(stage, dataset, given, slice_, **config), rows, row_type)


def under(rows: list, name: str) -> set[str]:
    return {r.row_id for r in rows if r.principle_id == name and r.status != "skipped"}


# --- what a principle touched


def revised(world: World, constitution: Constitution, rows: list[Revision]) -> DatasetRef:
    given = {**pick(world.refs, "prompts", "completions"), "constitution": world.constitution(constitution)}
    return commit(world, "revise", "revisions", given, rows, Revision, constitution.revision_slice(), by="test")


def labelled(world: World, constitution: Constitution, rows: list[Label], model: ModelRef = FEEDBACK) -> DatasetRef:
    given = {**pick(world.refs, "prompts", "comparisons"), "constitution": world.constitution(constitution)}
    given["feedback"] = model
    return commit(world, "label", "labels", given, rows, Label, constitution.comparison_slice(), by="test")


def test_hard_constraint_touched_every_revision_of_its_constitution_and_no_others(world):
    ref = revised(world, HARD, revisions(HARD))
    asked = {r.row_id for r in revisions(HARD) if r.status != "skipped"}
    assert set(found_in(world, "harm-2", ref).row_ids) == asked
    assert set(found_in(world, "harm-1", ref).row_ids) == under(revisions(HARD), "harm-1") < asked
    drawn_only = found_in(world, "harm-2", world.refs["revisions"])  # made before it became one
    assert set(drawn_only.row_ids) == under(revisions(PLAIN), "harm-2")


def test_hard_constraint_by_the_hash_of_another_wording_touched_none_of_them(world):
    other = small(harm_2={"hard_constraint": True, "critique_request": "Other.", "comparison_question": "Other?"})
    ref = revised(world, HARD, revisions(HARD))
    world.constitution(other)
    wording = next(p for p in other.principles if p.id == "harm-2").revision_hash
    assert found_in(world, wording, ref) is None


@pytest.mark.parametrize("ended", [NO_OP, ALL_PASSED])
def test_revisions_that_changed_nothing_were_asked_all_the_same(world, ended):
    rows = revisions(PLAIN)
    no_op = min(under(rows, "harm-1"))
    ref = revised(world, PLAIN, [r.model_copy(update=ended) if r.row_id == no_op else r for r in rows])
    assert set(found_in(world, "harm-1", ref).row_ids) == under(rows, "harm-1")
    manifest = world.store.manifest("revisions", ref.version)
    reworded = small(harm_1={"critique_request": "What is harmful?"})
    assert rows_touched(world.store, manifest, PLAIN, reworded, "revision").touched == len(under(rows, "harm-1"))


def test_all_questions_at_once_are_rows_of_every_principle_that_was_asked(world):
    constitution = small(calm_1={"comparison_question": None})
    rows = [r.model_copy(update={"slot": "all", "principle_id": "all"}) for r in labels(constitution)]
    ref = labelled(world, constitution, rows)
    assert found_in(world, "tone-1", ref).rows == sum(r.status != "skipped" for r in rows)
    calm = found_in(world, "calm-1", ref)  # only by the comparisons, which came of revisions under it
    assert (calm.how, calm.rows) == ("derived", 0)


def test_preference_that_a_hard_constraint_decided_is_under_it(world):
    rows = [
        Preference(
            row_id=f"ai/{c.row_id}", reuse_key=c.row_id, prompt_id=c.prompt_id, prompt=[], chosen="A", rejected="B",
            target_prob=0.9, origin="ai", principle_id="tone-1", decided_by="hard/harm-2" if i % 4 == 0 else "labels",
        )
        for i, c in enumerate(comparisons())
    ]  # fmt: skip
    made = labelled(world, HARD, labels(HARD))
    given = {**pick(world.refs, "prompts", "comparisons"), "labels.feedback": made}
    ref = commit(world, "preferences", "preferences", given, rows, Preference, None, by="test")
    assert set(found_in(world, "harm-2", ref).row_ids) == {r.row_id for r in rows if r.decided_by == "hard/harm-2"}


# --- several evaluators


def test_amendment_counts_the_newest_labels_of_each_feedback_model(world):
    second = labelled(world, PLAIN, [r.model_copy(update={"evaluator": "second"}) for r in labels(PLAIN)], SECOND)
    again = labelled(world, PLAIN, [r.model_copy(update={"prob_a": 0.6}) for r in labels(PLAIN)])
    assert {m.version for m in newest_under(world.store, PLAIN, "comparison")} == {second.version, again.version}


def test_preference_came_from_the_labels_of_every_evaluator(world):
    names = {r.row_id: {"evaluator": "second", "row_id": r.row_id.replace("feedback", "second")} for r in labels(PLAIN)}
    second = labelled(world, PLAIN, [r.model_copy(update=names[r.row_id]) for r in labels(PLAIN)], SECOND)
    given = {**pick(world.refs, "prompts", "comparisons"), "labels.feedback": world.refs["labels"]}
    given["labels.second"] = second
    rows = world.store.read(world.refs["preferences"]).to_pylist()
    rows = [Preference.model_validate({k: v for k, v in row.items() if k != "row_hash"}) for row in rows]
    ref = commit(world, "preferences", "preferences", given, rows, Preference, None, jury=True)
    manifest = world.store.manifest("preferences", ref.version)
    found = row_lineage(world.store, records_of(world), manifest, "ai/p2/0")
    assert [(p.role, p.row["row_id"]) for p in found.parents] == [
        ("prompts", "train/p2"),
        ("comparisons", "p2/0"),
        *[("labels.feedback", f"p2/0/feedback/0/{order}") for order in ("ab", "ba")],
        *[("labels.second", f"p2/0/second/0/{order}") for order in ("ab", "ba")],
    ]


# --- what compares without the demonstrations and constraints of the labels


def test_questions_slice_names_its_principles_where_no_constitution_is_cited(world):
    other = small(harm_2={"hard_constraint": True, "comparison_question": "Other?"})  # questions that no labels have
    world.constitution(other)
    given = {"prompts": world.refs["prompts"], "feedback": FEEDBACK}
    ref = commit(world, "judge", "judgements", given, [], Judgement, other.questions_slice(), by="test")
    node = upstream(records_of(world), f"judgements/{ref.version}").nodes[f"judgements/{ref.version}"]
    assert node.principles == {p.id: p.comparison_hash for p in other.principles}


def test_improvement_came_from_the_revision_and_those_before_it(world):
    rows = [
        Improvement(
            row_id=r.row_id, reuse_key=r.row_id, prompt_id=r.prompt_id, round=r.round, principle_id=r.principle_id,
            principle_hash=r.principle_hash, win_prob=0.6,
        )
        for r in revisions(PLAIN)
    ]  # fmt: skip
    given = {**pick(world.refs, "prompts", "completions", "revisions", "constitution"), "feedback": OUTSIDE}
    ref = commit(world, "improve", "improvements", given, rows, Improvement, PLAIN.questions_slice(), by="test")
    manifest = world.store.manifest("improvements", ref.version)
    found = row_lineage(world.store, records_of(world), manifest, "p3/1")
    assert [(p.role, p.row["row_id"]) for p in found.parents] == [
        ("prompts", "train/p3"),
        ("completions", "p3/0"),
        ("revisions", "p3/0"),
        ("revisions", "p3/1"),
    ]
    assert key_of(manifest) == found.key
