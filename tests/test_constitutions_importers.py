"""Importers: what comes in, that nothing is lost, and that the paper's files come back to the byte."""

import copy
import json
from collections import Counter
from pathlib import Path

import pytest
import typer
from hypothesis import example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from constitutions import Constitution, ConstitutionError, Principle, load_constitution
from constitutions.importers import export_anthropic, import_constitution, yaml_text
from constitutions.importers.naming import readable_id, unique_ids
from constitutions.lint import lint
from flows.commands.principles import constitution_app
from tests.constitution_files import (
    COMPARED,
    CRITIQUE,
    CRITIQUE_SHOWN,
    LLM_SWARM,
    PAPER,
    QUESTIONS,
    REASONED,
    write_json,
    write_paper,
)

PUBLISHED = Path(__file__).parents[2] / "shared" / "data" / "anthropic-cai" / "prompts"
app = typer.Typer()
app.add_typer(constitution_app, name="constitution")


def solon(*arguments: str | Path, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["constitution", *map(str, arguments)])
    if isinstance(result.exception, ValueError):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


def from_text(tmp_path: Path, text: str, name: str = "list.txt", format: str = "auto") -> Constitution:
    file = tmp_path / name
    file.write_text(text)
    return import_constitution([file], format).constitution


# --- the paper's files


def test_paper_files_through_yaml_come_back_to_the_byte(tmp_path):
    folder = write_paper(tmp_path / "paper")
    solon("import", folder, "--output", tmp_path / "paper.yaml")
    solon("export", tmp_path / "paper.yaml", "--output", tmp_path / "back")
    assert sorted(file.name for file in (tmp_path / "back").iterdir()) == sorted(PAPER)
    for name in PAPER:
        assert (tmp_path / "back" / name).read_bytes() == (folder / name).read_bytes(), name


def test_paper_every_text_is_there_without_its_frame(tmp_path):
    found = import_constitution([write_paper(tmp_path / "paper")]).constitution
    assert len(found.revision_principles()) == 12 and len(found.comparison_principles()) == 3
    first = found.principles[0]
    assert (first.critique_request, first.revision_request) == ("Where is it curt?", "Make it less curt.")
    assert first.comparison_question is None and first.source == f"{CRITIQUE}#harmful0"
    assert found.principles[13].comparison_question == "Which response is clearer, with {braces}?"
    shown = found.revision_demonstrations[1]
    turns = [(turn.role, turn.content) for turn in shown.prompt]
    assert turns == [("user", "Tea?"), ("assistant", "Human: no colon trick"), ("user", "Now?")]
    assert (shown.completion, shown.critique) == ("No.", "It is curt: {no} greeting.")
    assert shown.revision == "Good day! Two: 1) tea,\n\n2) milk."


def test_paper_comparisons_keep_which_is_better_on_either_side(tmp_path):
    found = import_constitution([write_paper(tmp_path / "paper")]).constitution
    plain = [d for d in found.comparison_demonstrations if d.reasoning is None]
    assert [(d.chosen, d.rejected) for d in plain] == [("Yes, gladly.", "No."), ("A drop.", "Never.")]
    assert Counter(d.answer for d in plain) == {"A": 1, "B": 1}
    thought = [d for d in found.comparison_demonstrations if d.reasoning is not None]
    assert [d.answer for d in thought] == ["B", "A", "B", "B"]
    assert [turn.content for turn in thought[2].conversation] == ["Tea?", "Why?", "Thirst."]
    assert all(d.question is None for d in found.comparison_demonstrations)


def test_paper_export_of_swapped_demonstrations_differs_and_swapped_again_comes_back(tmp_path):
    found = import_constitution([write_paper(tmp_path / "paper")]).constitution
    swapped = found.model_copy(
        update={"comparison_demonstrations": tuple(d.swapped() for d in found.comparison_demonstrations)}
    )
    again = swapped.model_copy(
        update={"comparison_demonstrations": tuple(d.swapped() for d in swapped.comparison_demonstrations)}
    )
    assert export_anthropic(swapped)[COMPARED] == export_anthropic(found)[COMPARED]
    assert export_anthropic(swapped)[REASONED] != export_anthropic(found)[REASONED]
    assert export_anthropic(again) == export_anthropic(found)


@pytest.mark.skipif(not PUBLISHED.exists(), reason="the paper's prompt files are not beside the checkout")
def test_published_five_files_round_trip_with_their_numbers(tmp_path):
    solon("import", PUBLISHED, "--output", tmp_path / "paper.yaml")
    found = load_constitution(tmp_path / "paper.yaml")
    numbers = Counter((item.source or "").split("#")[0] for item in found.principles)
    assert numbers == {CRITIQUE: 16, QUESTIONS: 16}
    assert len(found.revision_demonstrations) == 5 and len(found.comparison_demonstrations) == 11
    thought = [d for d in found.comparison_demonstrations if d.reasoning]
    assert Counter(d.answer for d in thought) == {"B": 4, "A": 2}
    assert all(d.fixed_because is None for d in thought)
    assert any(f.code == "answer-imbalance" and "4 B to 2 A" in f.message for f in lint(found))
    for name, data in export_anthropic(found).items():
        assert data == (PUBLISHED / name).read_bytes(), name


def test_paper_some_of_the_files_are_enough_and_the_others_are_named(tmp_path):
    folder = write_paper(tmp_path / "paper")
    for name in (CRITIQUE_SHOWN, COMPARED, REASONED, CRITIQUE):
        (folder / name).unlink()
    found = import_constitution([folder])
    assert len(found.constitution.principles) == 3
    assert {f"not given: {CRITIQUE}", f"not given: {REASONED}"} <= set(found.notes)


def changed(name: str, change) -> dict:
    content = copy.deepcopy(PAPER[name])
    change(content)
    return {name: content}


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (CRITIQUE, lambda c: c["harmful1"].update(weight=2), "harmful1: unknown key weight, expected prompt"),
        (CRITIQUE, lambda c: c["harmful1"].pop("edit_request"), "harmful1: no edit_request"),
        (CRITIQUE, lambda c: c["harmful1"]["prompt"].append("x"), r"harmful1.prompt: a list of 2, expected a list of"),
        (CRITIQUE, lambda c: c["harmful1"].update(edit_request="Mend it."), "harmful1.edit_request: 'Mend it.'"),
        (QUESTIONS, lambda c: c.__setitem__(1, "\nWhich?"), r"\[1\]: '\\nWhich\?', expected '\\n', the text, ' Opt"),
        (QUESTIONS, lambda c: c.append("\n  Which? Options:"), r"\[3\]"),
        (COMPARED, lambda c: c[1].update(note="x"), r"\[1\]: unknown key note"),
        (COMPARED, lambda c: c[1]["incorrects"].append("x"), r"\[1\].incorrects: a list of 2"),
        (REASONED, lambda c: c[0].update(answer="B"), r"\[0\]: unknown key answer"),
        (REASONED, lambda c: c[0].update(prompt=c[0]["prompt"].replace("\n{}\n", "\n")), "0 times {}"),
        (REASONED, lambda c: c[0].update(prompt=c[0]["prompt"] + " or not"), r"\[0\].prompt"),
        (CRITIQUE_SHOWN, lambda c: c.__setitem__(0, c[0].replace("RevisionRequest", "Request")), r"\[0\]: other parts"),
    ],
)
def test_paper_what_is_not_known_is_an_error_that_names_it(tmp_path, name, change, message):
    folder = write_paper(tmp_path / "paper", **changed(name, change))
    with pytest.raises(ConstitutionError, match=message):
        import_constitution([folder])


def test_paper_other_spacing_of_the_same_json_is_said(tmp_path):
    folder = write_paper(tmp_path / "paper")
    (folder / QUESTIONS).write_text(json.dumps(PAPER[QUESTIONS], indent=1))
    assert f"{QUESTIONS} comes back with other spacing or escapes" in import_constitution([folder]).notes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": 2.0}, "a setting such as weight"),
        ({"enabled": False}, "a setting such as weight"),
        ({"cluster": "tone"}, "a setting such as weight"),
        ({"source": "solon"}, "source solon, expected"),
        ({"comparison_question": "Which response?"}, "texts for both phases"),
        ({"source": f"{QUESTIONS}#0"}, "revision text with source"),
    ],
)
def test_export_what_the_files_cannot_hold_is_an_error(tmp_path, change, message):
    found = import_constitution([write_paper(tmp_path / "paper")]).constitution
    first = found.principles[0].model_copy(update=change)
    amended = found.model_copy(update={"principles": (first, *found.principles[1:])})
    with pytest.raises(ConstitutionError, match=message):
        export_anthropic(amended)


def test_export_a_turn_that_the_frame_has_no_place_for_is_not_lost_silently(tmp_path):
    found = import_constitution([write_paper(tmp_path / "paper")]).constitution
    shown = found.revision_demonstrations[1]
    assert shown.framing is not None
    amended = found.model_copy(
        update={"revision_demonstrations": (shown.model_copy(update={"prompt": shown.prompt[:1]}),)}
    )
    with pytest.raises(ConstitutionError, match="framing: places turn0, turn1"):
        export_anthropic(amended)


# --- ids


def test_ids_are_stable_readable_and_unique():
    texts = ["Is it misogynistic or gender biased?", "Is it kind?", "Is it kind?", "该回复是否有害?"]
    ids = unique_ids(texts)
    assert ids[0].startswith("misogynistic-gender-biased-") and len(set(ids)) == 4
    assert ids[2] == f"{ids[1]}-2" and ids[3].startswith("principle-")
    assert unique_ids(texts[::-1])[::-1][0] == ids[0] == readable_id(texts[0])
    assert readable_id("Is it kind?") != readable_id("Is it kind!")


@given(st.lists(st.text(min_size=1), max_size=30))
def test_ids_any_texts_give_as_many_ids_that_load(texts):
    ids = unique_ids(texts)
    assert len(set(ids)) == len(texts)
    for name in ids:
        Principle(id=name, comparison_question="Which?")


# --- llm-swarm


def test_llm_swarm_keeps_every_pair_and_chat(tmp_path):
    found = import_constitution([write_json(tmp_path / "c.json", LLM_SWARM)])
    assert found.format == "llm-swarm"
    pairs = [(p.critique_request, p.revision_request) for p in found.constitution.principles]
    assert pairs == [("Is it {rude}?", "Make it polite."), ("Is it false?", "Make it true.")]
    one, two = found.constitution.revision_demonstrations
    assert [turn.content for turn in two.prompt] == ["Hi", "Hello", "Tea?"] and two.completion == "No."
    assert (one.critique_request, one.critique) == ("Is it {rude}?", "It is.")
    assert (one.revision_request, one.revision) == ("Make it polite.", "Not now, thanks.")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(note="x"), "unknown key note, expected constitutions, system_chat"),
        (lambda c: c["constitutions"][1].update(weight=1), r"constitutions\[1\]: unknown key weight"),
        (lambda c: c["constitutions"][1].pop("critic"), r"constitutions\[1\]: no critic"),
        (lambda c: c["constitutions"].clear(), "constitutions: an empty list"),
        (lambda c: c["system_chat"][0].pop(), r"system_chat\[0\]: 5 turns"),
        (lambda c: c["system_chat"][0].insert(0, {"role": "system", "content": "x"}), r"\[0\]\[0\].role: 'system'"),
        (lambda c: c["system_chat"][0][2].update(name="x"), r"system_chat\[0\]\[2\]: unknown key name"),
    ],
)
def test_llm_swarm_what_is_not_known_is_an_error(tmp_path, change, message):
    content = copy.deepcopy(LLM_SWARM)
    change(content)
    with pytest.raises(ConstitutionError, match=message):
        import_constitution([write_json(tmp_path / "c.json", content)])


def test_json_key_given_twice_is_an_error(tmp_path):
    (tmp_path / "c.json").write_text('{"constitutions": [], "constitutions": []}')
    with pytest.raises(ConstitutionError, match="key constitutions twice"):
        import_constitution([tmp_path / "c.json"])


# --- lines


def test_lines_questions_as_they_stand_and_statements_for_both_phases(tmp_path):
    text = "# our list\nWhich response is kinder?\n\nChoose the calmer reply.\nBe {brave}: say so.\n"
    found = import_constitution([write_lines(tmp_path, text)])
    one, two, three = found.constitution.principles
    assert (one.comparison_question, two.comparison_question) == (
        "Which response is kinder?",
        "Choose the calmer reply.",
    )
    assert one.critique_request is two.critique_request is None
    for asked in (three.critique_request, three.revision_request, three.comparison_question):
        assert "Be {brave}: say so." in asked
    assert [p.source for p in found.constitution.principles] == ["list.txt#2", "list.txt#4", "list.txt#5"]
    assert any("1 comment line" in note for note in found.notes)


def write_lines(tmp_path: Path, text: str) -> Path:
    (tmp_path / "list.txt").write_text(text)
    return tmp_path / "list.txt"


def test_lines_without_any_is_an_error(tmp_path):
    with pytest.raises(ConstitutionError, match="no line with a principle"):
        from_text(tmp_path, "\n# nothing\n")


@pytest.mark.parametrize(
    ("name", "text", "format", "message"),
    [
        ("c.json", "{", "auto", "c.json:1: not JSON"),
        ("c.json", "[]", "auto", "none of the paper's files by its shape"),
        ("c.json", '{"a": 1}', "auto", "none of the paper's files by its shape"),
        ("c.json", "[]", "csv", "'csv', expected auto or anthropic or llm-swarm or lines"),
        ("c.txt", "Which?", "anthropic", "not JSON"),
    ],
)
def test_import_unreadable_is_an_error_that_says_what(tmp_path, name, text, format, message):
    with pytest.raises(ConstitutionError, match=message):
        from_text(tmp_path, text, name, format)


# --- writing


awkward = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), min_size=1).filter(lambda t: t.strip())


@settings(deadline=None)
@example(["a\x85b\nc", "a\u2028b", "a\r\nb", "a\x07b", "\ufeffa"], "- a: #b")
@given(st.lists(awkward, min_size=1, max_size=4), awkward)
def test_yaml_text_reads_back_as_the_same_constitution(tmp_path_factory, texts, note):
    principles = tuple(Principle(id=f"p-{n}", comparison_question=text) for n, text in enumerate(texts))
    constitution = Constitution(id="c", bias_note=note, principles=principles)
    file = tmp_path_factory.mktemp("yaml") / "c.yaml"
    file.write_text(yaml_text(constitution, file.parent, ("one\nline",)), encoding="utf-8", newline="")
    assert load_constitution(file) == constitution


def test_import_leaves_a_file_that_is_there_alone(tmp_path):
    file = write_lines(tmp_path, "Which response is kinder?\n")
    with pytest.raises(ConstitutionError, match="is there already"):
        solon("import", file, "--output", file)
    assert file.read_text() == "Which response is kinder?\n"


def test_import_id_comes_from_the_new_file_unless_given(tmp_path):
    file = write_lines(tmp_path, "Which response is kinder?\n")
    solon("import", file, "--output", tmp_path / "Public Input.yaml")
    solon("import", file, "--output", tmp_path / "b.yaml", "--id", "mine")
    assert load_constitution(tmp_path / "Public Input.yaml").id == "public-input"
    assert load_constitution(tmp_path / "b.yaml").id == "mine"
