"""The demonstrations among the paper's files: transcripts taken apart, and put together again."""

import re
from collections.abc import Sequence
from typing import Any

from constitutions.demonstrations import ComparisonDemonstration, RevisionDemonstration, Turn
from constitutions.importers.checking import expect, keys, only_text, text_of
from constitutions.importers.frames import fill, frame_of
from constitutions.importers.naming import unique_ids

Spans = list[tuple[str, int, int]]

_REVISED = ("CritiqueRequest", "Critique", "RevisionRequest", "Revision")
_FIELDS = ("critique_request", "critique", "revision_request", "revision")
_OPENER = "Consider the following conversation between a human (H) and an assistant (A):"
_REASONED = re.compile(
    r"\s*Human: Consider the following conversation between [^\n]*:"
    r"(?P<turns>.*)\n\n\{\}\n \(A\) \[\[\[(?P<completion_a>.*)\]\]\]\n \(B\) \[\[\[(?P<completion_b>.*)\]\]\]"
    r"\n\nAssistant: Let's think step by step:(?P<reasoning>.*)\n\nHuman:\nSo the answer is: \((?P<answer>[AB])\)",
    re.DOTALL,
)


def revisions(content: Any, file: str) -> list[RevisionDemonstration]:
    """Conversation, critique and revision out of each transcript."""
    made: list[dict[str, Any]] = []
    for number, entry in enumerate(content):
        where = f"{file}: [{number}]"
        text = text_of(entry, where)
        marks = [text.find(f"\n\n{label}: ") for label in _REVISED]
        expect(-1 not in marks and marks == sorted(marks), where, "other parts", ", ".join(_REVISED))
        spans = _turn_spans(text, 0, marks[0], "Human", "Assistant", where)
        end = text.rfind("\n\nHuman:")
        stops = [*marks[1:], end if end > marks[-1] else len(text)]
        for field, label, start, stop in zip(_FIELDS, _REVISED, marks, stops, strict=True):
            spans.append((field, start + len(f"\n\n{label}: "), stop))
        turns = len(spans) - len(_FIELDS)
        expect(turns % 2 == 0, where, f"{turns} turns", "a turn of the assistant before the critique")
        spans[turns - 1] = ("completion", *spans[turns - 1][1:])
        frame, values = frame_of(text, spans)
        prompt = _turns(values)
        framing = None if frame == _revision_frame(len(prompt)) else frame
        fields = {field: values[field] for field in ("completion", *_FIELDS)}
        made.append({"source": f"{file}#{number}", "prompt": prompt, "framing": framing, **fields})
    names = unique_ids([" ".join(turn.content for turn in made_of["prompt"]) for made_of in made], "demonstration")
    return [RevisionDemonstration(id=name, **made_of) for name, made_of in zip(names, made, strict=True)]


def as_revision(shown: RevisionDemonstration) -> str:
    """The transcript that `revisions` read it from."""
    values = shown.model_dump(include={"completion", *_FIELDS}) | _numbered(shown.prompt)
    return fill(shown.framing or _revision_frame(len(shown.prompt)), values)


def compared(content: Any, file: str) -> list[dict[str, Any]]:
    """Two completions of which one is better; the source gives no sides, so it stands on A and B by turns."""
    made: list[dict[str, Any]] = []
    for number, entry in enumerate(content):
        where = f"{file}: [{number}]"
        keys(entry, where, "prompt", "corrects", "incorrects")
        text = text_of(entry["prompt"], f"{where}.prompt")
        tail = "\n\nAssistant:"
        expect(text.endswith(tail), f"{where}.prompt", repr(text[-20:]), f"{tail!r} at the end")
        spans = _turn_spans(text, 0, len(text) - len(tail), "Human", "Assistant", f"{where}.prompt")
        frame, values = frame_of(text, spans)
        turns = _turns(values)
        better, worse = (only_text(entry[key], f"{where}.{key}") for key in ("corrects", "incorrects"))
        first, second, answer = (better, worse, "A") if number % 2 == 0 else (worse, better, "B")
        made.append(
            {
                "source": f"{file}#{number}",
                "conversation": turns,
                "completion_a": first,
                "completion_b": second,
                "answer": answer,
                "framing": None if frame == _compared_frame(len(turns)) else frame,
            }
        )
    return made


def named(fields: Sequence[dict[str, Any]]) -> tuple[ComparisonDemonstration, ...]:
    """What `compared` and `reasoned` read, all together, so that no id is given twice."""
    texts = [" ".join((*(t.content for t in of["conversation"]), of["completion_a"])) for of in fields]
    ids = unique_ids(texts, "demonstration")
    return tuple(ComparisonDemonstration(id=name, **of) for name, of in zip(ids, fields, strict=True))


def as_compared(shown: ComparisonDemonstration) -> dict[str, Any]:
    """The entry that `compared` read it from, whichever side is better."""
    frame = shown.framing or _compared_frame(len(shown.conversation))
    prompt = fill(frame, _numbered(shown.conversation))
    return {"prompt": prompt, "corrects": [shown.chosen], "incorrects": [shown.rejected]}


def reasoned(content: Any, file: str) -> list[dict[str, Any]]:
    """Two completions, the reasoning and its answer; the literal {} is the place of a drawn question."""
    made: list[dict[str, Any]] = []
    for number, entry in enumerate(content):
        where = f"{file}: [{number}]"
        keys(entry, where, "prompt")
        text = text_of(entry["prompt"], f"{where}.prompt")
        expect(text.count("{}") == 1, f"{where}.prompt", f"{text.count('{}')} times {{}}", "once, for the question")
        match = _REASONED.fullmatch(text)
        expect(match is not None, f"{where}.prompt", repr(text[:60]), "conversation, {}, (A), (B), reasoning, answer")
        assert match is not None
        spans = _turn_spans(text, *match.span("turns"), "H", "A", f"{where}.prompt")
        num_turns = len(spans)
        spans += [(name, *match.span(name)) for name in ("completion_a", "completion_b", "reasoning", "answer")]
        frame, values = frame_of(text, spans)
        made.append(
            {
                "source": f"{file}#{number}",
                "conversation": _turns(values),
                "framing": None if frame == _reasoned_frame(num_turns) else frame,
                **{name: values[name] for name in ("completion_a", "completion_b", "reasoning", "answer")},
            }
        )
    return made


def as_reasoned(shown: ComparisonDemonstration) -> dict[str, Any]:
    """The entry that `reasoned` read it from."""
    values = shown.model_dump(include={"completion_a", "completion_b", "reasoning", "answer"})
    frame = shown.framing or _reasoned_frame(len(shown.conversation))
    return {"prompt": fill(frame, values | _numbered(shown.conversation))}


def _turn_spans(text: str, start: int, end: int, human: str, assistant: str, where: str) -> Spans:
    """(turn0, start, end) and so on, of turns that begin with a speaker at the head of a paragraph."""
    marks = list(re.finditer(rf"(?:\n\n|\A)({human}|{assistant}):", text[start:end]))
    expect(bool(marks) and marks[0].start() == 0, where, repr(text[start : start + 40]), f"a turn of {human}: first")
    for number, mark in enumerate(marks):
        expected = assistant if number % 2 else human
        expect(mark[1] == expected, where, f"turn {number + 1} of {mark[1]}", f"{expected}: {human} and {assistant}")
    stops = [*(mark.start() for mark in marks[1:]), end - start]
    spans = zip(marks, stops, strict=True)
    return [(f"turn{number}", start + mark.end(), start + stop) for number, (mark, stop) in enumerate(spans)]


def _turns(values: dict[str, str]) -> tuple[Turn, ...]:
    contents = [value for name, value in values.items() if name.startswith("turn")]
    return tuple(Turn(role="assistant" if n % 2 else "user", content=text) for n, text in enumerate(contents))


def _numbered(turns: Sequence[Turn]) -> dict[str, str]:
    return {f"turn{number}": turn.content for number, turn in enumerate(turns)}


def _spoken(num_turns: int, human: str, assistant: str) -> str:
    return "".join(f"\n\n{assistant if n % 2 else human}: {{turn{n}}}" for n in range(num_turns))


def _revision_frame(num_turns: int) -> str:
    parts = "".join(f"\n\n{label}: {{{field}}}" for label, field in zip(_REVISED, _FIELDS, strict=True))
    return f"{_spoken(num_turns, 'Human', 'Assistant')}\n\nAssistant: {{completion}}{parts}\n\nHuman:"


def _compared_frame(num_turns: int) -> str:
    return f"{_spoken(num_turns, 'Human', 'Assistant')}\n\nAssistant:"


def _reasoned_frame(num_turns: int) -> str:
    sides = "\n (A) [[[{completion_a}]]]\n (B) [[[{completion_b}]]]"
    asked = f"\n\nHuman: {_OPENER}{_spoken(num_turns, 'H', 'A')}\n\n{{}}{sides}"
    return f"{asked}\n\nAssistant: Let's think step by step: {{reasoning}}\n\nHuman:\nSo the answer is: ({{answer}})"
