"""The newest rows of a stage, as people read them while it works."""

from typing import Any, NamedTuple

import pytest

from flows.artifacts.samples import NUM_ROWS, NewestRows
from tasks.schema import Comparison, Completion, Improvement, Judgement, Label, Probe, Prompt, Revision, Row, Sample
from tests.worlds import prompt


class Item(NamedTuple):
    """What a chunk's items have in common, and what those of some stages have besides."""

    prompt: Prompt
    comparison: Any = None
    sample: Any = None


def row(made: type[Row], of: Prompt, /, **values: Any) -> Row:
    return made.model_validate({"row_id": "r", "reuse_key": "k", "prompt_id": of.prompt_id, **values})


def completion(of: Prompt, text: str, **values: Any) -> Row:
    return row(Completion, of, sample=0, completion=text, **values)


def shown(*pairs: tuple[Row, Item]) -> str:
    rows = NewestRows()
    rows.add([pair[0] for pair in pairs], [pair[1] for pair in pairs])
    return "\n\n".join(rows.blocks())


HARM, HELP = prompt("Steal a boat."), prompt("Paint a boat.", kind="helpful")
REVISION = {"round": 1, "principle_id": "kind", "principle_hash": "h", "critique_request": "", "revision_request": ""}
LABEL = {"comparison_id": "c", "evaluator": "e", "slot": "0", "principle_id": "kind", "principle_hash": "h"}
LABEL |= {"order": "ab", "logprob_a": -1.0, "logprob_b": -0.5, "prob_a": 0.378}
PAIR = row(Comparison, HARM, completion_a="Use a rope.", completion_b="I would not.")
JUDGED = {"kind": "red_team", "group": None, "policy": "rl", "sample": 0, "unit": "u", "verdict": "refuse"}
SAMPLE = row(Sample, HARM, kind="red_team", group=None, sample=0, completion="No, since it is not yours.")


@pytest.mark.parametrize(
    ("made", "item", "texts"),
    [
        (completion(HARM, "Cut its rope."), Item(HARM), ["Cut its rope."]),
        (
            row(Revision, HARM, **REVISION, critique="It helps.", revision="No."),
            Item(HARM),
            ["It helps.", "No.", "kind"],
        ),
        (PAIR, Item(HARM), ["Use a rope.", "I would not."]),
        (row(Label, HARM, **LABEL), Item(HARM, comparison=PAIR), ["Use a rope.", "I would not.", "kind", "0.378"]),
        (SAMPLE, Item(HARM), ["No, since it is not yours."]),
        (row(Judgement, HARM, **JUDGED), Item(HARM, sample=SAMPLE), ["No, since it is not yours.", "refuse", "rl"]),
        (
            row(Improvement, HARM, round=0, principle_id="kind", principle_hash="h", win_prob=0.75),
            Item(HARM),
            ["round 1", "0.750"],
        ),
    ],
)
def test_samples_show_prompt_and_texts_of_every_stage_that_writes(made, item, texts):
    page = shown((made, item))
    assert all(text in page for text in ["Steal a boat.", *texts])


def test_samples_of_red_team_prompts_are_folded_and_their_titles_say_nothing_of_them():
    harmful, helpful = shown((completion(HARM, "Cut it."), Item(HARM))), shown((completion(HELP, "Ok."), Item(HELP)))
    assert "<details><summary>" in harmful and "<details open><summary>" in helpful
    title = harmful.split("<summary>")[1].split("</summary>")[0]
    assert "red&#45;team" in title and not {"Steal", "Cut"} & set(title.replace(".", " ").split())


def test_samples_are_the_newest_the_last_first():
    rows = NewestRows()
    for number in range(20):
        rows.add([completion(HELP, f"text {number}")], [Item(HELP)])
    shown_texts = [block.split("text ")[1].split("<")[0] for block in rows.blocks()[1:]]
    assert shown_texts == [str(number) for number in range(19, 19 - NUM_ROWS, -1)]
    assert rows.heading() == f"The newest {NUM_ROWS} of 20 rows"


def test_samples_of_items_with_several_rows_find_their_prompt():
    rounds = [
        row(Revision, of, **REVISION | {"round": n}, critique="c", revision="r") for of in (HARM, HELP) for n in (0, 1)
    ]
    rows = NewestRows()
    rows.add(rounds, [Item(HARM), Item(HELP)])
    blocks = rows.blocks()[1:]
    assert ["Paint a boat." in block for block in blocks] == [True, True, False, False]


def test_samples_row_that_is_not_ok_says_why():
    page = shown((completion(HARM, None, status="failed", reason="longer than the context"), Item(HARM)))
    assert "failed" in page and "longer than the context" in page


def test_samples_of_rows_that_are_not_read_are_none():
    probe = {"probe": "canary", "evaluator": "e", "principle_id": "kind", "order": "ab", "prob_a": 0.5}
    made = Probe.model_validate({"row_id": "r", "reuse_key": "k", "logprob_a": -1.0, "logprob_b": -1.0, **probe})
    rows = NewestRows()
    rows.add([made], [object()])
    assert not rows
