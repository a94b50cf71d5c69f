"""What an amendment changes, and the share of draws it touches, beside what the draws themselves do."""

import math

import pytest

from constitutions import Constitution, Principle, draw
from constitutions.diff import diff_constitutions
from constitutions.phases import PHASES, asked_hashes, principles_of, slice_of
from constitutions.shares import share_touched

NUM_KEYS = 8_000


def make(name: str, **changes) -> Principle:
    texts = {f: f"{f} of {name}" for f in ("critique_request", "revision_request", "comparison_question")}
    return Principle(**({"id": name} | texts | changes))


def constitution(*principles: Principle, **changes) -> Constitution:
    return Constitution(**({"id": "c", "principles": principles} | changes))


SIXTEEN = [make(f"p-{i}", weight=1.0 + i % 3) for i in range(16)]
TOTAL = sum(p.weight for p in SIXTEEN)
OLD = constitution(*SIXTEEN)


def amended(name: str, **changes) -> Constitution:
    return constitution(*(p.model_copy(update=changes) if p.id == name else p for p in SIXTEEN))


def drawn_share(old: Constitution, new: Constitution, phase) -> float:
    """The share of draws with another text, by drawing."""
    before, after = principles_of(old, phase), principles_of(new, phase)
    was, now = ({p.id: asked_hashes(c, p, phase) for p in principles_of(c, phase)} for c in (old, new))
    drawn = ([draw(principles, 7, phase, i).id for i in range(NUM_KEYS)] for principles in (before, after))
    return sum(was[a] != now[b] for a, b in zip(*drawn, strict=True)) / NUM_KEYS


def without(*names: str) -> list[Principle]:
    return [p for p in SIXTEEN if p.id not in names]


AMENDMENTS = {
    "added": constitution(*SIXTEEN, make("new", weight=2.5)),
    "removed": constitution(*without("p-5")),
    "reworded": amended("p-2", critique_request="?", comparison_question="?"),
    "heavier": amended("p-3", weight=6.0),
    "lighter": amended("p-3", weight=0.2),
    "disabled": amended("p-4", enabled=False),
    "renamed": constitution(*without("p-5"), SIXTEEN[5].model_copy(update={"id": "zz"})),
    "renamed heavier": constitution(*without("p-5"), SIXTEEN[5].model_copy(update={"id": "zz", "weight": 7.0})),
    "worded like another": amended("p-8", **SIXTEEN[11].model_dump(include={"critique_request", "revision_request"})),
    "all at once": constitution(
        *(
            p.model_copy(update={"weight": 3.0 / p.weight, "comparison_question": "?" if p.id < "p-3" else "!"})
            for p in without("p-0", "p-9")
        ),
        make("new"),
        SIXTEEN[9].model_copy(update={"id": "old-9"}),
    ),
}


HARD = amended("p-6", hard_constraint=True)
CONSTRAINED = {
    "made hard": (OLD, HARD),
    "hard no more": (HARD, OLD),
    "hard and reworded": (OLD, amended("p-6", hard_constraint=True, critique_request="?", comparison_question="?")),
    "another beside it": (HARD, constitution(*HARD.principles, make("new", weight=2.0, hard_constraint=True))),
    "beside a reworded one": (
        HARD,
        constitution(
            *(p.model_copy(update={"critique_request": "?"}) if p.id == "p-2" else p for p in HARD.principles)
        ),
    ),
}


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("name", CONSTRAINED)
def test_share_touched_with_hard_constraints_is_what_the_draws_show(name, phase):
    old, new = CONSTRAINED[name]
    expected = share_touched(old, new, phase)
    error = math.sqrt(max(expected * (1 - expected), 1 / NUM_KEYS) / NUM_KEYS)
    assert drawn_share(old, new, phase) == pytest.approx(expected, abs=4 * error)


def test_hard_constraint_touches_every_critique_that_did_not_draw_it_and_no_question():
    weight = SIXTEEN[6].weight
    assert share_touched(OLD, HARD, "revision") == pytest.approx(1 - weight / TOTAL)
    assert share_touched(OLD, HARD, "comparison") == 0
    found = diff_constitutions(OLD, HARD)
    assert [phase.asked_of_all for phase in found.phases] == [("p-6",), ("p-6",)]
    assert all(phase.moved for phase in found.phases)
    assert [phase.asked_of_all for phase in diff_constitutions(HARD, OLD).phases] == [(), ()]
    renamed = constitution(*without("p-6"), HARD.principles[6].model_copy(update={"id": "zz"}))
    assert diff_constitutions(HARD, renamed).phase("comparison").asked_of_all == ()


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("name", AMENDMENTS)
def test_share_touched_is_what_the_draws_show(name, phase):
    expected = share_touched(OLD, AMENDMENTS[name], phase)
    error = math.sqrt(max(expected * (1 - expected), 1 / NUM_KEYS) / NUM_KEYS)
    assert drawn_share(OLD, AMENDMENTS[name], phase) == pytest.approx(expected, abs=4 * error)


def test_share_touched_known_cases_are_exact():
    assert share_touched(OLD, AMENDMENTS["added"], "revision") == pytest.approx(2.5 / (TOTAL + 2.5))
    assert share_touched(OLD, AMENDMENTS["removed"], "revision") == pytest.approx(SIXTEEN[5].weight / TOTAL)
    assert share_touched(OLD, AMENDMENTS["reworded"], "comparison") == pytest.approx(SIXTEEN[2].weight / TOTAL)
    assert share_touched(OLD, amended("p-2", comparison_question="?"), "revision") == 0


def test_share_touched_same_weights_in_other_units_is_nothing():
    scaled = constitution(*(p.model_copy(update={"weight": 8 * p.weight}) for p in SIXTEEN))
    assert share_touched(OLD, scaled, "revision") == pytest.approx(0, abs=1e-12)
    assert diff_constitutions(OLD, scaled).phase("revision").moved  # weights are part of the slice all the same


def test_share_touched_phase_that_nobody_serves_is_all_or_nothing():
    silent = constitution(make("only", critique_request=None, revision_request=None))
    assert share_touched(OLD, silent, "revision") == 1
    assert share_touched(silent, silent, "revision") == 0 and slice_of(silent, "revision") is None
    assert diff_constitutions(OLD, silent).phase("revision").num_principles == (16, 0)


def test_chains_touched_sixteen_principles_four_rounds():
    even = constitution(*(make(f"p-{i}") for i in range(16)))
    reworded = constitution(*(make(f"p-{i}", **({"revision_request": "?"} if i == 3 else {})) for i in range(16)))
    phase = diff_constitutions(even, reworded).phase("revision")
    assert phase.touched == phase.reworded == pytest.approx(1 / 16)
    assert phase.chains_touched(4) == pytest.approx(1 - (15 / 16) ** 4)
    assert phase.chains_touched(1) == phase.rows_touched(1) == pytest.approx(1 / 16)
    by_round = [1 - (15 / 16) ** number for number in (1, 2, 3, 4)]
    assert phase.rows_touched(4) == pytest.approx(sum(by_round) / 4)


def test_diff_same_content_in_another_order_is_same():
    diff = diff_constitutions(OLD, constitution(*reversed(SIXTEEN)))
    assert diff.same and not diff.changed and not any(phase.moved for phase in diff.phases)


def test_diff_every_kind_of_change_is_named():
    changes = {
        "p-1": {"comparison_question": "Other?"},
        "p-2": {"critique_request": "Other."},
        "p-3": {"weight": 9.0},
        "p-4": {"cluster": "elsewhere"},
        "p-5": {"enabled": False},
        "p-6": {"source": "a book", "priority": 2, "hard_constraint": True},
    }
    principles = [p.model_copy(update=changes.get(p.id, {})) for p in without("p-15")]
    diff = diff_constitutions(OLD, constitution(*principles, make("new"), title="A title"))
    assert [p.id for p in diff.added] == ["new"] and [p.id for p in diff.removed] == ["p-15"]
    assert [c.id for c in diff.reworded("comparison")] == ["p-1"] and [c.id for c in diff.reworded("revision")] == [
        "p-2"
    ]
    groups = (diff.reweighted, diff.reclustered, diff.switched)
    assert [[c.id for c in group] for group in groups] == [["p-3"], ["p-4"], ["p-5"]]
    other = next(c for c in diff.changed if c.id == "p-6")
    assert [f.name for f in other.fields] == ["source", "priority", "hard_constraint"]
    assert [(f.name, f.old, f.new) for f in diff.header] == [("title", None, "A title")]
    assert not diff.same


def test_diff_settings_that_no_phase_reads_move_no_slice():
    diff = diff_constitutions(OLD, amended("p-4", cluster="elsewhere", source="a book"))
    assert not diff.same and not any(phase.moved or phase.touched for phase in diff.phases)


def test_diff_one_phase_reworded_moves_only_that_slice():
    diff = diff_constitutions(OLD, amended("p-4", comparison_question="?"))
    assert [phase.moved for phase in diff.phases] == [False, True]
    text = diff.reworded("comparison")[0].fields[0]
    assert (text.old, text.new) == ("comparison_question of p-4", "?")


def test_diff_renamed_principle_is_one_and_moves_draws():
    diff = diff_constitutions(OLD, AMENDMENTS["renamed heavier"])
    assert not diff.added and not diff.removed
    (change,) = diff.renamed
    assert (change.old_id, change.id) == ("p-5", "zz")
    assert [(f.name, f.old, f.new) for f in change.fields] == [("weight", SIXTEEN[5].weight, 7.0)]
    assert diff.phase("revision").moved and diff.phase("revision").touched > 0


def test_diff_two_alike_of_which_one_is_renamed_pairs_each_once():
    twins = [make("a"), make("b", **make("a").model_dump(exclude={"id"}))]
    diff = diff_constitutions(
        constitution(*twins, make("z")), constitution(make("z"), *[twins[0].model_copy(update={"id": "c"})])
    )
    assert [(c.old_id, c.id) for c in diff.renamed] == [("a", "c")] and [p.id for p in diff.removed] == ["b"]
