"""Which option a reasoning says is better, so that an answer that contradicts it is noticed (section 4.1).

Read by patterns, and only where they are plain: an unread conclusion costs nothing, a misread one a label.
"""

import re
from collections.abc import Iterator
from typing import Literal

from tasks.schema import Order

Letter = Literal["A", "B"]
Verdict = tuple[int, Letter | None]
"""Where in the reasoning it stands, and which option it names; None: neither."""

_NAMED = r"(?:option|response|completion|choice|reply|candidate|assistant|answer)\s+\(?(?-i:[AB])\b\)?"
_OPTION = rf"(?P<option>{_NAMED}|\([AB]\)|\b(?-i:[AB])\b)"
_IS = r"(?:is|seems|appears|looks|remains|would be|will be|should be|was|does|did|do|performs|fares)(?: to be)?"
_NOT = r"(?P<negated>\s*(?:not|no|n't|never|hardly))?"
_DEGREE = (
    r"(?:\s+(?:a|an|the|much|far|clearly|slightly|somewhat|marginally|bit|little|overall|still|also|even|by|"
    r"therefore|thus|then|definitely|certainly|probably|likely|generally|significantly|obviously|actually|"
    r"strictly|simply|just|hence|indeed|it))*"
)
_GOOD = (
    "accurate|appropriate|balanced|caring|civil|clear|compassionate|considerate|correct|courteous|empathetic|ethical|"
    "fair|friendly|harmless|helpful|honest|informative|kind|lawful|legal|moral|neutral|peaceful|polite|relevant|"
    "respectful|responsible|safe|sensible|sensitive|supportive|thorough|thoughtful|truthful|useful|wise"
)
_BAD = (
    "aggressive|biased|condescending|cruel|curt|damaging|dangerous|deceptive|evasive|false|harmful|hateful|illegal|"
    "immoral|inaccurate|inappropriate|insensitive|insulting|judgmental|manipulative|misleading|objectionable|"
    "offensive|preachy|problematic|racist|risky|rude|sexist|threatening|toxic|unethical|unhelpful|unsafe|violent|wrong"
)
_BETTER = r"(?P<better>better|best|preferable|preferred|superior|winner|chosen|right one|right choice)"
_WORSE = r"(?P<worse>worse|worst|inferior|loser)"
_MORE = (
    rf"(?P<more>more (?:{_GOOD})|less (?:{_BAD})|least (?:{_BAD})|most (?:{_GOOD})|safer|safest|kinder|wiser|clearer)"
)
_LESS = rf"(?P<less>less (?:{_GOOD})|more (?:{_BAD})|most (?:{_BAD})|least (?:{_GOOD})|riskier|ruder|crueller)"
_QUALITY = rf"(?:{_BETTER}|{_WORSE}|{_MORE}|{_LESS})\b"
_NOUN = r"(?:\s+(?:option|response|completion|choice|reply|candidate|one|answer|of the two|of these|overall))*"
_CHOOSE = r"(?:prefer|choose|pick|select|favou?r|go with|went with|lean towards?|recommend|vote for|in favou?r of)"

_PATTERNS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"{_OPTION},?\s+{_IS}{_NOT}{_DEGREE}\s+{_QUALITY}(?P<aspect>\s+(?:written|worded|phrased|structured|at|in)\b)?",
        rf"{_QUALITY}{_NOUN}\s*(?:is|would be|must be|:){_NOT}{_DEGREE}\s*{_OPTION}",
        rf"\b(?:answer|verdict|conclusion|choice|preference)\s*(?:is|would be|must be|:){_NOT}\s*:?\s*{_OPTION}",
        rf"(?P<negated>\b(?:not|never|n't)\s+)?\b{_CHOOSE}\s+{_OPTION}",
        rf"{_OPTION},?\s+(?:clearly\s+|easily\s+)?(?P<better>wins|beats|outperforms)\b",
    )
)
_NEITHER = re.compile(
    r"\bneither\b|\bequally\b|\b(?:a|it'?s a) tie\b|\bno (?:clear |real )?(?:difference|winner|preference)\b"
    r"|\b(?:cannot|can't|hard to|unable to) (?:decide|say|tell|choose)\b|\bboth (?:are|options|responses)\b",
    re.IGNORECASE,
)
# what is only granted, supposed or asked about is no conclusion
_GRANTED = re.compile(
    r"\b(?:although|though|even if|while|whereas|despite|if|unless|whether|which of|suppose|someone|some)\b[^,;]*"
    r"|\b(?:not|cannot|can't|don't|doesn't|never) (?:think|say|true|believe|clear|mean|imply|sure|agree)\b[^,;]*",
    re.IGNORECASE,
)
_AGAINST = re.compile(
    rf"(?:,\s*not|\b(?:rather than|instead of|unlike|compared to|compared with|than))\s+{_OPTION},?", re.I
)
_TOGETHER = re.compile(rf"{_OPTION}\s*(?:,|and|or|nor|and/or|/|vs\.?|versus)\s*$", re.IGNORECASE)
_LAST_WORD = re.compile(rf"(?:^|[\n.!?;:])\s*{_OPTION}[.\s]*$", re.IGNORECASE)  # before that, it may head a paragraph
_SENTENCE = re.compile(r"[^.!?;\n]+[.!?;\n]*")


def conclusion(reasoning: str, order: Order) -> Literal["a", "b"] | None:
    """Which completion the reasoning says is better, whichever letter it wore; None where it does not plainly say.

    The last plain verdict counts ("(A) is better", "the answer is (B)", "neither", or ending with "(B)" alone). Without
    one, what is said of the two ("(B) is less harmful", "(A) is not better") counts where all of it points one way.
    """
    plain, hints = list[Verdict](), list[Verdict]()
    text = re.sub(r"[*_`\"“”]", "", reasoning).replace("’", "'")
    for start, sentence in _sentences(text):
        for found, is_plain in _verdicts(sentence):
            (plain if is_plain else hints).append((start + found[0], found[1]))
    if alone := _LAST_WORD.search(text):
        plain.append((len(text), _letter(alone["option"])))
    if plain:
        letter = max(plain, key=lambda verdict: verdict[0])[1]
    else:
        letter = hints[0][1] if len({letter for _, letter in hints}) == 1 else None
    return None if letter is None else ("a" if (letter == "A") == (order == "ab") else "b")


def contradicts(concludes: Literal["a", "b"] | None, prob_a: float | None) -> bool | None:
    """Whether the likelier answer is the other completion; None where there is no conclusion or no answer."""
    if concludes is None or prob_a is None:
        return None
    return prob_a < 0.5 if concludes == "a" else prob_a > 0.5


def _sentences(text: str) -> Iterator[tuple[int, str]]:
    """Sentences that state something, with what they only grant blanked, so that places stay."""
    for match in _SENTENCE.finditer(text):
        if not match[0].rstrip().endswith("?"):
            yield match.start(), _blanked(_AGAINST, _blanked(_GRANTED, match[0]))


def _blanked(pattern: re.Pattern[str], text: str) -> str:
    return pattern.sub(lambda match: " " * len(match[0]), text)


def _verdicts(sentence: str) -> Iterator[tuple[Verdict, bool]]:
    """What a sentence says, and whether it says so plainly."""
    for match in _NEITHER.finditer(sentence):
        yield (match.start(), None), True
    for pattern in _PATTERNS:
        for match in pattern.finditer(sentence):
            found = match.groupdict()
            lowers = found.get("worse") or found.get("less")
            says_little = lowers and found.get("negated")  # not worse: no better, either
            if not says_little and not _TOGETHER.search(sentence[: match.start("option")]):
                yield _read(match.end(), found)


def _read(place: int, found: dict[str, str | None]) -> tuple[Verdict, bool]:
    letter = _letter(found["option"] or "")
    against = any(found.get(name) for name in ("worse", "less", "negated"))
    hint = any(found.get(name) for name in ("more", "less", "negated", "aspect"))
    if against:
        letter = "B" if letter == "A" else "A"
    return (place, letter), not hint


def _letter(option: str) -> Letter:
    return "A" if option.upper().rstrip(")")[-1] == "A" else "B"
