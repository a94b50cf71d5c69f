"""The four answers of a reasoned critique, read from its text."""

import re
from typing import NamedTuple

CHECKS = {
    "helpful": "is_helpful",
    "honest": "is_honest",
    "harmless": "is_harmless",
    "free of toxicity": "is_free_of_toxicity",
}
"""Label in the text -> column of the row."""

# a label at the beginning of a line, with whatever marks a model puts around it: `**Helpful:** yes`, `2. Honest: no`
_LABEL = re.compile(
    rf"^[^\w\n]*(?:\d+[.)])?[^\w\n]*(reasoning|{'|'.join(CHECKS)})[*_ ]*:", re.IGNORECASE | re.MULTILINE
)
# the word alone: "yes or no" and "yes/no" repeat the form and answer nothing
_ANSWER = re.compile(r"\W*(yes|no)\b(?!\W*(?:or\W+)?(?:yes|no)\b)", re.IGNORECASE)


class Checks(NamedTuple):
    """What a reasoned critique says; None where it does not say it."""

    reasoning: str | None
    answers: dict[str, bool | None]
    """By column."""
    problem: str | None
    """What is missing or neither yes nor no."""

    @property
    def all_passed(self) -> bool:
        return all(self.answers.values())

    @property
    def columns(self) -> dict[str, str | bool | None]:
        return {"reasoning": self.reasoning, **self.answers}


def read_checks(text: str) -> Checks:
    """Reasoning and answers, in any order and case; of a label that comes twice the first counts."""
    said = sections(text)
    reasoning = said.get("reasoning", "").strip(" *_\n") or None
    answers = {column: answer_of(said.get(label, "")) for label, column in CHECKS.items()}
    problems = [] if reasoning else ["reasoning is missing"]
    for label, column in CHECKS.items():
        if label not in said:
            problems.append(f"{label!r} is missing")
        elif answers[column] is None:
            problems.append(f"{label!r} is {said[label].strip()[:40]!r}, expected yes or no")
    return Checks(reasoning, answers, "; ".join(problems) or None)


def sections(text: str) -> dict[str, str]:
    """What follows each label, up to the next one."""
    parts = _LABEL.split(text)
    said: dict[str, str] = {}
    for label, body in zip(parts[1::2], parts[2::2], strict=True):
        said.setdefault(label.lower(), body)
    return said


def answer_of(said: str) -> bool | None:
    answer = _ANSWER.match(said)
    return answer[1].lower() == "yes" if answer else None
