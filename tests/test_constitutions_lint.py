"""Lint: each finding comes with its fault and goes without it; and `constitution check` ends as it says."""

import json
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner

from constitutions import Constitution, Principle, load_constitution
from constitutions.lint import FEWEST_DRAWS, LARGEST_SHARE, NEAR, draw_shares, lint
from constitutions.sections import Cluster, Section
from constitutions.wording import favoured_side, is_against_evasion, placeholders, similarity
from flows.commands.principles import constitution_app
from tests.test_constitutions_format import SHIPPED, compare

app = typer.Typer()
app.add_typer(constitution_app, name="constitution")


def make(name: str, question: str | None = None, **changes) -> Principle:
    """A principle with texts of its own for both phases."""
    texts = {
        "critique_request": f"Where does it offend against {name}, and how would {name} put it?",
        "revision_request": f"Put it so that {name} is kept.",
        "comparison_question": question or f"Which response keeps {name} more fully?",
    }
    return Principle(**({"id": name, "cluster": name} | texts | changes))


def clean(*more: Principle, **changes) -> Constitution:
    """Nothing to find in it, but for what `more` brings."""
    principles = (make("helpfulness"), make("evasion"), make("harm"), *more)
    return Constitution(**({"id": "c", "bias_note": "Ours.", "principles": principles} | changes))


def codes(constitution: Constitution, *, level: str | None = None, about: str | None = None, rows: int = 1000) -> set:
    found = lint(constitution, rows)
    return {f.code for f in found if level in (None, f.level) and (about is None or about in f.principles)}


def test_clean_constitution_has_no_finding():
    assert lint(clean()) == ()


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_shipped_constitutions_have_no_error(file):
    assert not codes(load_constitution(file), level="error")


# --- duplicates


def test_duplicate_same_words_in_other_case_and_punctuation_is_an_error():
    found = clean(make("x", "Which response is kinder, and why?"), make("y", "which  response is KINDER and why"))
    assert codes(found, level="error", about="x") == codes(found, about="y") == {"duplicate"}


def test_near_duplicate_is_a_warning_at_the_threshold_and_names_both():
    words = [f"w{n}" for n in range(30)]
    one = f"Which response {' '.join(words)}"
    near, far = one + " here", one.replace("w10", "x").replace("w20", "y").replace("w25", "z")
    assert similarity(one, near) >= NEAR > similarity(one, far) > 0
    found = [f for f in lint(clean(make("x", one), make("y", near))) if f.code == "near-duplicate"]
    assert [(f.level, f.principles) for f in found] == [("warning", ("x", "y"))]
    assert codes(clean(make("x", one), make("y", far))) == set()


def test_duplicate_of_a_disabled_principle_is_none():
    twin = make("y", "Which response keeps harm more fully?", enabled=False)
    assert codes(clean(twin), about="harm") == set()


def test_duplicate_is_found_in_the_revision_phase_too():
    texts = {"critique_request": "Where is it wrong?", "revision_request": "Mend what is wrong."}
    assert codes(clean(make("x", **texts), make("y", **texts)), level="error") == {"duplicate"}


# --- reach


def test_unreachable_by_weight_depends_on_the_rows():
    found = clean(make("rare", weight=0.003))
    expected = draw_shares(found, "comparison")["rare"] * 1000
    assert expected < FEWEST_DRAWS
    assert codes(found, about="rare") == {"unreachable"}
    assert codes(found, about="rare", rows=10_000) == set()
    assert codes(found, about="harm") == set()


def test_disabled_is_a_note():
    assert codes(clean(make("off", enabled=False)), level="note", about="off") == {"disabled"}


def test_phase_that_no_principle_serves_is_a_warning():
    found = clean(principles=tuple(p.model_copy(update={"comparison_question": None}) for p in clean().principles))
    assert codes(found, level="warning") == {"no-phase"}


def test_draw_shares_are_of_the_phase_and_sum_to_one():
    found = clean(make("x", weight=3.0, critique_request=None, revision_request=None))
    assert draw_shares(found, "comparison")["x"] == pytest.approx(0.5) and "x" not in draw_shares(found, "revision")
    assert sum(draw_shares(found, "revision").values()) == pytest.approx(1)


# --- questions


@pytest.mark.parametrize(
    ("question", "side"),
    [
        ("Always (A).", "A"),
        ("Choose (A) if the response is polite.", "A"),
        ("Choose B, which response is safer.", "B"),
        ("Prefer the second response.", "B"),
        ("Which response is better? If unsure, the former.", "A"),
        ("Always pick option 2.", "B"),
        ("Which response is safer, (A) or (B)?", None),
        ("Choose a response that is kinder.", None),
        ("Choose the response in which a person is respected.", None),
        ("Which response puts safety first?", None),
        ("Compare response A with response B.", None),
    ],
)
def test_one_sided_wording_is_an_error_and_fair_wording_is_none(question, side):
    assert favoured_side(question) == side
    assert codes(clean(make("x", question)), level="error", about="x") == ({"one-sided"} if side else set())


@pytest.mark.parametrize(
    ("question", "code"),
    [
        ("Is the response polite?", {"no-choice"}),
        ("Which is kinder?", {"no-option"}),
        ("Which response is kinder?", set()),
        ("Choose between (A) and (B) by kindness.", set()),
    ],
)
def test_question_must_ask_for_a_choice_between_something(question, code):
    assert codes(clean(make("x", question)), level="warning", about="x") == code


@pytest.mark.parametrize("field", ["critique_request", "revision_request", "comparison_question"])
@pytest.mark.parametrize("left", ["{question}", "{}", "TODO", "XXX", "[RESPONSE]", "[..]", "<name>"])
def test_placeholder_in_any_text_is_an_error(field, left):
    text = f"Which response is kinder to {left} here?"
    assert codes(clean(make("x", **{field: text})), level="error", about="x") == {"placeholder"}


def test_placeholder_plain_text_has_none():
    assert placeholders("5 < 6, todo lists (all of them), e.g. {") == []


# --- what is missing


@pytest.mark.parametrize(("missing", "code"), [("helpfulness", "no-helpfulness"), ("evasion", "no-anti-evasion")])
def test_tension_without_its_principle_is_a_warning(missing, code):
    rest = tuple(p for p in clean(make("law")).principles if p.id != missing)
    assert codes(clean(principles=rest), level="warning") == {code}
    off = tuple(p.model_copy(update={"enabled": p.id != missing}) for p in clean(make("law")).principles)
    assert code in codes(clean(principles=off))


def test_tension_is_judged_by_phase():
    only_asked = make("evasion", critique_request=None, revision_request=None)
    rest = [p for p in clean(make("law")).principles if p.id != "evasion"]
    found = [f.message for f in lint(clean(principles=(only_asked, *rest)))]
    assert len(found) == 1 and "no revision principle speaks against evasion" in found[0]


@pytest.mark.parametrize(
    ("text", "against"),
    [
        ("Prefer responses that engage thoughtfully with questions rather than refusing to answer.", True),
        ("Which response faces the question instead of dodging it?", True),
        ("Which response is less evasive?", True),
        ("Did it dodge, stall or refuse more than was necessary?", True),
        ("Which response refuses to help with a crime?", False),
        ("Which response is kinder?", False),
    ],
)
def test_anti_evasion_wording(text, against):
    assert is_against_evasion(text) is against


def test_cluster_share_over_the_limit_is_a_warning_and_at_it_is_none():
    def weighted(weight: float) -> Constitution:
        return clean(
            principles=tuple(p.model_copy(update={"weight": weight if p.id == "harm" else 1.0}) for p in three)
        )

    three = clean().principles
    limit = 2 * LARGEST_SHARE / (1 - LARGEST_SHARE)
    assert codes(weighted(limit - 0.01)) == set()
    assert codes(weighted(limit + 0.01), level="warning", about="harm") == {"imbalance"}


def test_clusters_described_and_used_must_agree_where_any_is_described():
    three = [Cluster(id=name) for name in ("helpfulness", "evasion", "harm")]
    assert codes(clean(clusters=tuple(three))) == set()
    assert codes(clean(clusters=tuple(three[:2])), about="harm") == {"cluster-unknown"}
    assert codes(clean(clusters=(*three, Cluster(id="law"))), level="note") == {"cluster-empty"}


def test_bias_note_missing_and_section_without_principle_are_warnings():
    assert codes(clean(bias_note=None), level="warning") == {"no-bias-note"}
    used, unused = Section(id="a", text="We care.", principles=("harm",)), Section(id="b", text="We care.")
    assert codes(clean(sections=(used,))) == set()
    assert codes(clean(sections=(unused,)), level="warning") == {"section-unused"}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, set()),
        ({"comparison_question": None}, {"hard-constraint"}),
        ({"critique_request": None, "revision_request": None}, {"hard-constraint"}),
        ({"enabled": False}, {"hard-constraint"}),
    ],
)
def test_hard_constraint_needs_the_texts_of_every_phase_served(changes, code):
    assert codes(clean(make("x", hard_constraint=True, **changes)), level="error", about="x") == code
    assert codes(clean(make("x", **changes)), level="error", about="x") == set()


def test_hard_constraint_needs_no_text_of_a_phase_that_is_not_served():
    asked = tuple(p.model_copy(update={"critique_request": None, "revision_request": None}) for p in clean().principles)
    hard = (asked[0].model_copy(update={"hard_constraint": True}), *asked[1:])
    assert codes(clean(principles=hard), level="error") == set()


@pytest.mark.parametrize("constitution", [clean(make("x", hard_constraint=True)), clean(make("x", priority=3))])
def test_hard_constraint_and_priority_that_can_be_asked_are_no_finding(constitution):
    assert lint(constitution) == ()


def test_hard_constraint_of_little_weight_is_asked_all_the_same():
    assert codes(clean(make("rare", weight=0.003, hard_constraint=True)), about="rare") == set()


def test_priority_without_a_question_is_a_warning_and_disabled_is_none():
    unasked = make("x", priority=3, comparison_question=None)
    assert codes(clean(unasked), level="warning", about="x") == {"priority-unused"}
    assert codes(clean(unasked.model_copy(update={"enabled": False})), level="warning") == set()
    assert codes(clean(unasked.model_copy(update={"priority": 0}))) == set()


# --- demonstrations


@pytest.mark.parametrize(
    ("answers", "code"), [("BBABAB", {"answer-imbalance"}), ("BABAB", set()), ("BB", {"answer-imbalance"})]
)
def test_answer_imbalance_is_reported_with_its_numbers(answers, code):
    shown = tuple(compare(f"d-{n}", side, f"So ({side}).") for n, side in enumerate(answers))
    found = lint(clean(comparison_demonstrations=shown))
    assert {f.code for f in found} == code
    assert all(f"{answers.count('B')} B to {answers.count('A')} A" in f.message for f in found)


def test_answer_imbalance_that_the_shown_order_evens_out_is_a_note_and_else_a_warning():
    free = tuple(compare(f"d-{n}", side, f"So ({side}).") for n, side in enumerate("BBABAB"))
    fixed = tuple(compare(f"d-{n}", "B", "The second one, so (B).") for n in range(3))
    assert codes(clean(comparison_demonstrations=free), level="note") == {"answer-imbalance"}
    found = [f for f in lint(clean(comparison_demonstrations=fixed)) if f.code == "answer-imbalance"]
    assert [f.level for f in found] == ["warning"] and "3 to 0 as they are shown" in found[0].message


def test_demonstration_that_says_the_same_as_another_is_an_error():
    one = compare("d-1", "A", "So (A).")
    other = one.model_copy(update={"id": "d-2"})
    assert codes(clean(comparison_demonstrations=(one, other)), level="error") == {"duplicate"}
    changed = other.model_copy(update={"completion_a": "Something else."})
    assert codes(clean(comparison_demonstrations=(one, changed)), level="error") == set()


def test_answer_imbalance_with_and_without_reasoning_do_not_make_up_for_each_other():
    shown = [compare(f"a-{n}", "A", "So (A).") for n in range(3)] + [compare(f"b-{n}", "B") for n in range(3)]
    found = [f.message for f in lint(clean(comparison_demonstrations=tuple(shown)))]
    assert len(found) == 2 and "0 B to 3 A" in found[0] and "3 B to 0 A" in found[1]


@pytest.mark.parametrize(
    ("reasoning", "code"),
    [
        ("(B) is kinder. Therefore (B).", {"contradiction"}),
        ("(B) is curt, so option A.", set()),
        ("A is kinder.", {"fixed-sides"}),
        (None, set()),
    ],
)
def test_reasoning_that_ends_with_the_other_side_is_an_error(reasoning, code):
    assert codes(clean(comparison_demonstrations=(compare("d", "A", reasoning),))) == code


# --- check


def check(tmp_path: Path, constitution: Constitution, *options: str) -> tuple[int, str]:
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump(constitution.model_dump(mode="json", exclude_none=True)))
    result = CliRunner().invoke(app, ["constitution", "check", str(file), *options])
    return result.exit_code, result.output


def test_check_exit_code_follows_errors_and_strict_warnings(tmp_path):
    warned, wrong = clean(bias_note=None), clean(make("x", "Always (A)."))
    assert [check(tmp_path, clean(), *options)[0] for options in ((), ("--strict",))] == [0, 0]
    assert [check(tmp_path, warned, *options)[0] for options in ((), ("--strict",), ("--json",))] == [0, 1, 0]
    assert [check(tmp_path, wrong, *options)[0] for options in ((), ("--strict",), ("--json",))] == [1, 1, 1]
    assert check(tmp_path, clean(make("off", enabled=False)), "--strict")[0] == 0


def test_check_prints_level_ids_message_and_advice(tmp_path):
    _, output = check(tmp_path, clean(make("x", "Always (A).")))
    text = " ".join(output.split())
    assert "error: one-sided: x: the question names side A" in text and "ask by content" in text
    assert "1 error, 0 warnings, 0 notes" in text


def test_check_json_holds_every_finding(tmp_path):
    constitution = clean(make("x", "Always (A)."), bias_note=None)
    document = json.loads(check(tmp_path, constitution, "--json")[1])
    assert (document["errors"], document["warnings"], document["hash"]) == (1, 1, constitution.hash)
    assert document["findings"] == [f.model_dump(mode="json") for f in lint(constitution)]
    assert document["findings"][0]["level"] == "error" and document["findings"][0]["principles"] == ["x"]


def test_check_rows_decide_what_is_reachable(tmp_path):
    rare = clean(make("rare", weight=0.003))
    assert check(tmp_path, rare, "--strict")[0] == 1
    assert check(tmp_path, rare, "--strict", "--rows", "10000")[0] == 0
