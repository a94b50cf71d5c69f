"""What importers expect of foreign content, and the error where it is otherwise."""

from typing import Any

from constitutions.base import ConstitutionError


def expect(holds: bool, where: str, found: str, expected: str) -> None:
    """Raises: ConstitutionError: it does not hold."""
    if not holds:
        raise ConstitutionError(f"{where}: {found}, expected {expected}")


def keys(entry: Any, where: str, *known: str, optional: tuple[str, ...] = ()) -> None:
    """A mapping with exactly these keys, and perhaps the optional ones."""
    expect(isinstance(entry, dict), where, type(entry).__name__, f"a mapping with {', '.join(known)}")
    unknown = sorted(str(key) for key in entry.keys() - {*known, *optional})
    missing = sorted(set(known) - entry.keys())
    all_known = ", ".join((*known, *optional))
    expect(not unknown, where, f"unknown key {', '.join(unknown)}", f"{all_known}; nothing is dropped unasked")
    expect(not missing, where, f"no {', '.join(missing)}", all_known)


def text_of(value: Any, where: str) -> str:
    """A text that says something."""
    expect(isinstance(value, str), where, type(value).__name__, "a text")
    expect(bool(value.strip()), where, "an empty text", "a text")
    return str(value)


def only_text(value: Any, where: str) -> str:
    """The text of a list of one."""
    found = f"a list of {len(value)}" if isinstance(value, list) else type(value).__name__
    expect(isinstance(value, list) and len(value) == 1, where, found, "a list of one text")
    return text_of(value[0], f"{where}[0]")
