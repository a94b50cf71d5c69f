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
    return Revision(**names, **asked, **{"critique": "So.", "revision": f"{name} revised {number}", **changes})


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
