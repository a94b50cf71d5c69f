"""What the supervised policy learns from: revisions of red-team prompts, answers to helpful ones, and no failed row."""

import pytest

from tasks.schema import Completion, Message, Prompt, Revision
from tasks.sft import SFTStageConfig, sft_examples


def prompt(name: str, kind: str, split: str = "train") -> Prompt:
    messages = [Message(role="user", content=f"{name} {split}?")]
    given = {"prompt_id": name, "kind": kind, "split": split, "source": "test", "messages": messages}
    return Prompt(row_id=f"{split}/{name}", reuse_key=name, **given)


def completion(name: str, sample: int, **changes) -> Completion:
    names = {"row_id": f"{name}/{sample}", "reuse_key": f"{name}/{sample}", "prompt_id": name, "sample": sample}
    return Completion(**names, **{"completion": f"{name} answered {sample}", **changes})


def revision(name: str, number: int, **changes) -> Revision:
    names = {"row_id": f"{name}/{number}", "reuse_key": f"{name}/{number}", "prompt_id": name, "round": number}
    asked = {"principle_id": "p", "principle_hash": "h", "critique_request": "?", "revision_request": "!"}
    said = {"critique": "So.", "revision": f"{name} revised {number}"}
    return Revision(**{**names, **asked, **said, **changes})


PROMPTS = [
    prompt("r1", "red_team"),
    prompt("r1", "red_team", "held_out"),
    prompt("r2", "red_team"),
    prompt("h", "helpful"),
]
COMPLETIONS = [completion("r1", 0), completion("r2", 0), completion("h", 0), completion("h", 1)]
REVISIONS = [revision(name, number) for name in ("r1", "r2") for number in range(3)]
HELPFUL = ["h answered 0", "h answered 1"]


def texts(completions=COMPLETIONS, revisions=REVISIONS, **config) -> list[str]:
    return [each.completion for each in sft_examples(PROMPTS, completions, revisions, SFTStageConfig(**config))]


def test_sft_all_rounds_of_revisions_then_every_sample_of_helpful_prompts():
    assert texts() == [f"{name} revised {number}" for name in ("r1", "r2") for number in range(3)] + HELPFUL


def test_sft_last_round_is_the_newest_good_one_of_each_chain():
    failed = [*REVISIONS[:5], revision("r2", 2, status="failed", reason="too long", revision=None)]
    assert texts(rounds="last") == ["r1 revised 2", "r2 revised 2", *HELPFUL]
    assert texts(revisions=failed, rounds="last") == ["r1 revised 2", "r2 revised 1", *HELPFUL]


def test_sft_no_op_is_learned_as_in_the_paper_and_a_skipped_round_without_text_is_not():
    no_op = revision("r1", 0, status="skipped", reason="no-op: the revision repeats the text")
    nothing_to_do = revision("r2", 0, status="skipped", reason="all four checks passed", revision=None)
    assert texts([], [no_op, nothing_to_do]) == ["r1 revised 0"]
    assert texts([], [revision("r1", 0), revision("r1", 1, status="skipped")], rounds="last") == ["r1 revised 1"]


@pytest.mark.parametrize("status", ["refused", "unparsable", "failed"])
def test_sft_what_came_to_no_good_text_is_not_learned(status):
    """Such as a critique where a revision was asked for, whose text is kept."""
    rows = [revision("r1", 0, status=status, reason="no"), revision("r1", 1)]
    given = [completion("h", 0, status=status, reason="no"), completion("h", 1)]
    assert texts(given, rows) == ["r1 revised 1", "h answered 1"]


def test_sft_prompt_is_the_training_one_and_the_critique_is_not_in_it():
    first = sft_examples(PROMPTS, COMPLETIONS, REVISIONS, SFTStageConfig())[0]
    assert [m.content for m in first.prompt] == ["r1 train?"]


def test_sft_fewer_revisions_are_whole_chains():
    assert texts(max_revisions=1) == [f"r1 revised {number}" for number in range(3)] + HELPFUL


def dialogue(completions=COMPLETIONS, revisions=REVISIONS, **config) -> list[tuple[list[str], str]]:
    """(turns, what is learned) of each example, "user: text" a turn."""
    examples = sft_examples(PROMPTS, completions, revisions, SFTStageConfig(form="dialogue", **config))
    return [([f"{turn.role}: {turn.content}" for turn in each.prompt], each.completion) for each in examples]


ASKED = ["user: r1 train?", "assistant: r1 answered 0", "user: ?"]


def test_sft_dialogue_learns_critique_and_revision_after_the_turns_that_led_to_them():
    assert dialogue(revisions=[revision("r1", 0)])[:-2] == [
        (ASKED, "So."),
        ([*ASKED, "assistant: So.", "user: !"], "r1 revised 0"),
    ]


def test_sft_dialogue_never_learns_the_completion_that_was_revised():
    learned = [text for _, text in dialogue()]
    assert len(learned) == 2 * len(REVISIONS) + len(HELPFUL) and learned[-2:] == HELPFUL
    assert not {"r1 answered 0", "r2 answered 0"} & set(learned)


def test_sft_dialogue_rounds_read_the_newest_good_text():
    """A failed round and a no-op leave it as it was, whether they are learned from or not."""
    rows = [
        revision("r1", 0),
        revision("r1", 1, status="failed", reason="too long", revision=None),
        revision("r1", 2, status="skipped", reason="no-op: the revision repeats the text", revision="r1 revised 0"),
        revision("r1", 3),
    ]
    read = [turns[1] for turns, text in dialogue(revisions=rows) if text == "So."]
    assert read == ["assistant: r1 answered 0", "assistant: r1 revised 0", "assistant: r1 revised 0"]
    assert [turns[1] for turns, text in dialogue(revisions=rows, rounds="last")[:2]] == ["assistant: r1 revised 0"] * 2


def test_sft_dialogue_starts_from_the_sample_that_was_revised():
    samples = [completion("r1", 0), completion("r1", 1)]
    assert dialogue(samples, [revision("r1", 0)])[0][0] == ASKED


@pytest.mark.parametrize("critique", [None, ""])
def test_sft_dialogue_without_a_critique_is_the_revision_alone(critique):
    rows = [revision("r1", 0, critique=critique, critique_request="")]
    assert dialogue(revisions=rows)[:-2] == [
        (["user: r1 train?", "assistant: r1 answered 0", "user: !"], "r1 revised 0")
    ]


MANY = [*COMPLETIONS, *(completion("h", sample) for sample in range(2, 20))]


def test_sft_helpful_ratio_is_of_what_is_made_of_revisions():
    for ratio, wanted in ((0, 0), (0.5, 3), (1, 6), (2.5, 15)):
        learned = texts(MANY, helpful_ratio=ratio)
        assert len(learned) == len(REVISIONS) + wanted
    assert len(dialogue(MANY, helpful_ratio=1)) == 4 * len(REVISIONS)
    assert len(texts(MANY, rounds="last", helpful_ratio=1)) == 4


def test_sft_helpful_examples_kept_stay_when_others_are_added():
    few, more = texts(MANY, helpful_ratio=0.5)[6:], texts(MANY, helpful_ratio=1)[6:]
    assert set(few) < set(more) and more == [text for text in texts(MANY)[6:] if text in more]
    every = texts(MANY)[6:]
    assert more not in (every[:6], sorted(every)[:6], every[-6:]), "a hash decides, not the order or the name"
    assert texts(list(reversed(MANY)), helpful_ratio=1)[6:] == more[::-1]


def test_sft_more_helpful_examples_than_there_are_is_refused():
    with pytest.raises(ValueError, match=r"helpful_ratio is 1, which asks for 6 helpful .* 6 made .* there are 2"):
        texts(helpful_ratio=1)
