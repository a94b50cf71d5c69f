"""HH transcripts: turns come out as they were written, and every pair is accounted for."""

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.readers import ReadError, read_preferences, read_prompts
from tasks.readers.transcripts import TranscriptError, parse_transcript
from tasks.schema import Message

HH = Path(__file__).parents[2] / "shared" / "data" / "hh-rlhf" / "harmless-base-dev.jsonl.gz"


def turns_of(text: str) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in parse_transcript(text)]


def render(turns: list[str]) -> str:
    return "".join(f"\n\n{'Assistant' if i % 2 else 'Human'}: {turn}" for i, turn in enumerate(turns))


def write_jsonl(path: Path, *rows: object) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def pair(tmp_path: Path, chosen: str, rejected: str):
    [parsed] = read_preferences(write_jsonl(tmp_path / "hh.jsonl", {"chosen": chosen, "rejected": rejected}))
    return parsed


# --- turns


@pytest.mark.parametrize(
    ("text", "turns"),
    [
        ("\n\nHuman: hi", [("user", "hi")]),
        ("Human: hi\n\nAssistant: ho", [("user", "hi"), ("assistant", "ho")]),
        ("\n\n\n Human: hi", [("user", "hi")]),
        (
            "\n\nHuman: one\n\ntwo\n\n\nthree\n\nAssistant: a: b: c",
            [("user", "one\n\ntwo\n\n\nthree"), ("assistant", "a: b: c")],
        ),
        ("\n\nHuman: say Human: and Assistant: twice", [("user", "say Human: and Assistant: twice")]),
        (
            "\n\nHuman: poem\nAssistant: he said\nHuman: she said",
            [("user", "poem\nAssistant: he said\nHuman: she said")],
        ),
        ("\n\nHuman: Human: hi", [("user", "Human: hi")]),
        (
            "\n\nHuman: a\n\nhuman: b\n\nHumans: c\n\nHuman : d",
            [("user", "a\n\nhuman: b\n\nHumans: c\n\nHuman : d")],
        ),
        ("\n\nHuman: a\n\nHuman: b", [("user", "a\n\nHuman: b")]),
        (
            "\n\nHuman: a\n\nAssistant: b\n\nAssistant: c\n\nHuman: d",
            [("user", "a"), ("assistant", "b\n\nAssistant: c"), ("user", "d")],
        ),
        (
            "\n\nHuman: quote\n\nAssistant: this",
            [("user", "quote"), ("assistant", "this")],
        ),  # no reader can tell
        ("\n\nHuman:\n\nAssistant: ", [("user", ""), ("assistant", "")]),
        ("\n\nHuman:no space\n\nAssistant:  two", [("user", "no space"), ("assistant", " two")]),
        (
            "\n\nHuman: ends in a line\n\n\nAssistant: x\n",
            [("user", "ends in a line\n"), ("assistant", "x\n")],
        ),
        (
            "\n\nHuman: \u2028\x85\x0b\r\n\n\nAssistant: é🙂",
            [("user", "\u2028\x85\x0b\r\n"), ("assistant", "é🙂")],
        ),
    ],
)
def test_transcript_turns_come_out_as_written(text, turns):
    assert turns_of(text) == turns


@pytest.mark.parametrize(
    "text", ["", "hi", "\n\n", "before\n\nHuman: hi", "\nsystem\n\nHuman: hi", "\n\nAssistant: I first"]
)
def test_transcript_without_a_human_start_is_refused(text):
    with pytest.raises(TranscriptError):
        parse_transcript(text)


# Texts full of what splits and what must not; only the other speaker's marker after a blank line is left out.
PIECES = st.sampled_from(
    ["\n", "\n\n", " ", ": ", "Human:", "Assistant:", "Human: ", "\r", "\u2028", "é", "word", "{}", "\\n"]
)
TEXTS = st.lists(PIECES | st.text(max_size=5), max_size=8).map("".join)


def is_plain_turn(index: int, text: str) -> bool:
    other = "Human" if index % 2 else "Assistant"
    return f"\n\n{other}:" not in f" {text}"


@given(st.lists(TEXTS, min_size=1, max_size=6).filter(lambda turns: all(map(is_plain_turn, range(len(turns)), turns))))
def test_transcript_rendered_and_parsed_gives_the_same_turns(turns):
    expected = [("assistant" if i % 2 else "user", turn) for i, turn in enumerate(turns)]
    assert turns_of(render(turns)) == expected


@given(st.text())
def test_transcript_of_any_text_alternates_and_loses_nothing_or_is_refused(text):
    try:
        turns = turns_of("\n\nHuman:" + text)
    except TranscriptError:
        pytest.fail("starts with a human turn")
    assert [role for role, _ in turns] == ["user", "assistant"] * (len(turns) // 2) + ["user"] * (len(turns) % 2)
    assert sum(len(turn) for _, turn in turns) <= len(text)


# --- preferences


def test_preference_multi_turn_shares_the_conversation_and_keeps_both_ends(tmp_path):
    shared = ["hi", "a: b\n\nc", "and: now?\n\nHuman nature"]
    parsed = pair(tmp_path, render([*shared, "good\n\n- x: y"]), render([*shared, "bad"]))
    assert parsed.status == "ok"
    assert [message.content for message in parsed.prompt] == shared
    assert (parsed.chosen, parsed.rejected) == ("good\n\n- x: y", "bad")
    assert parsed.source == "hh.jsonl:1"
    assert parsed.reason is None
    assert parsed.raw is None


@pytest.mark.parametrize(
    ("chosen", "rejected", "reason"),
    [
        (["a", ""], ["a", "c"], "the completion in chosen is empty"),
        (["a", "b"], ["a", " \n"], "the completion in rejected is empty"),
        (["a", ""], ["a", " "], "the completion in chosen and in rejected is empty"),
        (["a", "b"], ["a", "b"], "chosen and rejected are the same"),
        (["", "b"], ["", "c"], "turn 1 (user) is empty"),
        (["a", " ", "c", "d"], ["a", " ", "c", "e"], "turn 2 (assistant) is empty"),
    ],
)
def test_preference_with_nothing_to_compare_is_skipped_and_kept_whole(tmp_path, chosen, rejected, reason):
    parsed = pair(tmp_path, render(chosen), render(rejected))
    assert (parsed.status, parsed.reason) == ("skipped", reason)
    assert (parsed.chosen, parsed.rejected) == (chosen[-1], rejected[-1])
    assert json.loads(parsed.raw) == {"chosen": render(chosen), "rejected": render(rejected)}


@pytest.mark.parametrize(
    ("chosen", "rejected", "reason", "shared"),
    [
        (
            ["a", "b", "c", "d"],
            ["a", "x", "c", "e"],
            "chosen and rejected part at turn 2 of 4, expected only at",
            1,
        ),
        (["a", "b", "c", "d"], ["a", "x"], "chosen and rejected part at turn 2 of 4 and 2, expected", 1),
        (["a", "b", "c", "d"], ["a", "b"], "chosen and rejected part at turn 3 of 4 and 2, expected", 2),
        (["a", "b"], ["x", "c"], "chosen and rejected part at turn 1 of 2", 0),
        (["a", "b", "c"], ["a", "b"], "chosen: ends with a human turn, expected a completion", 2),
        (["a", "b"], ["a"], "rejected: ends with a human turn, expected a completion", 1),
    ],
)
def test_preference_not_between_two_completions_is_unparsable_with_what_is_shared(
    tmp_path, chosen, rejected, reason, shared
):
    parsed = pair(tmp_path, render(chosen), render(rejected))
    assert parsed.status == "unparsable"
    assert reason in parsed.reason
    assert (parsed.chosen, parsed.rejected) == (None, None)
    assert [message.content for message in parsed.prompt] == chosen[:shared]
    assert parsed.raw


def test_preference_rows_that_cannot_be_read_are_kept_in_place_with_reason_and_text(tmp_path):
    good = json.dumps({"chosen": render(["a", "b"]), "rejected": render(["a", "c"])})
    lines = [
        good.encode(),
        b'{"chosen": "cut off',
        b"",
        b"[1, 2]",
        b'{"chosen": "\xff\xfe", "rejected": "x"}',
        json.dumps({"chosen": render(["a", "b"])}).encode(),
        json.dumps({"chosen": 3, "rejected": "x"}).encode(),
        json.dumps({"chosen": "no marker", "rejected": render(["a", "c"])}).encode(),
        b'{"chosen": "\\n\\nHuman: \\ud83d", "rejected": "x"}',
        b"[" * 100_000,
        good.encode() + b"\r",
    ]
    file = tmp_path / "hh.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + b"\n".join(lines))
    parsed = read_preferences(str(file))
    assert [p.source for p in parsed] == [f"hh.jsonl:{n}" for n in range(1, 12)]
    assert [p.status for p in parsed] == ["ok", *["unparsable"] * 9, "ok"]
    assert [p.reason.split(":")[0] for p in parsed[1:-1]] == [
        "not JSON",
        "not JSON",
        "a JSON list, expected an object",
        "bytes that are not UTF-8",
        "rejected",
        "chosen",
        "chosen",
        "an escape of half a character (a lone surrogate), which is no text",
        "not JSON",
    ]
    assert parsed[1].raw == '{"chosen": "cut off'
    assert parsed[4].raw == '{"chosen": "\\xff\\xfe", "rejected": "x"}'
    for row in parsed:
        row.model_dump_json().encode()  # whatever was read can be stored


def test_preference_emoji_written_as_two_escapes_is_read(tmp_path):
    file = tmp_path / "hh.jsonl"
    file.write_text('{"chosen": "Human: a\\n\\nAssistant: \\ud83d\\ude42", "rejected": "Human: a\\n\\nAssistant: b"}')
    assert read_preferences(str(file))[0].chosen == "🙂"


def test_preferences_line_separators_inside_text_do_not_split_a_row(tmp_path):
    file = tmp_path / "hh.jsonl"
    row = {"chosen": render(["a\u2028b\x85", "b"]), "rejected": render(["a\u2028b\x85", "c"])}
    file.write_text(json.dumps(row, ensure_ascii=False) + "\n")
    [parsed] = read_preferences(str(file))
    assert (parsed.status, parsed.prompt[0].content) == ("ok", "a\u2028b\x85")


def test_preferences_without_a_rejected_column_are_an_error_that_names_the_columns(tmp_path):
    uri = write_jsonl(tmp_path / "hh.jsonl", {"chosen": "x", "other": "y"})
    with pytest.raises(ReadError, match=r"hh\.jsonl: no column rejected; found chosen, other"):
        read_preferences(uri)


# --- prompts from conversations


@pytest.mark.parametrize(
    ("chosen", "status", "prompt"),
    [
        (["a", "b"], "ok", ["a"]),
        (["a", "b", "c", "d"], "ok", ["a", "b", "c"]),
        (["a", "b", "c"], "ok", ["a", "b", "c"]),
        (["a", ""], "ok", ["a"]),
        (["a"], "ok", ["a"]),
        (["a", "", "c", "d"], "skipped", ["a", "", "c"]),
        (["", "b"], "skipped", [""]),
    ],
)
def test_conversation_prompt_ends_with_the_last_human_turn(tmp_path, chosen, status, prompt):
    uri = write_jsonl(tmp_path / "hh.jsonl", {"chosen": render(chosen), "rejected": "ignored"})
    [parsed] = read_prompts(uri)
    assert (parsed.status, [message.content for message in parsed.messages]) == (status, prompt)
    assert parsed.kind == "red_team"
    assert (parsed.raw is None) == (status == "ok")
    assert parsed.messages[-1] == Message(role="user", content=prompt[-1])


def test_conversation_prompt_unparsable_keeps_its_text(tmp_path):
    uri = write_jsonl(tmp_path / "hh.jsonl", {"chosen": "\n\nAssistant: hello", "rejected": "x"})
    [parsed] = read_prompts(uri, format="hh")
    assert (parsed.status, parsed.reason) == (
        "unparsable",
        "chosen: the assistant speaks first, expected the human",
    )
    assert "Assistant: hello" in parsed.raw


def test_conversation_prompts_limit_counts_conversations_read_not_kept(tmp_path):
    uri = write_jsonl(tmp_path / "hh.jsonl", {"chosen": "bad"}, {"chosen": render(["a", "b"])}, {"chosen": "bad"})
    assert [p.status for p in read_prompts(uri, limit=2)] == ["unparsable", "ok"]


# --- the real file


@pytest.mark.skipif(not HH.exists(), reason=f"{HH.name} is not beside the checkout")
def test_hh_harmless_dev_every_pair_is_accounted_for():
    rows = [json.loads(line) for line in gzip.decompress(HH.read_bytes()).decode().split("\n") if line]
    parsed, prompts = read_preferences(str(HH)), read_prompts(str(HH))
    assert len(rows) == len(parsed) == len(prompts) == 1200
    counts = Counter((row.status, row.reason) for row in parsed)
    print(counts)
    assert counts == {("ok", None): 1196, ("skipped", "the completion in chosen is empty"): 4}
    assert {prompt.status for prompt in prompts} == {"ok"}
    for row, read, prompt in zip(rows, parsed, prompts, strict=True):
        assert prompt.messages == read.prompt
        turns = [message.content for message in read.prompt]
        assert render([*turns, read.chosen]) == row["chosen"]
        assert render([*turns, read.rejected]) == row["rejected"]


@pytest.mark.skipif(not HH.exists(), reason=f"{HH.name} is not beside the checkout")
def test_hh_harmless_dev_limit_reads_the_first():
    assert read_prompts(str(HH), limit=200) == read_prompts(str(HH))[:200]
