"""Frames: what stands around and between the texts of a published demonstration, so that it comes back to the byte."""

import re
from collections.abc import Mapping, Sequence

from constitutions.importers.checking import expect

_FIELD = re.compile(r"\{([a-z_]+[0-9]*)\}")


def frame_of(text: str, spans: Sequence[tuple[str, int, int]]) -> tuple[str, dict[str, str]]:
    """The text with `{name}` in place of each span (name, start, end), in order; and what stood there, stripped.

    Blanks at the ends of a span stay in the frame.
    """
    frame, values, end = "", {}, 0
    for name, start, stop in spans:
        raw = text[start:stop]
        value = raw.strip()
        first = start + raw.index(value)
        frame += text[end:first] + "{" + name + "}"
        values[name], end = value, first + len(value)
    return frame + text[end:], values


def fill(frame: str, values: Mapping[str, str]) -> str:
    """The frame with its texts, in one pass: braces in a text are left alone, and so is `{}` in the frame.

    Raises: ConstitutionError: the frame has other names than there are texts, so that one would be lost.
    """
    names = _FIELD.findall(frame)
    expect(sorted(names) == sorted(values), "framing", f"places {', '.join(names)}", f"{', '.join(values)}, each once")
    return _FIELD.sub(lambda match: values[match[1]], frame)
