"""Ids for texts that come without one: readable, and the same wherever and among whatever a text stands."""

import re
from collections.abc import Iterable

from constitutions.base import digest

# Words that nearly every principle has, which tell none from another.
_COMMON = frozenset(
    re.findall(
        r"\w+",
        """
        about above again against also although among and any anything are ask asked assistant because been being
        best between both but can choose chose chosen comment compare consider content could critique did discuss
        does done either else ever every example explain following for from give had has have having her his how
        human humans identify included including into its itself just last least less like likely look made make
        makes may might more most must not note off one ones option options other others out over paying please
        point possible precedings preceding provided provides provide read really refrain rewrite response responses
        revise revision same saying said says should some somehow something specific strongest such sure take than
        that the their them then there these they thing things think this those through too try use used user very
        was ways way were what when where whether which while who whom whose why will with without would write you
        your yours argument furthermore attention carefully close degree terms new version reply replies answer
        answers
        """,
    )
)
_NUM_WORDS = 4


def readable_id(text: str, fallback: str = "principle") -> str:
    """The first telling words of a text and the start of its hash, such as `misogynistic-gender-biased-3fa2`."""
    words = [word for word in re.findall(r"[a-z]+", text.lower()) if len(word) > 2 and word not in _COMMON]
    telling = list(dict.fromkeys(words))[:_NUM_WORDS] or [fallback]
    return f"{'-'.join(telling)}-{digest(text)[:4]}"


def unique_ids(texts: Iterable[str], fallback: str = "principle") -> list[str]:
    """An id for each text, in order; a text that stands there again gets -2, -3 behind it."""
    taken: set[str] = set()
    ids = []
    for text in texts:
        first = name = readable_id(text, fallback)
        number = 1
        while name in taken:
            number += 1
            name = f"{first}-{number}"
        taken.add(name)
        ids.append(name)
    return ids


def slug(name: str) -> str:
    """A name as the id of a constitution."""
    return "-".join(re.findall(r"[a-z0-9]+", name.lower())) or "imported"
