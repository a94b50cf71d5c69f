"""A constitution over another: what it adds, replaces and changes, put into one canonical constitution."""

from pathlib import Path
from typing import Any

from constitutions.base import Frozen
from constitutions.model import LISTS, Constitution, ConstitutionError, Principle

INHERITED = ("title", "description", "bias_note")
_SETTINGS = frozenset({"id", "cluster", "source", "weight", "priority", "enabled", "hard_constraint"})


def base_file(file: Path, name: Any, line: int, extending: tuple[Path, ...], shipped: Path) -> Path:
    """The file that `extends: name` in `file` means: in the folder of `file`, else in constitutions/.

    Raises: ConstitutionError: no such file, outside of both folders, or a circle.
    """
    where = f"{file}:{line}: extends:"
    if not isinstance(name, str) or not name.strip():
        raise ConstitutionError(f"{where} {name!r}, expected the name of a YAML file")
    folders = [file.parent, shipped]
    inside = [folder / name for folder in folders if (folder / name).resolve().is_relative_to(folder.resolve())]
    if not inside:
        raise ConstitutionError(f"{where} {name} is outside of {file.parent}/, expected a file in it or in {shipped}/")
    found = next((path for path in inside if path.is_file()), None)
    if found is None:
        known = sorted({p.name for folder in folders for p in folder.glob("*.yaml")} - {file.name})
        raise ConstitutionError(f"{where} no file {name}; known are {', '.join(known)}")
    chain = [*extending, file]
    if found.resolve() in [path.resolve() for path in chain]:
        circle = " -> ".join(path.name for path in [*chain, found])
        raise ConstitutionError(f"{where} {circle} is a circle, expected a chain that ends")
    return found


def merged(content: dict[Any, Any], base: Constitution) -> dict[Any, Any]:
    """The content of a file with what it does not replace of `base` after it, so that places in it stay as they are.

    A principle with a text replaces the one of its id; one without changes its settings only.
    """
    whole = {name: getattr(base, name) for name in INHERITED if getattr(base, name) is not None} | content
    for name in ("principles", *LISTS):
        own = content.get(name, [])
        if not isinstance(own, list):
            continue  # which validation reports
        mine = {entry.get("id") for entry in own if isinstance(entry, dict) and isinstance(entry.get("id"), str)}
        before = {item.id: item for item in getattr(base, name)}
        if name == "principles":
            own = [_changed(entry, before) for entry in own]
        whole[name] = [*own, *(item for key, item in before.items() if key not in mine)]
    return whole


def in_order(constitution: Constitution, base: Constitution) -> Constitution:
    """The same with what was inherited or replaced where `base` has it, and what was added after it."""
    lists = {name: _like(getattr(constitution, name), getattr(base, name)) for name in ("principles", *LISTS)}
    return constitution.model_copy(update=lists)


def _changed(entry: Any, before: dict[str, Principle]) -> Any:
    """An entry of settings only, over the principle that it names."""
    name = entry.get("id") if isinstance(entry, dict) else None
    if not isinstance(name, str) or name not in before or not _SETTINGS.issuperset(entry):
        return entry
    return before[name].model_dump() | entry


def _like(items: tuple[Any, ...], model: tuple[Frozen, ...]) -> tuple[Any, ...]:
    place = {item.id: number for number, item in enumerate(model)}  # type: ignore[attr-defined]
    return tuple(sorted(items, key=lambda item: place.get(item.id, len(place))))
