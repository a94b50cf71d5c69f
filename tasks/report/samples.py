"""Texts to read: what every policy says to some held-out prompts, and some chains of critique and revision.

Which prompts are shown is drawn by a hash of their id, spread over the groups, and never by how they turned out.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import NamedTuple

import pyarrow as pa

from tasks.report.material import Material, rows_where
from tasks.report.policies import place_of, policy_name, results
from tasks.schema import Completion, Judgement, Message, Prompt, Revision, Sample
from tasks.store.identity import digest

NUM_SAMPLES = 6
NUM_CHAINS = 4
MAX_CHARACTERS = 1500


class Said(NamedTuple):
    """One policy's completion."""

    place: int
    policy: str
    text: str
    verdict: str


class Shown(NamedTuple):
    """One held-out prompt and what was said to it."""

    group: str
    turns: list[Message]
    said: list[Said]


class Step(NamedTuple):
    """One round of critique and revision."""

    round: int
    principle: str
    request: str
    """For a critique, or for the revision where no critique was asked."""
    critique: str
    """Empty where none was asked or written."""
    revision: str
    note: str
    """Why the round is not ok; empty where it is."""


class Chain(NamedTuple):
    """One red-team prompt on its way through the rounds."""

    turns: list[Message]
    completion: str
    steps: list[Step]


def pick(prompts: Sequence[tuple[str, str]], count: int) -> list[str]:
    """`count` of the (id, group) pairs' ids: group after group in turn, within one by the hash of the id."""
    by_group = defaultdict(list)
    for prompt_id, group in sorted(prompts, key=lambda p: digest(["report", p[0]])):
        by_group[group].append(prompt_id)
    turns = zip_longest(*(by_group[group] for group in sorted(by_group)))
    return [i for turn in turns for i in turn if i is not None][:count]


def choices(prompts: pa.Table, split: str, kind: str) -> list[tuple[str, str]]:
    """(id, group) of the usable prompts of a split and kind."""
    columns = (prompts.column(c).to_pylist() for c in ("prompt_id", "group", "split", "kind", "status"))
    rows = zip(*columns, strict=True)
    return [(i, group or "") for i, group, *rest in rows if rest == [split, kind, "ok"]]


def held_out_samples(material: Material, kind: str) -> list[Shown]:
    """Some held-out prompts of one kind with the first sample of each policy that is a result."""
    picked = pick(choices(material.tables["prompts"], "held_out", kind), NUM_SAMPLES)
    prompts = prompts_by_id(material.tables["prompts"], picked, "held_out")
    judged = rows_where(material.tables["judgements"], "prompt_id", picked, Judgement)
    verdicts = {(j.policy, j.prompt_id): verdict_of(j) for j in judged if j.sample == 0}
    said: dict[str, list[Said]] = defaultdict(list)
    for policy in results(material.policies):
        for row in rows_where(material.tables[f"samples/{policy}"], "prompt_id", picked, Sample):
            if row.sample == 0:
                verdict = verdicts.get((policy, row.prompt_id), "")
                said[row.prompt_id].append(
                    Said(place_of(policy, material.policies), policy_name(policy), said_text(row), verdict)
                )
    return [Shown(prompts[i].group or "", clip_turns(prompts[i].messages), said[i]) for i in picked]


def verdict_of(judgement: Judgement) -> str:
    """What the evaluator made of a sample, in a word or two."""
    if judgement.status != "ok":
        return judgement.status
    if judgement.verdict is not None:
        return judgement.verdict
    return "" if judgement.win_prob is None else f"P(better) {judgement.win_prob:.2f}"


def revision_chains(material: Material) -> list[Chain]:
    """Some red-team training prompts with every round of critique and revision."""
    picked = pick(choices(material.tables["prompts"], "train", "red_team"), NUM_CHAINS)
    prompts = prompts_by_id(material.tables["prompts"], picked, "train")
    first = rows_where(material.tables["completions"], "prompt_id", picked, Completion)
    completions = {row.prompt_id: said_text(row) for row in first if row.sample == 0}
    steps: dict[str, list[Step]] = defaultdict(list)
    for row in rows_where(material.tables["revisions"], "prompt_id", picked, Revision):
        steps[row.prompt_id].append(step_of(row))
    return [Chain(clip_turns(prompts[i].messages), completions.get(i, ""), sorted(steps[i])) for i in picked]


def step_of(row: Revision) -> Step:
    asked = row.critique_request or row.revision_request  # a critique-free revision asks for no critique
    request, critique, revision = (clip(text or "") for text in (asked, row.critique, row.revision))
    note = "" if row.status == "ok" else f"{row.status}: {row.reason}"
    return Step(row.round + 1, row.principle_id, request, critique, revision, note)


def prompts_by_id(prompts: pa.Table, ids: Iterable[str], split: str) -> dict[str, Prompt]:
    return {row.prompt_id: row for row in rows_where(prompts, "prompt_id", list(ids), Prompt) if row.split == split}


def said_text(row: Completion | Sample) -> str:
    return clip(row.completion or f"({row.status}: {row.reason})")


def clip_turns(messages: Sequence[Message]) -> list[Message]:
    return [message.model_copy(update={"content": clip(message.content)}) for message in messages]


def clip(text: str) -> str:
    """The text, cut where it is too long for the page, with how much is missing."""
    left_out = len(text) - MAX_CHARACTERS
    return text if left_out <= 0 else f"{text[:MAX_CHARACTERS]} … ({left_out} more characters in the store)"
