"""The five prompt files of the Constitutional AI paper, from a copy of the user's, and back to the byte.

Their repository (anthropics/ConstitutionalHarmlessnessPaper) has no licence, so Solon ships none of their text.
`source` of each item says which file and place it came from; exporting reads it.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from constitutions.base import ConstitutionError
from constitutions.demonstrations import ComparisonDemonstration, RevisionDemonstration
from constitutions.importers import anthropic_demonstrations as demonstrations
from constitutions.importers.checking import expect, keys, only_text, text_of
from constitutions.importers.naming import unique_ids
from constitutions.model import Constitution, Principle

CRITIQUE = "CritiqueRevisionInstructions.json"
CRITIQUE_SHOWN = "CritiqueRevisionFewShotPrompts.json"
QUESTIONS = "RLMadisonInstructions.json"
COMPARED = "RLMadisonFewShotPrompts.json"
REASONED = "RLMadisonPrecogFewShotPrompts.json"
FILES = (CRITIQUE, CRITIQUE_SHOWN, QUESTIONS, COMPARED, REASONED)

_BEFORE_CRITIQUE, _AFTER_CRITIQUE = "\n\nCritiqueRequest: ", "\n\nCritique:"
_BEFORE_REVISION, _AFTER_REVISION = "\n\nRevisionRequest: ", "\n\nRevision:"
_BEFORE_QUESTION, _AFTER_QUESTION = "\n", " Options:"


def kind_of(content: Any, name: str) -> str:
    """Which of the five files this is, by its shape.

    Raises: ConstitutionError: none of them.
    """
    items = list(content.values()) if isinstance(content, dict) else content
    first = items[0] if isinstance(items, list) and items else None
    if isinstance(content, dict) and isinstance(first, dict) and {"prompt", "edit_request"} & first.keys():
        return CRITIQUE
    if isinstance(content, list) and isinstance(first, str):
        return CRITIQUE_SHOWN if "\n\nCritique: " in first else QUESTIONS
    if isinstance(content, list) and isinstance(first, dict) and "prompt" in first:
        return COMPARED if {"corrects", "incorrects"} & first.keys() else REASONED
    raise ConstitutionError(f"{name}: none of the paper's files by its shape, expected one of {', '.join(FILES)}")


def read_anthropic(contents: Mapping[str, Any], name: str) -> tuple[Constitution, list[str]]:
    """One constitution out of any of the five files (file name -> parsed JSON), and what is worth knowing of it.

    The paper pairs no critique with a question, so each principle serves one phase.

    Raises: ConstitutionError: a shape or a key that this reader does not know, or a file that would not come back.
    """
    found: dict[str, Any] = {}
    for file, content in contents.items():
        kind = kind_of(content, file)
        expect(kind not in found, file, f"a second {kind}", "each of the paper's files once")
        found[kind] = content
    principles = critiques(found.get(CRITIQUE, {})) + questions(found.get(QUESTIONS, []))
    revisions = demonstrations.revisions(found.get(CRITIQUE_SHOWN, []), CRITIQUE_SHOWN)
    compared = demonstrations.compared(found.get(COMPARED, []), COMPARED)
    reasoned = demonstrations.reasoned(found.get(REASONED, []), REASONED)
    if not principles:
        raise ConstitutionError(f"{', '.join(contents)}: no principle in it, expected also {CRITIQUE} or {QUESTIONS}")
    constitution = Constitution(
        id=name,
        title="The principles of the Constitutional AI paper",
        principles=tuple(principles),
        revision_demonstrations=tuple(revisions),
        comparison_demonstrations=demonstrations.named([*compared, *reasoned]),
    )
    for kind, content in found.items():
        expect(exported(constitution)[kind] == content, kind, "it would not come back as it was", "the paper's layout")
    given = [f"{kind}: {len(content)}" for kind, content in found.items()]
    notes = ["read " + ", ".join(given), *[f"not given: {kind}" for kind in FILES if kind not in found]]
    if compared:
        notes.append(f"{COMPARED} gives no sides: its better completion was put on A and B by turns")
    return constitution, notes


def critiques(content: Any) -> list[Principle]:
    """A principle of the supervised phase for each entry."""
    texts = []
    for key, entry in content.items():
        where = f"{CRITIQUE}: {key}"
        keys(entry, where, "prompt", "edit_request")
        asked = only_text(entry["prompt"], f"{where}.prompt")
        texts.append(
            (
                f"{CRITIQUE}#{key}",
                between(asked, _BEFORE_CRITIQUE, _AFTER_CRITIQUE, f"{where}.prompt"),
                between(entry["edit_request"], _BEFORE_REVISION, _AFTER_REVISION, f"{where}.edit_request"),
            )
        )
    ids = unique_ids(f"{critique} {revision}" for _, critique, revision in texts)
    return [
        Principle(id=name, source=source, critique_request=critique, revision_request=revision)
        for name, (source, critique, revision) in zip(ids, texts, strict=True)
    ]


def questions(content: Any) -> list[Principle]:
    """A principle of the preference phase for each line."""
    texts = [
        between(text, _BEFORE_QUESTION, _AFTER_QUESTION, f"{QUESTIONS}: [{number}]")
        for number, text in enumerate(content)
    ]
    return [
        Principle(id=name, source=f"{QUESTIONS}#{number}", comparison_question=text)
        for number, (name, text) in enumerate(zip(unique_ids(texts), texts, strict=True))
    ]


def between(value: Any, before: str, after: str, where: str) -> str:
    """The text within the paper's frame."""
    text = text_of(value, where)
    inner = text[len(before) : len(text) - len(after)]
    framed = text.startswith(before) and text.endswith(after) and inner.strip() == inner != ""
    expect(framed, where, repr(text[:60]), f"{before!r}, the text, {after!r}")
    return inner


def export_anthropic(constitution: Constitution) -> dict[str, bytes]:
    """File name -> bytes, of the files that this constitution has anything for, written as the paper's are.

    Raises: ConstitutionError: something that these files cannot hold.
    """
    return {kind: json.dumps(content).encode() for kind, content in exported(constitution).items() if content}


def exported(constitution: Constitution) -> dict[str, Any]:
    """File name -> content, of all five."""
    compared = constitution.comparison_demonstrations
    critique = {
        key: {
            "prompt": [f"{_BEFORE_CRITIQUE}{p.critique_request}{_AFTER_CRITIQUE}"],
            "edit_request": f"{_BEFORE_REVISION}{p.revision_request}{_AFTER_REVISION}",
        }
        for key, p in _from(CRITIQUE, constitution.principles)
    }
    question = [
        f"{_BEFORE_QUESTION}{p.comparison_question}{_AFTER_QUESTION}"
        for _, p in _from(QUESTIONS, constitution.principles)
    ]
    _expect_all_held(constitution)
    shown: list[tuple[str, Sequence[Any], Callable[[Any], Any]]] = [
        (CRITIQUE_SHOWN, constitution.revision_demonstrations, demonstrations.as_revision),
        (COMPARED, compared, demonstrations.as_compared),
        (REASONED, compared, demonstrations.as_reasoned),
    ]
    lists = {file: [write(item) for _, item in _from(file, items)] for file, items, write in shown}
    return {CRITIQUE: critique, QUESTIONS: question, **lists}


def _from(file: str, items: Sequence[Any]) -> list[tuple[str, Any]]:
    """What came from this file, with its key there, in the order of the numbers that the keys end with."""
    pairs = [((item.source or "").partition("#"), item) for item in items]
    mine = [(key, item) for (name, _, key), item in pairs if name == file]
    return sorted(mine, key=lambda pair: int((re.findall(r"\d+$", pair[0]) or ["0"])[0]))


def _expect_all_held(constitution: Constitution) -> None:
    phase = {CRITIQUE: "revision", QUESTIONS: "comparison"}
    for p in constitution.principles:
        plain = Principle(id=p.id, source=p.source, **{f: getattr(p, f) for f in _TEXTS})
        file = (p.source or "").partition("#")[0]
        expect(file in phase, p.id, f"source {p.source}", f"{CRITIQUE}#KEY or {QUESTIONS}#NUMBER")
        both = p.critique_request is not None and p.comparison_question is not None
        expect(not both, p.id, "texts for both phases", "one phase: the paper's files pair none")
        serves = "comparison" if p.critique_request is None else "revision"
        expect(serves == phase[file], p.id, f"{serves} text with source {file}", f"a {phase[file]} text")
        expect(p == plain, p.id, "a setting such as weight, cluster or enabled", "texts only, which is all they hold")
    shown: list[RevisionDemonstration | ComparisonDemonstration] = [
        *constitution.revision_demonstrations,
        *constitution.comparison_demonstrations,
    ]
    for demonstration in shown:
        file = (demonstration.source or "").partition("#")[0]
        is_revision = isinstance(demonstration, RevisionDemonstration)
        expected = (CRITIQUE_SHOWN,) if is_revision else (COMPARED, REASONED)
        expect(file in expected, demonstration.id, f"source {demonstration.source}", " or ".join(expected) + "#NUMBER")


_TEXTS = ("critique_request", "revision_request", "comparison_question")
