"""Plain text: one principle a line, as a comparison question or as a statement."""

import re

from constitutions.importers.checking import expect
from constitutions.importers.naming import unique_ids
from constitutions.model import Constitution, Principle

_QUESTION = re.compile(
    r"(?:please )?(?:which|choose|compare|select|pick|prefer|consider|of (?:the |these )?two)\b", re.I
)

CRITIQUE_REQUEST = 'Point out where the assistant\'s last response falls short of this principle: "{}"'
REVISION_REQUEST = 'Rewrite the assistant\'s last response so that it keeps to this principle: "{}"'
COMPARISON_QUESTION = 'Which response keeps better to this principle: "{}"'


def read_lines(text: str, file: str, name: str) -> tuple[Constitution, list[str]]:
    """A principle for each line. A question (Which, Choose, Compare, or with a question mark) is asked as it stands and
    serves the preference phase; a statement is put into a request and a question, for both. `#` begins a comment line.

    Raises: ConstitutionError: no line.
    """
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    kept = [(number, line) for number, line in lines if not line.startswith("#")]
    expect(bool(kept), file, "no line with a principle", "one principle a line")
    ids = unique_ids(line for _, line in kept)
    principles = [_principle(line, ids[at], f"{file}#{number}") for at, (number, line) in enumerate(kept)]
    num_questions = sum(p.critique_request is None for p in principles)
    return Constitution(id=name, principles=tuple(principles)), [
        f"read {len(kept)} lines: {num_questions} questions as they stand, {len(kept) - num_questions} statements "
        "put into requests and a question",
        *([f"left out {len(lines) - len(kept)} comment lines, which begin with #"] if len(lines) > len(kept) else []),
    ]


def _principle(line: str, name: str, source: str) -> Principle:
    if _QUESTION.match(line) or line.endswith("?"):
        return Principle(id=name, source=source, comparison_question=line)
    return Principle(
        id=name,
        source=source,
        critique_request=CRITIQUE_REQUEST.replace("{}", line),
        revision_request=REVISION_REQUEST.replace("{}", line),
        comparison_question=COMPARISON_QUESTION.replace("{}", line),
    )
