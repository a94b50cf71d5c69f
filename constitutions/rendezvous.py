"""Which principle a row gets: weighted rendezvous hashing, so that an amendment moves few draws."""

import hashlib
import json
import math
from collections.abc import Callable, Sequence

from constitutions.model import Principle


def draw(principles: Sequence[Principle], seed: int, *key: str | int) -> Principle:
    """The principle with the smallest -ln(u) / weight, u uniform and fixed by (seed, key, principle id).

    Each is drawn in proportion to its weight, independently for every key, the same in any process and
    whatever the order. One more principle takes draws only for itself; one less gives away only its own; a
    reworded one moves none. Name the phase in the key, or two phases draw in step.

    Raises: ValueError: `principles` is empty. TypeError: a part of the key is neither text nor an integer.
    """
    return min(principles, key=_rank(principles, seed, key))


def draw_several(principles: Sequence[Principle], num: int, seed: int, *key: str | int) -> list[Principle]:
    """The first `num` of the same order, all where there are fewer: drawn without replacement, `draw` comes first.

    One more principle moves the later ones up a place and pushes out at most the last; one less lets one in at the end.

    Raises: ValueError: `principles` is empty. TypeError: a part of the key is neither text nor an integer.
    """
    return sorted(principles, key=_rank(principles, seed, key))[:num]


def _rank(
    principles: Sequence[Principle], seed: int, key: tuple[str | int, ...]
) -> Callable[[Principle], tuple[float, str]]:
    """What the smallest of is drawn."""
    if not principles:
        raise ValueError("draw: no principles, expected at least one")
    for part in key:
        if not isinstance(part, str | int) or isinstance(part, bool):
            raise TypeError(f"draw: {part!r} in the key, expected text or an integer")
    start = _start(seed, key)
    return lambda p: (-math.log(_uniform(start, p.id)) / p.weight, p.id)


def _start(seed: int, key: tuple[str | int, ...]) -> "hashlib._Hash":
    """The hash of `[seed, key, principle id]` up to the id, which is all that differs between the principles."""
    text = json.dumps([seed, list(key)], ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(f"{text[:-1]},".encode())


def _uniform(start: "hashlib._Hash", principle_id: str) -> float:
    whole = start.copy()
    whole.update(f'"{principle_id}"]'.encode())  # an identifier needs no escapes
    # 52 bits and a half: exact in a float, and never 0 or 1
    return (int(whole.hexdigest()[:13], 16) + 0.5) / 2**52
