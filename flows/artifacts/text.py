"""Texts of models and people in artifacts: cut, escaped, folded away where they may be harmful.

Prefect renders markdown with a safe part of HTML. What models write stands inside blocks of HTML, in which markdown
means nothing, as character codes: it can neither end its block, nor load a picture, nor draw a graph.
"""

import math
import re
from collections.abc import Iterable, Sequence

from markupsafe import Markup

MAX_BYTES = 90_000
"""Of an artifact: Prefect sets no limit, but a page of megabytes stops rendering."""
MAX_CHARACTERS = 400
"""Of one text."""
LONG_WORD = re.compile(r"(\S{40})(?=\S)")
LINE_END = re.compile(r"\r\n|[\r\n\v\f\x85\u2028\u2029]")
PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 ,.;?")


def cut(text: str, limit: int = MAX_CHARACTERS) -> str:
    """The text, or its beginning with what is left out of it."""
    return text if len(text) <= limit else f"{text[:limit].rstrip()} … ({len(text) - limit} more characters)"


def plain(text: str, limit: int = MAX_CHARACTERS) -> Markup:
    """Any text as it is, for markdown and HTML alike: one line of source, and no word too long for a column."""
    lines = LINE_END.split(cut(text, limit).strip())
    spaced = (LONG_WORD.sub("\\1\u200b", line) for line in lines)
    return Markup("<br>").join(Markup("".join(map(code, line))) for line in spaced)


def exact(text: str) -> Markup:
    """A short text of ours that people copy: without the breaks that `plain` puts into long words."""
    return tag("code", Markup("".join(map(code, text))))


def code(character: str) -> str:
    """A letter as it is; what markdown or HTML could read, and what cannot be seen, as a character code."""
    if character in PLAIN or (ord(character) > 127 and character.isprintable()) or character == "\u200b":
        return character
    return f"&#{ord(character)};" if character == "\t" or character.isprintable() else "\ufffd"


def figure(value: float | None, digits: int = 3) -> str:
    """A number in words of the UI; a dash for one that is missing, not a number, or without end."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def html_table(header: Sequence[str], rows: Iterable[Sequence[str | Markup]], right: Sequence[int] = ()) -> Markup:
    """A table whose cells are plain texts or HTML of ours; columns `right` are aligned to the right."""
    sides = ["right" if i in right else "left" for i in range(len(header))]

    def line(name: str, cells: Sequence[str | Markup]) -> Markup:
        made = [cell if isinstance(cell, Markup) else plain(cell) for cell in cells]
        return tag("tr", joined(tag(name, cell, align=side) for cell, side in zip(made, sides, strict=True)))

    return tag("table", tag("thead", line("th", header)) + tag("tbody", joined(line("td", row) for row in rows)))


def texts_table(texts: Iterable[tuple[str, str]]) -> Markup:
    """Names down the left side, their texts beside them."""
    rows = [
        tag("tr", tag("th", plain(name), align="left") + tag("td", plain(text), dir="auto")) for name, text in texts
    ]
    return tag("table", Markup("").join(rows))


def folded(title: str, inside: Markup, is_open: bool = False) -> Markup:
    """What is `inside` shows when somebody clicks on the title, or at once."""
    state = Markup(" open") if is_open else Markup("")
    return Markup("<details{}>{}{}</details>").format(state, tag("summary", plain(title)), inside)


def tag(name: str, inside: Markup, **attributes: str) -> Markup:
    given = joined(Markup(' {}="{}"').format(key, value) for key, value in attributes.items())
    return Markup("<{0}{1}>{2}</{0}>").format(name, given, inside)


def joined(parts: Iterable[Markup]) -> Markup:
    return Markup("").join(parts)


def bounded(blocks: Iterable[str], limit: int = MAX_BYTES) -> str:
    """The blocks as one markdown text of at most `limit` bytes; those that do not fit are counted, never cut in two."""
    kept, left_out, size = list[str](), 0, 0
    for block in blocks:
        more = len(block.encode()) + 2
        if size + more > limit - 100:  # room for the line that says what is left out
            left_out += 1
        else:
            kept.append(block)
            size += more
    if left_out:
        kept.append(f"<p>{left_out} more do not fit here; all are in the store.</p>")
    return "\n\n".join(kept)
