"""The format beyond principles: clusters, sections, demonstrations, extending, JSON Schema; no old hash moves."""

import json
from collections import Counter
from pathlib import Path

import jsonschema
import pytest
import yaml

from constitutions import (
    ComparisonDemonstration,
    Constitution,
    ConstitutionError,
    Principle,
    in_seeded_order,
    load_constitution,
)
from constitutions.diff import diff_constitutions
from constitutions.load import load_with_origins
from constitutions.schema import FILE, schema, schema_text

FOLDER = Path(__file__).parents[1] / "constitutions"
SHIPPED = sorted(FOLDER.glob("*.yaml"))
PINNED = {  # whole content, revision slice, comparison slice: a change here makes every stored row of it stale
    "harmlessness": ("a695a106901f", "b868a55382ca", "9df2471e7796"),
    "micro": ("c0690a6c996e", "4f2e6126227b", "e6f265e1866e"),
    "micro-tone": ("b65d1c24bcdf", "5bda19031868", "ebc5863cddc5"),
}

BASE = """\
id: base
title: The base
bias_note: Ours.
clusters:
  - {id: care, title: Care}
principles:
  - {id: a, cluster: care, critique_request: Ca, revision_request: Ra., comparison_question: Which response is a}
  - {id: b, weight: 2, comparison_question: Which response is b}
  - {id: c, comparison_question: Which response is c}
sections:
  - {id: preface, text: We care., principles: [a]}
revision_demonstrations:
  - {id: r-1, prompt: Tea, completion: No., critique_request: C, critique: Curt.,
     revision_request: R., revision: Yes.}
comparison_demonstrations:
  - {id: d-1, conversation: Tea, completion_a: No., completion_b: Yes., answer: B, reasoning: (A) is curt; so (B).}
"""
DOMAIN = """\
id: domain
extends: base.yaml
principles:
  - {id: new, comparison_question: Which response is new}
  - {id: b, enabled: false}
  - {id: c, comparison_question: Which response is different}
"""


def load(tmp_path: Path, base: str = BASE, **files: str) -> Constitution:
    for name, text in {"base": base, **files}.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    return load_constitution(tmp_path / f"{[*files, 'base'][0]}.yaml")


def refused(tmp_path: Path, **files: str) -> str:
    with pytest.raises(ConstitutionError) as caught:
        load(tmp_path, **files)
    return str(caught.value).replace(f"{tmp_path}/", "")


def compare(name: str, answer: str = "A", reasoning: str | None = None, **changes) -> ComparisonDemonstration:
    sides = {"completion_a": f"one {name}", "completion_b": f"two {name}"}
    fields = {"id": name, "conversation": "Tea", "answer": answer, "reasoning": reasoning} | sides | changes
    return ComparisonDemonstration.model_validate(fields)


# --- hashes


@pytest.mark.parametrize("name", PINNED)
def test_shipped_hashes_and_slices_are_as_before_the_format_grew(name):
    found = load_constitution(FOLDER / f"{name}.yaml")
    assert (found.hash[:12], found.revision_slice()[:12], found.comparison_slice()[:12]) == PINNED[name]


def test_dump_without_new_lists_is_as_it_was_and_with_them_reads_back(tmp_path):
    plain = Constitution(id="c", principles=(Principle(id="a", comparison_question="?"),))
    assert list(plain.model_dump()) == ["id", "title", "description", "bias_note", "principles"]
    full = load(tmp_path)
    assert Constitution.model_validate(json.loads(json.dumps(full.model_dump(mode="json")))) == full


@pytest.mark.parametrize(
    ("old", "new", "revision_moves", "comparison_moves"),
    [
        ("title: Care", "title: Kindness", False, False),
        ("text: We care.", "text: We mind.", False, False),
        ("id: r-1", "id: r-2", False, False),
        ("critique: Curt.", "critique: Rude.", True, False),
        ("revision: Yes.", "revision: Gladly.", True, False),
        ("prompt: Tea", "prompt: Milk", True, False),
        ("conversation: Tea", "conversation: Milk", False, True),
        ("answer: B", "answer: A", False, True),
        ("so (B).", "thus (B).", False, True),
        ("id: d-1", "id: d-1, source: a book", False, False),
        ("id: d-1", "id: d-1, question: Which response is kinder", False, True),
    ],
)
def test_slices_move_with_what_their_phase_is_shown(tmp_path, old, new, revision_moves, comparison_moves):
    before, after = load(tmp_path), load(tmp_path, base=BASE.replace(old, new))
    assert BASE.replace(old, new) != BASE and before.hash != after.hash
    assert (before.revision_slice() != after.revision_slice()) is revision_moves
    assert (before.comparison_slice() != after.comparison_slice()) is comparison_moves
    diff = diff_constitutions(before, after)
    assert [phase.touched for phase in diff.phases] == [float(revision_moves), float(comparison_moves)]
    assert diff.header, "an amendment of anything is shown"


def test_slice_order_of_demonstrations_counts():
    one, two = compare("d-1"), compare("d-2")
    principle = Principle(id="a", comparison_question="?")
    slices = {
        Constitution(id="c", principles=(principle,), comparison_demonstrations=shown).comparison_slice()
        for shown in ((), (one,), (two,), (one, two), (two, one))
    }
    assert len(slices) == 5


# --- what is refused


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("principles: [a]", "principles: [a, z]", "sections[0].principles[1]: 'z' is no principle"),
        ("answer: B", "answer: C", "comparison_demonstrations[0].answer: C, expected 'A' or 'B'"),
        ("completion_a: No.", "completion_a: Yes.", "completion_a and completion_b are the same"),
        ("conversation: Tea", "conversation: []", "comparison_demonstrations[0].conversation"),
        ("conversation: Tea", "conversation: [{role: assistant, content: x}]", "role: assistant, expected user"),
        (
            "prompt: Tea",
            "prompt: [{role: user, content: x}, {role: assistant, content: y}]",
            "prompt ends with the assistant",
        ),
        ("critique: Curt.", "critic: Curt.", "revision_demonstrations[0].critic: unknown key; did you mean critique"),
        ("title: Care", "titel: Care", "clusters[0].titel: unknown key; did you mean title?"),
        ("sections:", "section:", "section: unknown key; did you mean sections?"),
        ("  - {id: care, title: Care}", "  - {id: care}\n  - {id: care}", "clusters[1].id: 'care' is also"),
    ],
)
def test_load_mistake_in_a_new_part_names_its_place(tmp_path, old, new, problem):
    message = refused(tmp_path, base=BASE.replace(old, new, 1))
    assert problem in message and message.startswith("base.yaml:")
    line = int(message.split(":")[1])
    assert 1 < line <= BASE.count("\n") + 1


# --- sides


def test_swapped_exchanges_everything_that_names_a_side_and_twice_is_as_before():
    shown = compare("d", "B", "(A) is curt. Option A fails; response B greets. Therefore (B).", question="(A) or (B)?")
    swapped = shown.swapped()
    assert (swapped.completion_a, swapped.completion_b, swapped.answer) == (shown.completion_b, shown.completion_a, "A")
    assert swapped.reasoning == "(B) is curt. Option B fails; response A greets. Therefore (A)."
    assert swapped.question == "(B) or (A)?" and swapped.chosen == shown.chosen
    assert swapped.swapped() == shown


@pytest.mark.parametrize(
    "reasoning",
    ["A is better.", "So B", "The first response is kind.", "I prefer the latter.", "Options A and B differ."],
)
def test_swapped_refuses_a_side_that_it_cannot_exchange(reasoning):
    with pytest.raises(ConstitutionError, match="cannot be exchanged"):
        compare("d", "A", reasoning).swapped()


@pytest.mark.parametrize("answers", ["BBABAB", "AAAAAA", "BBBBB", "A", "AB", ""])
def test_seeded_order_balances_the_answers_and_changes_no_judgement(answers):
    shown = [compare(f"d-{n}", side, f"So ({side}).") for n, side in enumerate(answers)]
    for seed in range(20):
        fair = in_seeded_order(shown, seed, "label")
        counts = Counter(d.answer for d in fair)
        assert abs(counts["A"] - counts["B"]) <= 1
        assert [(d.id, d.chosen, d.rejected) for d in fair] == [(d.id, d.chosen, d.rejected) for d in shown]
        assert all(d.reasoning == f"So ({d.answer})." for d in fair)
        assert fair == in_seeded_order(shown, seed, "label")


def test_seeded_order_seeds_and_keys_differ_and_every_pattern_of_sides_comes_up():
    shown = [compare(f"d-{n}", "A") for n in range(4)]
    by_seed = Counter("".join(d.answer for d in in_seeded_order(shown, seed)) for seed in range(300))
    assert len(by_seed) == 6 and min(by_seed.values()) > 20
    by_key = {"".join(d.answer for d in in_seeded_order(shown, 0, key)) for key in range(100)}
    assert len(by_key) == 6
    odd = Counter(Counter(d.answer for d in in_seeded_order(shown[:3], seed))["A"] for seed in range(200))
    assert set(odd) == {1, 2} and min(odd.values()) > 60


def test_seeded_order_leaves_fixed_ones_and_evens_them_out():
    fixed = [compare(f"f-{n}", "B", "B is better.") for n in range(2)]
    free = [compare(f"d-{n}", "B") for n in range(2)]
    assert [d.answer for d in in_seeded_order([*fixed, *free], 3)] == ["B", "B", "A", "A"]


# --- extending


def test_extends_adds_replaces_takes_out_and_inherits(tmp_path):
    found = load(tmp_path, domain=DOMAIN)
    assert [p.id for p in found.principles] == ["a", "b", "c", "new"]
    assert [p.id for p in found.comparison_principles()] == ["a", "c", "new"]
    by_id = {p.id: p for p in found.principles}
    assert by_id["c"].comparison_question == "Which response is different"
    assert (by_id["b"].weight, by_id["b"].comparison_question) == (2.0, "Which response is b")
    assert (found.id, found.title, found.bias_note) == ("domain", "The base", "Ours.")
    assert [d.id for d in found.comparison_demonstrations] == ["d-1"] and found.sections[0].id == "preface"


def test_extends_result_is_the_same_as_written_out(tmp_path):
    found = load(tmp_path, domain=DOMAIN)
    written = Constitution.model_validate(yaml.safe_load(yaml.safe_dump(found.model_dump(mode="json"))))
    assert written.hash == found.hash and written.comparison_slice() == found.comparison_slice()


def test_extends_replacing_with_texts_inherits_no_text_and_settings_alone_keep_them(tmp_path):
    text = "id: domain\nextends: base.yaml\nprinciples:\n  - {id: a, comparison_question: Which response is A-like}\n"
    assert load(tmp_path, domain=text).principles[0].critique_request is None
    text = "id: domain\nextends: base.yaml\nprinciples:\n  - {id: a, weight: 0.5, priority: 3}\n"
    first = load(tmp_path, domain=text).principles[0]
    assert (first.weight, first.priority, first.cluster, first.critique_request) == (0.5, 3, "care", "Ca")


def test_extends_without_own_principles_is_the_base_under_another_name(tmp_path):
    found = load(tmp_path, domain="id: domain\nextends: base.yaml\n")
    assert found.comparison_slice() == load_constitution(tmp_path / "base.yaml").comparison_slice()


def test_extends_demonstrations_and_clusters_are_added_and_replaced_by_id(tmp_path):
    shown = "{id: d-1, conversation: Milk, completion_a: x, completion_b: y, answer: A}"
    more = "{id: d-2, conversation: Jam, completion_a: x, completion_b: y, answer: A}"
    text = f"{DOMAIN}clusters: [{{id: extra}}]\ncomparison_demonstrations:\n  - {more}\n  - {shown}\n"
    found = load(tmp_path, domain=text)
    assert [d.conversation[0].content for d in found.comparison_demonstrations] == ["Milk", "Jam"]
    assert [cluster.id for cluster in found.clusters] == ["care", "extra"]


def test_extends_origins_say_whose_texts_they_are(tmp_path):
    load(tmp_path, domain=DOMAIN)
    (tmp_path / "third.yaml").write_text("id: third\nextends: domain.yaml\nprinciples: [{id: a, weight: 3}]\n")
    loaded = load_with_origins(tmp_path / "third.yaml")
    assert {name: file.name for name, file in loaded.origins.items()} == {
        "a": "base.yaml",
        "b": "base.yaml",
        "c": "domain.yaml",
        "new": "domain.yaml",
    }
    assert loaded.changed == {"a", "b"}
    assert [file.name for file in loaded.files] == ["third.yaml", "domain.yaml", "base.yaml"]


def test_extends_finds_shipped_ones_by_name(tmp_path):
    text = "id: domain\nextends: harmlessness.yaml\n"
    assert len(load(tmp_path, domain=text).principles) == 16


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"domain": "id: d\nextends: nowhere.yaml\n"},
            "domain.yaml:2: extends: no file nowhere.yaml; known are anti-evasion.yaml, base",
        ),
        ({"domain": "id: d\nextends: domain.yaml\n"}, "domain.yaml -> domain.yaml is a circle"),
        (
            {"domain": "id: d\nextends: x.yaml\n", "x": "id: x\nextends: y.yaml\n", "y": "id: y\nextends: x.yaml\n"},
            "y.yaml:2: extends: domain.yaml -> x.yaml -> y.yaml -> x.yaml is a circle",
        ),
        ({"domain": "id: d\nextends: ../base.yaml\n"}, "extends: ../base.yaml is outside of"),
        ({"domain": "id: d\nextends: /etc/hostname\n"}, "extends: /etc/hostname is outside of"),
        ({"domain": "id: d\nextends: 3\n"}, "domain.yaml:2: extends: 3, expected the name of a YAML file"),
        ({"domain": DOMAIN.replace("id: b,", "id: bb,")}, "domain.yaml:5: principles[1]: serves no phase"),
        ({"domain": DOMAIN.replace("enabled: false", "weight: -1")}, "domain.yaml:5: principles[1].weight: -1"),
        ({"domain": DOMAIN.replace("enabled: false", "wight: 1")}, "domain.yaml:5: principles[1].wight: unknown key"),
        ({"domain": DOMAIN.replace("id: c,", "id: new,")}, "domain.yaml:6: principles[2].id: 'new' is also the id"),
        (
            {"domain": "id: d\nextends: base.yaml\nprinciples: none\n"},
            "domain.yaml:3: principles: none, expected a list",
        ),
        ({"domain": "extends: base.yaml\n"}, "domain.yaml:1: id: missing"),
        ({"domain": DOMAIN, "base": "id: base\n"}, "base.yaml:1: principles: missing"),
    ],
)
def test_extends_mistake_names_file_line_and_what_to_do(tmp_path, files, message):
    assert message in refused(tmp_path, **files)


def test_extends_link_that_leads_out_of_the_folder_is_refused(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "real.yaml").write_text(BASE)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "base.yaml").symlink_to(tmp_path / "out" / "real.yaml")
    (tmp_path / "in" / "domain.yaml").write_text(DOMAIN)
    with pytest.raises(ConstitutionError, match=r"base\.yaml"):
        load_constitution(tmp_path / "in" / "domain.yaml")


# --- JSON Schema


def test_schema_file_is_up_to_date():
    assert FILE.read_text(encoding="utf-8") == schema_text(), "run: python -m constitutions.schema"


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_schema_accepts_what_is_shipped_and_editors_find_it(file):
    assert file.read_text().startswith(f"# yaml-language-server: $schema={FILE.name}\n")
    jsonschema.validate(yaml.safe_load(file.read_text()), schema())


@pytest.mark.parametrize("text", [BASE, DOMAIN])
def test_schema_accepts_every_part_of_the_format(text):
    jsonschema.validate(yaml.safe_load(text), schema())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("id: base", "name: base"),
        ("weight: 2", "weight: 0"),
        ("weight: 2", "wight: 2"),
        ("answer: B", "answer: C"),
        ("principles:\n", "rules:\n"),
        ("prompt: Tea", "prompt: 3"),
    ],
)
def test_schema_refuses_what_loading_refuses(old, new):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(BASE.replace(old, new, 1)), schema())
