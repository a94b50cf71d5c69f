"""Lineage: what a version and a row came from, and what a principle touched, beside what the rows themselves say."""

from pathlib import Path
from typing import Any

import pytest

from constitutions.diff import diff_constitutions
from tasks.lineage import Edge, Lineage, Node, Records, mermaid, tree, upstream
from tasks.lineage.amendment import newest_under, rows_touched
from tasks.lineage.graph import key_of
from tasks.lineage.rows import row_lineage
from tasks.lineage.show import Branch, escape, facts
from tasks.lineage.touched import find_principle, touched
from tasks.store import Manifest, Store, StoreError
from tests.lineage_world import (
    FEEDBACK,
    NUM_PROMPTS,
    OUTSIDE,
    World,
    derivation,
    labels,
    revisions,
    small_constitution,
)

OLD = small_constitution()
NEW_QUESTION = small_constitution(tone_1={"comparison_question": "Which is kinder?"})
NEW_CRITIQUE = small_constitution(harm_1={"critique_request": "What is harmful?"})


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Three runs: under OLD, with a reworded question, and with a reworded critique that keeps the policy."""
    folder = tmp_path_factory.mktemp("lineage")
    world = World(Store.open(str(folder / "store"), cache=folder / "cache"), folder)
    world.refs = world.run(OLD)
    world.question = world.run(NEW_QUESTION)
    world.kept = world.run(NEW_CRITIQUE, keep=world.refs["sl"])
    return world


def newest(store: Store, constitution: Any, phase: Any) -> Manifest:
    (found,) = newest_under(store, constitution, phase)
    return found


def manifests(store: Store) -> list[Manifest]:
    return [manifest for name in store.datasets() for manifest in store.versions(name)]


@pytest.fixture(scope="module")
def records(world: World) -> Records:
    return Records(manifests(world.store))


def key(ref: Any) -> str:
    return f"{getattr(ref, 'dataset', None) or ref.model}/{ref.version}"


def roles(node: Node) -> dict[str, str]:
    return {edge.role: edge.to for edge in node.made_from}


# --- upstream -------------------------------------------------------------------------------------------------


def test_upstream_policy_reaches_all_it_came_from_and_nothing_else(world, records):
    found = upstream(records, key(world.refs["rl"]))
    names = ("constitution", "prompts", "completions", "revisions", "sl", "comparisons", "labels", "preferences")
    expected = {key(world.refs[name]) for name in (*names, "reward", "rl")} | {key(OUTSIDE), key(FEEDBACK)}
    assert set(found.nodes) == expected


def test_upstream_edges_are_the_inputs_models_and_constitution(world, records):
    nodes, refs = upstream(records, key(world.refs["rl"])).nodes, world.refs
    assert roles(nodes[key(refs["rl"])]) == {
        r: key(refs[n]) for r, n in (("prompts",) * 2, ("reward",) * 2, ("policy", "sl"))
    }
    names = ("prompts", "comparisons", "constitution")
    assert roles(nodes[key(refs["labels"])]) == {**{n: key(refs[n]) for n in names}, "feedback": key(FEEDBACK)}
    assert roles(nodes[key(refs["prompts"])]) == {}


def test_upstream_nodes_say_how_and_from_which_words(world, records):
    nodes = upstream(records, key(world.refs["rl"])).nodes
    labels_node, outside = nodes[key(world.refs["labels"])], nodes[key(OUTSIDE)]
    assert (labels_node.stage, labels_node.seed, labels_node.rows) == ("label", 3, 2 * (NUM_PROMPTS + 1))
    assert labels_node.principles == {p.id: p.comparison_hash for p in OLD.principles}
    assert nodes[key(world.refs["revisions"])].principles == {p.id: p.revision_hash for p in OLD.principles}
    assert nodes[key(world.refs["constitution"])].principles == {p.id: p.hash for p in OLD.principles}
    assert nodes[key(world.refs["completions"])].principles == {}
    assert (outside.state, outside.version, outside.dataset) == ("outside", OUTSIDE.version, "external")
    assert outside.content_hash == OUTSIDE.content_hash


def test_upstream_without_citations_falls_back_to_content(world):
    bare = [
        m.model_copy(update={"derivation": m.derivation.model_copy(update={"cites": {}})})
        for m in manifests(world.store)
    ]
    nodes = upstream(Records(bare), key(world.refs["rl"])).nodes
    assert key(world.refs["sl"]) in {e.to for e in nodes[key(world.refs["rl"])].made_from if e.role == "policy"}
    # the slice of the comparisons is shared with the third run's constitution, that of the revisions with the second's
    found = {e.to for e in nodes[key(world.refs["labels"])].made_from if e.role == "constitution"}
    assert found == {key(world.refs["constitution"]), key(world.kept["constitution"])}
    assert nodes[key(world.refs["labels"])].principles == {p.id: p.comparison_hash for p in OLD.principles}
    assert f"external/{FEEDBACK.content_hash}" in nodes


def test_upstream_kept_policy_is_what_the_content_came_from(world, records):
    nodes = upstream(records, key(world.kept["sl"])).nodes
    node = nodes[key(world.kept["sl"])]
    assert node.kept["version"] == key(world.refs["sl"])
    nominal = {edge.role: edge.nominal for edge in node.made_from}
    assert nominal == {"keep": False, "revisions": True, "prompts": True, "completions": True, "pretrained": True}
    assert key(world.refs["revisions"]) in nodes and key(world.kept["revisions"]) in nodes


def test_upstream_removed_and_unknown_versions_still_show(world):
    refs, live = world.refs, manifests(world.store)
    gone = {key(refs["revisions"]), key(refs["completions"])}
    unknown = {key(refs["constitution"]), key(refs["prompts"])}
    records = Records([m for m in live if key_of(m) not in gone | unknown], [m for m in live if key_of(m) in gone])
    nodes = upstream(records, key(refs["rl"])).nodes
    assert {k for k, node in nodes.items() if node.state == "removed"} == gone
    assert {k for k, node in nodes.items() if node.state == "missing"} == unknown
    assert nodes[key(refs["revisions"])].rows == len(revisions(OLD))
    assert "removed by gc" in facts(nodes[key(refs["revisions"])])


def test_upstream_principles_are_known_from_any_constitution_with_the_slice(world):
    labels_key, cited = key(world.refs["labels"]), key(world.refs["constitution"])
    nodes = upstream(Records(m for m in manifests(world.store) if key_of(m) != cited), labels_key).nodes
    assert nodes[cited].state == "missing"  # the third run's constitution asks the same questions
    assert nodes[labels_key].principles == {p.id: p.comparison_hash for p in OLD.principles}


def test_upstream_version_made_again_after_gc_is_live(world):
    live = manifests(world.store)
    assert Records(live, live).removed == {}


def test_upstream_no_record_is_an_error(records):
    with pytest.raises(StoreError, match="no record of models/rl/nothing"):
        upstream(records, "models/rl/nothing")


# --- tree and Mermaid -----------------------------------------------------------------------------------------


def walk(branch: Branch) -> list[Branch]:
    return [branch, *(deeper for below in branch.branches for deeper in walk(below))]


def test_tree_goes_down_the_method_and_repeats_nothing(world, records):
    root = tree(upstream(records, key(world.refs["rl"])))
    path, branch = [], root
    while branch.branches:
        branch = branch.branches[0]
        path.append(branch.node.dataset)
    assert path == [
        "models/reward", "preferences", "labels", "comparisons", "models/sl", "revisions", "completions", "prompts",
    ]  # fmt: skip
    whole = [b.node.key for b in walk(root) if not b.again and b.node.made_from]
    assert len(whole) == len(set(whole))
    again = [b for b in walk(root) if b.again]
    assert again and all(not b.branches for b in again)


def test_tree_circle_ends():
    nodes = {
        name: Node(key=name, dataset=name, version="v", state="live", made_from=(Edge(role="r", to=to),))
        for name, to in ("ab", "ba")
    }
    found = walk(tree(Lineage(root="a", nodes=nodes)))
    assert [(b.node.key, b.again) for b in found] == [("a", False), ("b", False), ("a", True)]


def test_mermaid_has_every_node_and_edge_once(world, records):
    found = upstream(records, key(world.kept["sl"]))
    lines = mermaid(found).splitlines()
    assert lines[0] == "flowchart TD"
    assert sum('["' in line for line in lines) == len(found.nodes)
    edges = [edge for node in found.nodes.values() for edge in node.made_from]
    assert sum("-->|" in line for line in lines) == sum(not edge.nominal for edge in edges)
    assert sum("-.->|" in line for line in lines) == sum(edge.nominal for edge in edges) == 4


def test_mermaid_hostile_text_cannot_leave_its_label():
    text = '"]; click n0 "javascript:alert(1)"\n%%{init}%% <img src=x> `#quot;` & é'
    escaped = escape(text)
    assert not set(escaped) & set("\"'<>`&[](){}|\n%")
    assert escape("Aa 0.9,_/:-") == "Aa 0.9,_/:-" and escape('"') == "#34;" and escape("#") == "#35;"


# --- downstream -----------------------------------------------------------------------------------------------


def under(rows: list[Any], name: str, digest: str | None = None) -> list[str]:
    chosen = [r for r in rows if r.principle_id == name and r.status != "skipped"]
    return [r.row_id for r in chosen if digest is None or r.principle_hash == digest]


def test_touched_by_id_counts_every_row_and_follows_what_was_made(world, records):
    found = {v.key: v for v in touched(world.store, records, find_principle(records, "tone-1"), 1000).versions}
    for refs, constitution in ((world.refs, OLD), (world.question, NEW_QUESTION), (world.kept, NEW_CRITIQUE)):
        assert found[key(refs["revisions"])].row_ids == tuple(under(revisions(constitution), "tone-1"))
        assert found[key(refs["labels"])].rows == len(under(labels(constitution), "tone-1"))
        assert found[key(refs["labels"])].of == 2 * (NUM_PROMPTS + 1)
        for name in ("sl", "reward", "rl", "samples.rl", "metrics", "comparisons"):
            assert found[key(refs[name])].how == "derived" and found[key(refs[name])].rows == 0
        assert found[key(refs["preferences"])].how == found[key(refs["judgements"])].how == "direct"
    untouched = {key(world.refs[name]) for name in ("prompts", "completions", "samples.base", "constitution")}
    assert not untouched & set(found)
    assert found[key(world.refs["sl"])].through == (key(world.refs["revisions"]),)


def test_touched_row_ids_are_as_many_as_asked_for(world, records):
    principle = find_principle(records, "tone-1")
    none, two = (touched(world.store, records, principle, n).versions for n in (0, 2))
    assert all(version.row_ids == () for version in none)
    assert max(len(version.row_ids) for version in two) == 2
    assert [v.rows for v in none] == [v.rows for v in two]


def test_touched_rows_that_were_skipped_do_not_count(world, records):
    skipped = [r for r in revisions(OLD) if r.status == "skipped"]
    for name in {r.principle_id for r in skipped}:
        found = {v.key: v for v in touched(world.store, records, find_principle(records, name), 1000).versions}
        assert found[key(world.refs["revisions"])].row_ids == tuple(under(revisions(OLD), name))
        assert found[key(world.refs["revisions"])].rows == len(under(revisions(OLD), name))
    assert skipped


def test_touched_by_hash_means_one_wording(world, records):
    new = next(p for p in NEW_QUESTION.principles if p.id == "tone-1").comparison_hash
    found = {v.key: v for v in touched(world.store, records, find_principle(records, new[:8]), 0).versions}
    # the judgements came out as before, so that their metrics are still those of the first run (early cutoff)
    wanted = ("labels", "preferences", "reward", "rl", "samples.rl", "judgements")
    assert set(found) == {key(world.question[name]) for name in wanted}
    assert found[key(world.question["labels"])].rows == len(under(labels(NEW_QUESTION), "tone-1", new))
    # rows without a hash are of the wording that their constitution holds
    assert found[key(world.question["preferences"])].rows == len(under(labels(NEW_QUESTION), "tone-1")) // 2


def test_touched_by_hash_of_both_phases_means_rows_of_both(world, records):
    whole = next(p for p in NEW_QUESTION.principles if p.id == "tone-1").hash
    principle = find_principle(records, whole[:12])
    assert principle.constitutions == (key(world.question["constitution"]),)
    found = {v.key: v for v in touched(world.store, records, principle, 0).versions}
    assert found[key(world.question["revisions"])].rows == len(under(revisions(OLD), "tone-1"))
    assert found[key(world.question["labels"])].rows == len(under(labels(NEW_QUESTION), "tone-1"))


def test_touched_kept_policy_passes_nothing_of_the_rows_it_never_saw(world, records):
    new = next(p for p in NEW_CRITIQUE.principles if p.id == "harm-1").revision_hash
    found = touched(world.store, records, find_principle(records, new), 0)
    assert [v.key for v in found.versions] == [key(world.kept["revisions"])]


def test_touched_removed_rows_are_unknown_and_pass_on(world):
    refs, live = world.refs, manifests(world.store)
    records = Records(
        [m for m in live if key_of(m) != key(refs["labels"])], [m for m in live if key_of(m) == key(refs["labels"])]
    )
    found = {v.key: v for v in touched(world.store, records, find_principle(records, "tone-1"), 0).versions}
    assert found[key(refs["labels"])].rows is None and found[key(refs["labels"])].state == "removed"
    assert key(refs["labels"]) in found[key(refs["preferences"])].through


@pytest.mark.parametrize("name", ["nobody", "abcdef0", "abcdef01", "tone"])
def test_find_principle_unknown_names_the_known(records, name):
    with pytest.raises(StoreError, match=r"the ids are calm-1, harm-1, harm-2, tone-1"):
        find_principle(records, name)


# --- rows -----------------------------------------------------------------------------------------------------


def lineage_of(world: World, records: Records, ref: Any, row_id: str) -> Any:
    return row_lineage(world.store, records, world.store.manifest(ref.dataset, ref.version), row_id)


def test_row_revision_comes_from_prompt_completion_and_earlier_rounds(world, records):
    found = lineage_of(world, records, world.refs["revisions"], "p3/1")
    parents = [(p.role, p.key, p.row["row_id"]) for p in found.parents]
    refs = world.refs
    assert parents == [
        ("prompts", key(refs["prompts"]), "train/p3"),
        ("completions", key(refs["completions"]), "p3/0"),
        ("round 0", key(refs["revisions"]), "p3/0"),
    ]
    assert found.row["principle_id"] == next(r.principle_id for r in revisions(OLD) if r.row_id == "p3/1")


@pytest.mark.parametrize(
    ("dataset", "row_id", "parents"),
    [
        ("labels", "p2/0/feedback/0/ba", ["train/p2", "p2/0"]),
        ("preferences", "ai/p2/0", ["train/p2", "p2/0", "p2/0/feedback/0/ab", "p2/0/feedback/0/ba"]),
        ("comparisons", "p2/0", ["train/p2"]),
        ("samples.sl", "p2/0", ["held_out/p2"]),
        ("judgements", "sl/p2/0", ["held_out/p2", "p2/0"]),
        ("prompts", "train/p2", []),
        ("metrics", "sl/win_rate/all", []),
    ],
)
def test_row_of_any_dataset_finds_its_parents(world, records, dataset, row_id, parents):
    found = lineage_of(world, records, world.refs[dataset], row_id)
    assert [parent.row["row_id"] for parent in found.parents] == parents


def test_row_holders_are_the_versions_with_its_key(world, records):
    same = {r.row_id for r in revisions(OLD)} & {
        r.row_id for r in revisions(OLD) if r.principle_id != "harm-1" and r.status == "ok"
    }
    found = lineage_of(world, records, world.refs["revisions"], min(same))
    # the second run has the very same version: its revisions were not touched
    assert {h.key for h in found.holders} == {key(world.refs["revisions"]), key(world.kept["revisions"])}
    changed = next(r.row_id for r in revisions(OLD) if r.principle_id == "harm-1" and r.status == "ok")
    assert [h.key for h in lineage_of(world, records, world.refs["revisions"], changed).holders] == [
        key(world.refs["revisions"])
    ]


def test_row_unknown_is_an_error(world, records):
    with pytest.raises(StoreError, match=r"no row 'p99/0' among its 82"):
        lineage_of(world, records, world.refs["revisions"], "p99/0")


# --- amendments -----------------------------------------------------------------------------------------------


def test_rows_touched_reworded_critique_is_what_a_redraw_shows(world):
    manifest = newest(world.store, OLD, "revision")
    found = rows_touched(world.store, manifest, OLD, NEW_CRITIQUE, "revision")
    asked = [r for r in revisions(OLD) if r.status != "skipped"]
    first = [r.prompt_id for r in asked if r.principle_id == "harm-1" and r.round == 0]
    second = [r.prompt_id for r in asked if r.principle_id == "harm-1" and r.round == 1]
    assert found.key == key(world.refs["revisions"])
    assert (found.rows, found.touched) == (2 * NUM_PROMPTS, len(first) + len(second))
    assert found.following == len(set(first) - set(second)) > 0
    assert (found.chains, found.chains_touched) == (NUM_PROMPTS, len(set(first) | set(second)))
    assert found.made_anew == 2 * len(first) + len(set(second) - set(first))


def test_rows_touched_reworded_question_is_both_orders_of_its_draws(world):
    found = rows_touched(world.store, newest(world.store, OLD, "comparison"), OLD, NEW_QUESTION, "comparison")
    assert (found.rows, found.touched) == (2 * NUM_PROMPTS, len(under(labels(OLD), "tone-1")))
    assert found.following == 0 and found.chains is None


def test_rows_touched_added_principle_takes_only_its_own(world):
    grown = OLD.model_copy(
        update={
            "principles": (
                *OLD.principles,
                OLD.principles[0].model_copy(update={"id": "new", "comparison_question": "?"}),
            )
        }
    )
    found = rows_touched(world.store, newest(world.store, OLD, "comparison"), OLD, grown, "comparison")
    assert found.touched == len([r for r in labels(grown) if r.principle_id == "new" and r.status != "skipped"])


def test_rows_touched_same_words_under_another_id_touch_only_what_gets_other_words(world):
    renamed = small_constitution(tone_1={"id": "manners"})
    found = rows_touched(world.store, newest(world.store, OLD, "comparison"), OLD, renamed, "comparison")
    pairs = [(a, b) for a, b in zip(labels(OLD), labels(renamed), strict=True) if a.status != "skipped"]
    assert diff_constitutions(OLD, renamed).renamed
    assert found.touched == sum(a.principle_hash != b.principle_hash for a, b in pairs)


@pytest.mark.parametrize("phase", ["revision", "comparison"])
@pytest.mark.parametrize(
    "changes",
    [
        {"tone_1": {"weight": 3.0}},
        {"tone_1": {"weight": 0.25}, "harm_1": {"weight": 1.5}},
        {"tone_1": {"enabled": False}, "calm_1": {"weight": 0.5, "critique_request": "?", "comparison_question": "!"}},
        {"tone_1": {"id": "manners", "weight": 2.0}, "harm_2": {"weight": 0.1}},
        {name: {"enabled": False} for name in ("tone_1", "harm_1", "harm_2")},
    ],
)
def test_rows_touched_any_weights_is_what_drawing_all_again_shows(world, changes, phase):
    new = small_constitution(**changes)
    rows = revisions if phase == "revision" else labels
    again = {r.row_id: r.principle_hash for r in rows(new)}
    expected = sum(again[r.row_id] != r.principle_hash for r in rows(OLD) if r.status != "skipped")
    assert rows_touched(world.store, newest(world.store, OLD, phase), OLD, new, phase).touched == expected


def test_newest_under_another_constitution_is_nothing(world):
    other = small_constitution(calm_1={"comparison_question": "Which is calmer?"})
    assert newest_under(world.store, other, "comparison") == []
    assert len(newest_under(world.store, other, "revision")) == 1


def test_draw_keys_are_those_of_the_stages(tmp_path: Path):
    """A stage that drew by another key would find every row touched by nothing."""
    from tasks.label import LabelConfig, label, questionnaire_of
    from tasks.revise import Chain, ReviseConfig, revise
    from tasks.serving import FakeGenerator
    from tests.worlds import echo, prompt, recipe

    given = prompt("Do something.")
    chains = [Chain(given, "Gladly.")]
    revised = revise(chains, OLD.revision_principles(), FakeGenerator(echo("r")), ReviseConfig(), recipe(seed=3))
    world = World(Store.open(str(tmp_path / "store"), cache=tmp_path / "cache"), tmp_path)
    from tasks.schema import Comparison, Label, Revision

    made = derivation("revise", "revisions", {}, OLD.revision_slice())
    ref = world.rows(made, revised, Revision)
    assert rows_touched(world.store, world.store.manifest("revisions", ref.version), OLD, OLD, "revision").touched == 0
    pair = Comparison(row_id="c/0", reuse_key="k", prompt_id=given.prompt_id, completion_a="a", completion_b="b")
    questions = list(questionnaire_of(OLD, LabelConfig(), seed=3).of(given, pair))
    judged = label(questions, FakeGenerator(echo("l")), "feedback", LabelConfig(), recipe(seed=3), {})
    ref = world.rows(derivation("label", "labels", {}, OLD.comparison_slice()), judged, Label)
    assert rows_touched(world.store, world.store.manifest("labels", ref.version), OLD, OLD, "comparison").touched == 0
