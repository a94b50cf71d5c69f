"""What lint sees in a text: shingles, placeholders, sides that are named, what a principle is about."""

import re

SHINGLE_WORDS = 3

_WORD = re.compile(r"\w+(?:['\u2019]\w+)?")
_PLACEHOLDER = re.compile(r"\{[^{}]*\}|\[[^\[\]]*\]|<[a-z_ ]+>|\b(?:TODO|FIXME|XXX|TBD)\b")
_SIDE = re.compile(
    r"\(([AB12])\)|\b(?i:option|response|completion|answer|reply|assistant) ([AB12])\b"
    r"|\b(?i:always|choose|pick|prefer|select) ([AB12])\b"
)
_PLACE = re.compile(
    r"\b(first|second|former|latter) (?:option|response|completion|answer|reply|one)\b|\bthe (former|latter)\b", re.I
)
_SIDES = {"a": "A", "1": "A", "first": "A", "former": "A", "b": "B", "2": "B", "second": "B", "latter": "B"}
_CHOICE = re.compile(r"\b(which|choos\w*|compar\w*|select\w*|pick\w*|prefer\w*|better|whether .+ or)\b", re.I)
_THINGS = re.compile(r"\b(options?|responses?|completions?|answers?|repl(?:y|ies)|messages?|two)\b|\([AB]\)", re.I)
_HELPFUL = re.compile(r"\b(?:un)?(?:helpful|useful)(?:ly|ness)?\b", re.I)
_EVASIVE = re.compile(
    r"\b(?:evasi\w*|evad\w*|dodg\w*|sidestep\w*|stonewall\w*|stall(?:s|ed|ing)?|over-?refus\w*)"
    r"|\bchang\w+ the subject|\bgo(?:es|ing)? round\b|\bfac(?:e|es|ing) (?:the question|what)\b|\bengag\w+ \w+ with\b"
    r"|\b(?:rather than|instead of|without|needless(?:ly)?|unnecessar(?:y|ily)) (?:\w+ )?refus\w*"
    r"|\brefus\w* (?:\w+ )?(?:needlessly|unnecessarily|more than)",
    re.I,
)


def normalised(text: str) -> str:
    """Words in lower case with one space between them."""
    return " ".join(_WORD.findall(text.lower().replace("\u2019", "'")))


def similarity(one: str, other: str) -> float:
    """Jaccard similarity of the runs of three words, from 0 to 1; of shorter texts, of the whole."""
    first, second = _shingles(one), _shingles(other)
    return len(first & second) / len(first | second) if first | second else 1.0


def placeholders(text: str) -> list[str]:
    """What was left to be filled in: {name}, [name], <name>, TODO, FIXME, XXX, TBD."""
    return _PLACEHOLDER.findall(text)


def favoured_side(text: str) -> str | None:
    """A or B where the text names that side and never the other; None where it names neither or both."""
    found = [group for match in (*_SIDE.finditer(text), *_PLACE.finditer(text)) for group in match.groups() if group]
    sides = {_SIDES[name.lower()] for name in found}
    return sides.pop() if len(sides) == 1 else None


def asks_to_choose(text: str) -> bool:
    return _CHOICE.search(text) is not None


def names_what_to_choose_from(text: str) -> bool:
    return _THINGS.search(text) is not None


def is_about_helpfulness(text: str) -> bool:
    """It says helpful, useful or the like."""
    return _HELPFUL.search(text) is not None


def is_against_evasion(text: str) -> bool:
    """It says evasive, dodge, stall, face the question, or rather than refusing; `refuse` alone does not count."""
    return _EVASIVE.search(text) is not None


def _shingles(text: str) -> set[tuple[str, ...]]:
    words = normalised(text).split()
    size = min(SHINGLE_WORDS, len(words))
    return {tuple(words[i : i + size]) for i in range(len(words) - size + 1)} if words else set()
