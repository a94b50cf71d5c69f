"""Constitutions: what loads, how a mistake is told, what the hashes cover, what the draws keep."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constitutions import Constitution, ConstitutionError, Principle, draw, load_constitution

ROOT = Path(__file__).parents[1]
PAPER = ROOT.parent / "shared" / "data" / "anthropic-cai" / "prompts"
KEYS = [(f"prompt-{i}", i % 4) for i in range(4000)]


def make_principle(name: str, **changes) -> Principle:
    texts = {
        "critique_request": "What is wrong?",
        "revision_request": "Mend it.",
        "comparison_question": "Which?",
    }
    return Principle(**({"id": name} | texts | changes))


def make_constitution(*principles: Principle, **changes) -> Constitution:
    return Constitution(**({"id": "c", "principles": principles} | changes))


KNOWN_DRAWS = ["p-5", "p-15", "p-15", "p-10", "p-10", "p-1", "p-6", "p-14"]
SIXTEEN = [make_principle(f"p-{i}") for i in range(16)]


def drawn(principles) -> list[str]:
    return [draw(principles, 0, *key).id for key in KEYS]


def moved(before, after) -> list[tuple[str, str]]:
    return [(a, b) for a, b in zip(drawn(before), drawn(after), strict=True) if a != b]


def refused(tmp_path: Path, text: str | bytes) -> list[str]:
    """The problems in order, without the path of the file."""
    file = tmp_path / "bad.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConstitutionError) as caught:
        load_constitution(file)
    return str(caught.value).replace(f"{file}:", "").split("\n")


GOOD = """\
# a comment
id: small
principles:
  - id: harm-1
    weight: 2
    critique_request: >
      What could
      hurt somebody?
    revision_request: Make it safe.
  - id: tone-1
    cluster: tone
    comparison_question: |
      Which is kinder?
"""


def load_text(tmp_path: Path, text: str) -> Constitution:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    return load_constitution(file)


# --- reading


def test_load_good_file_gives_stripped_texts_and_phases(tmp_path):
    constitution = load_text(tmp_path, GOOD)
    assert [p.id for p in constitution.revision_principles()] == ["harm-1"]
    assert [p.id for p in constitution.comparison_principles()] == ["tone-1"]
    assert constitution.principles[0].critique_request == "What could hurt somebody?"
    assert constitution.principles[1].comparison_question == "Which is kinder?"
    assert constitution.principles[0].weight == 2.0


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("weight: 2", "weight: -1", "5: principles[0].weight: -1, expected a number above 0"),
        ("weight: 2", "weight: 0", "5: principles[0].weight: 0, expected a number above 0"),
        ("weight: 2", "weight: .inf", "5: principles[0].weight: .inf, expected a number above 0"),
        ("weight: 2", "weight: .nan", "5: principles[0].weight: .nan, expected a number above 0"),
        ("weight: 2", "weight: '2'", "5: principles[0].weight: 2, expected a number above 0"),
        ("weight: 2", "enabled: 'no'", "5: principles[0].enabled: no, expected true or false"),
        ("weight: 2", "priority: 1.5", "5: principles[0].priority: 1.5, expected a whole number"),
        ("weight: 2", "wieght: 2", "5: principles[0].wieght: unknown key; did you mean weight?"),
        ("id: small", "id: small\nowner: base", "3: owner: unknown key; known are extends, id"),
        ("id: small", "title: small", "2: id: missing"),
        ("id: tone-1", "id: harm-1", "10: principles[1].id: 'harm-1' is also the id of principles[0]"),
        ("id: tone-1", "id: Tone 1", "10: principles[1].id: Tone 1, expected lower-case letters"),
        ("id: tone-1", "id: no", "10: principles[1].id: no, expected text (in quotes"),
        ("cluster: tone", "cluster: [tone]", "11: principles[1].cluster: a list, expected text"),
        ("cluster: tone", "cluster: ' '", "11: principles[1].cluster: empty, expected text"),
        ("weight: 2", "weight: 2\n    weight: 3", "6: principles[0].weight: given twice, first on line 5"),
        ("revision_request: Make it safe.", "priority: 1", "critique_request without revision_request"),
        ("comparison_question: |", "source: |", "10: principles[1]: serves no phase, expected"),
    ],
)
def test_load_one_mistake_names_line_field_and_expectation(tmp_path, old, new, problem):
    problems = refused(tmp_path, GOOD.replace(old, new, 1))
    assert len(problems) == 1
    assert problem in problems[0]


def test_load_several_mistakes_are_told_at_once_in_the_order_of_the_file(tmp_path):
    text = GOOD.replace("weight: 2", "weight: -1").replace("cluster: tone", "clustr: tone\n    clustr: tone")
    problems = refused(tmp_path, text)
    assert [problem.split(":")[0] for problem in problems] == ["5", "12", "12"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "1: empty, expected a mapping"),
        ("# only a comment\n", "1: empty, expected a mapping"),
        ("- a\n- b\n", "1: list at the top, expected a mapping"),
        ("id: a\nprinciples: []\n", "2: principles: none of 0 is enabled"),
        ("id: a\nprinciples: all\n", "2: principles: all, expected a list"),
        ("id: a\nprinciples:\n  - none\n", "3: principles[0]: none, expected a mapping"),
        ("id: a\nprinciples:\n  - {id: x, enabled: false, comparison_question: q}\n", "none of 1 is enabled"),
        ("id: a\n\ttitle: b\n", "2: not YAML:"),
        ("id: a\n---\nid: b\n", "2: not YAML:"),
        (
            "id: a\ntitle: !!python/object/apply:os.system [ls]\n",
            "2: not YAML: could not determine a constructor",
        ),
        (b"id: a\ntitle: caf\xe9\n", "2: a byte that is not UTF-8"),
        ("id: a\ntitle: bell\a\n", "2: not YAML: special characters are not allowed"),
        ("id: a\n1: b\nprinciples: [{id: x, comparison_question: q}]\n", "2: [1]: Keys should be strings"),
        ("id: a\nprinciples: &p [*p]\n", "2: principles"),
    ],
)
def test_load_broken_file_is_refused_with_its_line(tmp_path, text, problem):
    assert problem in refused(tmp_path, text)[0]


def test_load_missing_file_names_it_and_the_known_ones(tmp_path):
    with pytest.raises(ConstitutionError, match=r"nowhere\.yaml: no such file; .*harmlessness\.yaml"):
        load_constitution(tmp_path / "nowhere.yaml")


def test_load_date_is_text(tmp_path):
    assert load_text(tmp_path, GOOD + "    source: 2023-05-09\n").principles[1].source == "2023-05-09"


@pytest.mark.parametrize(
    ("principle", "call", "phase"),
    [
        (make_principle("a", comparison_question=None), Constitution.comparison_principles, "comparison"),
        (make_principle("a", comparison_question=None), Constitution.comparison_slice, "comparison"),
        (
            make_principle("a", critique_request=None, revision_request=None),
            Constitution.revision_principles,
            "revision",
        ),
        (
            make_principle("a", critique_request=None, revision_request=None),
            Constitution.revision_slice,
            "revision",
        ),
    ],
)
def test_phase_without_usable_principle_is_an_error_that_says_which(principle, call, phase):
    with pytest.raises(ConstitutionError, match=f"no principle for the {phase} phase among 1"):
        call(make_constitution(principle))


def test_disabled_principle_takes_no_part():
    constitution = make_constitution(make_principle("a"), make_principle("b", enabled=False))
    assert [p.id for p in constitution.revision_principles()] == ["a"]
    assert [p.id for p in constitution.comparison_principles()] == ["a"]


# --- hashes


def test_hashes_ignore_order_comments_and_folding_of_the_file(tmp_path):
    one = load_text(tmp_path, GOOD)
    head, first, second = re.split(r"(?=  - id)", GOOD)
    other = load_text(
        tmp_path, head.replace("# a comment", "") + second + first.replace("could\n      hurt", "could hurt")
    )
    assert [p.id for p in other.principles] == ["tone-1", "harm-1"]
    assert (other.hash, other.revision_slice(), other.comparison_slice()) == (
        one.hash,
        one.revision_slice(),
        one.comparison_slice(),
    )


@pytest.mark.parametrize(
    ("change", "revision_moves", "comparison_moves"),
    [
        ({"cluster": "other"}, False, False),
        ({"source": "other"}, False, False),
        ({"priority": 3}, False, False),
        ({"critique_request": "Other?"}, True, False),
        ({"revision_request": "Other."}, True, False),
        ({"comparison_question": "Other?"}, False, True),
        ({"weight": 2.0}, True, True),
        ({"enabled": False}, True, True),
        ({"id": "other"}, True, True),
    ],
)
def test_slice_changes_exactly_with_what_its_phase_uses(change, revision_moves, comparison_moves):
    before = make_constitution(make_principle("a"), make_principle("b"))
    after = make_constitution(
        make_principle("a"), make_principle("b", **{k: v for k, v in change.items() if k != "id"})
    )
    if "id" in change:
        after = make_constitution(make_principle("a"), make_principle(change["id"]))
    assert (before.revision_slice() != after.revision_slice()) is revision_moves
    assert (before.comparison_slice() != after.comparison_slice()) is comparison_moves
    assert before.hash != after.hash


def test_slices_ignore_a_principle_added_disabled():
    before = make_constitution(make_principle("a"))
    after = make_constitution(make_principle("a"), make_principle("b", enabled=False))
    assert before.revision_slice() == after.revision_slice()
    assert before.hash != after.hash


def test_principle_hash_covers_its_texts_only():
    principle = make_principle("a")
    assert principle.hash == make_principle("b", cluster="x", weight=3.0, source="y").hash
    reworded = make_principle("a", comparison_question="Other?")
    assert principle.hash != reworded.hash
    assert principle.revision_hash == reworded.revision_hash
    assert principle.comparison_hash != reworded.comparison_hash


def test_texts_moved_between_fields_do_not_hash_alike():
    assert (
        make_principle("a", critique_request="x", revision_request="y").hash
        != make_principle("a", critique_request="y", revision_request="x").hash
    )


# --- draws


def test_draw_known_values_stay_as_they_are():
    # A change here moves every draw of every stored run: it needs a new code_version in the stages.
    assert [draw(SIXTEEN, 0, "revise", f"prompt-{i}", 1).id for i in range(8)] == KNOWN_DRAWS


def test_draw_is_the_same_under_any_hash_seed():
    program = (
        "import json; from constitutions import Principle, draw;"
        "ps = [Principle(id=f'p-{i}', comparison_question='?') for i in range(16)];"
        "print(json.dumps([draw(ps, 7, 'label', f'k{i}', i % 4).id for i in range(200)]))"
    )

    def run(hash_seed: str) -> list[str]:
        environment = os.environ | {"PYTHONHASHSEED": hash_seed}
        command = [sys.executable, "-c", program]
        output = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=True).stdout
        return json.loads(output)

    assert run("1") == run("2") == run("12345")


def test_draw_adding_one_to_sixteen_moves_a_seventeenth_and_only_to_it():
    changes = moved(SIXTEEN, [*SIXTEEN, make_principle("new")])
    assert {after for _, after in changes} == {"new"}
    assert len(changes) / len(KEYS) == pytest.approx(1 / 17, abs=0.012)


def test_draw_removing_one_moves_only_its_own():
    changes = moved(SIXTEEN, SIXTEEN[1:])
    assert {before for before, _ in changes} == {"p-0"}
    assert len(changes) == drawn(SIXTEEN).count("p-0")


def test_draw_rewording_moves_none():
    reworded = [make_principle(p.id, critique_request="New?", cluster="new", source="new") for p in SIXTEEN]
    assert moved(SIXTEEN, reworded) == []


def test_draw_order_of_principles_is_irrelevant():
    assert moved(SIXTEEN, SIXTEEN[::-1]) == []


def test_draw_follows_weights():
    principles = [
        make_principle("a", weight=1.0),
        make_principle("b", weight=3.0),
        make_principle("c", weight=4.0),
    ]
    counts = Counter(drawn(principles))
    assert [counts[name] / len(KEYS) for name in "abc"] == pytest.approx([1 / 8, 3 / 8, 4 / 8], abs=0.03)


def test_draw_raising_a_weight_moves_draws_only_towards_it():
    heavier = [make_principle("p-0", weight=3.0), *SIXTEEN[1:]]
    assert {after for _, after in moved(SIXTEEN, heavier)} == {"p-0"}


def test_draw_scaling_all_weights_moves_none():
    assert moved(SIXTEEN, [make_principle(p.id, weight=2.0) for p in SIXTEEN]) == []


def test_draw_reaches_every_principle_evenly():
    counts = Counter(drawn(SIXTEEN))
    assert len(counts) == 16
    assert max(counts.values()) / min(counts.values()) < 1.6


def test_draw_rounds_and_seeds_are_independent():
    first = [draw(SIXTEEN, 0, f"k{i}", 1).id for i in range(4000)]
    for other in (
        [draw(SIXTEEN, 0, f"k{i}", 2).id for i in range(4000)],
        [draw(SIXTEEN, 1, f"k{i}", 1).id for i in range(4000)],
    ):
        agreement = sum(a == b for a, b in zip(first, other, strict=True)) / 4000
        assert agreement == pytest.approx(1 / 16, abs=0.015)


@given(st.text(), st.text(), st.integers())
def test_draw_parts_of_the_key_do_not_run_together(left, right, seed):
    many = [make_principle(f"p-{i}") for i in range(3)]
    assert draw(many, seed, left, right) in many
    assert draw(many, seed, left, right) == draw(many[::-1], seed, left, right)


def test_draw_joined_and_split_keys_differ():
    joined = [draw(SIXTEEN, 0, f"a{i}", "b").id for i in range(200)]
    split = [draw(SIXTEEN, 0, "a", f"{i}b").id for i in range(200)]
    assert joined != split


def test_draw_from_nothing_is_an_error():
    with pytest.raises(ValueError, match="no principles"):
        draw([], 0, "k")


@pytest.mark.parametrize("part", [1.5, None, True, ("a",)])
def test_draw_key_without_stable_form_is_an_error(part):
    with pytest.raises(TypeError, match="expected text or an integer"):
        draw(SIXTEEN, 0, part)


# --- what is shipped


def test_harmlessness_has_sixteen_principles_for_both_phases_in_eight_clusters():
    constitution = load_constitution(ROOT / "constitutions" / "harmlessness.yaml")
    assert len(constitution.revision_principles()) == len(constitution.comparison_principles()) == 16
    clusters = {p.cluster for p in constitution.principles}
    assert clusters == {"harm", "law", "bias", "privacy", "age", "tone", "honesty", "helpfulness"}
    assert constitution.description
    assert constitution.bias_note


def test_harmlessness_questions_favour_no_option():
    for principle in load_constitution(ROOT / "constitutions" / "harmlessness.yaml").principles:
        words = words_of(principle.comparison_question)
        assert not {"first", "second", "former", "latter", "b", "1", "2"} & set(words)
        assert "(A)" not in principle.comparison_question


@pytest.mark.skipif(not PAPER.exists(), reason="the paper's prompt files are not beside the checkout")
def test_harmlessness_shares_no_five_words_in_a_row_with_the_papers_prompts():
    theirs = {run for file in PAPER.glob("*.json") for run in runs_of_five(file.read_text())}
    for principle in load_constitution(ROOT / "constitutions" / "harmlessness.yaml").principles:
        for text in (principle.critique_request, principle.revision_request, principle.comparison_question):
            assert not theirs & set(runs_of_five(text))


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-z0-9']+", text.lower())


def runs_of_five(text: str) -> list[tuple[str, ...]]:
    words = words_of(text)
    return [tuple(words[i : i + 5]) for i in range(len(words) - 4)]


@pytest.mark.parametrize("file", sorted((ROOT / "constitutions").glob("*.yaml")), ids=lambda file: file.stem)
def test_every_shipped_constitution_serves_a_phase(file):
    constitution = load_constitution(file)
    assert any(p.enabled for p in constitution.principles)


def test_constitutions_import_neither_tasks_nor_flows():
    program = "import sys, constitutions; print([m for m in sys.modules if m.split('.')[0] in ('tasks', 'flows')])"
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.strip() == b"[]"
