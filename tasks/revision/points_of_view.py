"""Point-of-view confusion (section 3.1): a revision where a critique was asked for, or the reverse.

Each rule asks for strong evidence, since a row that is taken for confused is lost: of the 264 rounds that the paper's
authors published none is flagged, and none of the micro world's texts. What no rule knows passes.
"""

import re
from difflib import SequenceMatcher
from typing import Literal

Part = Literal["critique", "revision"]

NEARLY_THE_SAME = 0.8
"""Ratio of common words from which a text repeats another. Those of the paper's authors stay below 0.5."""
FEW_WORDS = 8
"""Of shorter texts only the same words count as repeated."""

_MARKS = r"[\s*_#>\"]*"
# how models label what they write, as the paper's own prompts do
_NAMES: dict[Part, str] = {
    "critique": "critique",
    "revision": "revision|(?:revised|rewritten) (?:response|reply|answer|version)",
}
_LABELS: dict[Part, re.Pattern[str]] = {
    part: re.compile(rf"{_MARKS}(?:{names}){_MARKS}:[ *_]*\s*", re.IGNORECASE) for part, names in _NAMES.items()
}
# the beginning of an answer to the human
_ANSWERS = re.compile(
    r"(?:i am|i'm) (?:(?:very|so|truly) )?sorry\b|sorry\b|i apologi[sz]e\b"
    r"|i (?:cannot|can't|can not|will not|won't) (?:help|assist|provide|do|answer)\b"
    r"|(?:of course|sure|certainly|absolutely|gladly)[!,.]",
    re.IGNORECASE,
)
# what a critique speaks about, and an answer to the human hardly ever
_SUBJECTS = re.compile(
    r"\b(?:response|reply|answer|completion|assistant|critique|criticism|human|user|request|question|message|ai)s?\b",
    re.IGNORECASE,
)
# the completion in the third person; "the response to the flood" is about something else
_ABOUT = re.compile(
    r"\b(?:the (?:ai )?assistant\b|(?:the|this) (?:(?:ai|assistant|model|chatbot)(?: assistant)?'s )?"
    r"(?:(?:last|previous|preceding|above|original) )?(?:response|reply|completion)\b(?! (?:to|of|from|by)\b))",
    re.IGNORECASE,
)
_REASONING = re.compile(rf"{_MARKS}reasoning{_MARKS}:", re.IGNORECASE)


def confused_critique(critique: str, completion: str) -> str | None:
    """Why a critique is taken for a revision; None where it is not."""
    said = plain(without_label(critique, "critique"))
    label, opening = _LABELS["revision"].match(said), _ANSWERS.match(said)
    if label:
        return f"the critique begins with {label[0].strip()!r}"
    if repeats(said, completion):
        return "the critique repeats the completion"
    if opening and not _SUBJECTS.search(said):
        return f"the critique answers the human: it begins with {opening[0]!r}"
    return None


def confused_revision(revision: str, critique: str) -> str | None:
    """Why a revision is taken for a critique; None where it is not. `critique` is empty where none was asked for."""
    said, criticised = plain(without_label(revision, "revision")), plain(critique)
    label, about = _LABELS["critique"].match(said), _ABOUT.match(said.removeprefix("Overall, "))
    if label:
        return f"the revision begins with {label[0].strip()!r}"
    if repeats(said, criticised):
        return "the revision repeats the critique"
    if about and _ABOUT.search(criticised):
        return f"the revision speaks of the completion, as the critique does: it begins with {about[0]!r}"
    if _REASONING.match(said) and _REASONING.match(criticised):
        return "the revision begins with 'Reasoning:', as the critique does"
    return None


def without_label(text: str, part: Part) -> str:
    """The text without its own leading `Critique:` or `Revision:`."""
    label = _LABELS[part].match(text)
    return text[label.end() :] if label else text


def plain(text: str) -> str:
    return text.strip().replace("’", "'")


def repeats(text: str, other: str) -> bool:
    """Whether two texts have the same words, or of long ones nearly the same in nearly the same order."""
    words, others = words_of(text), words_of(other)
    if min(len(words), len(others)) < FEW_WORDS:
        return bool(words) and words == others
    matcher = SequenceMatcher(None, words, others, autojunk=False)
    # the two upper bounds are cheap, and nearly every pair ends there
    return all(bound() >= NEARLY_THE_SAME for bound in (matcher.real_quick_ratio, matcher.quick_ratio, matcher.ratio))


def words_of(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
