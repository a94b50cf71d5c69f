"""Rows that need not be made again (design idea 3): found by `reuse_key` in earlier versions and in unfinished ones.

Resuming is the same thing: the chunks that a killed run left are rows with their keys.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from tasks.store.reuse import ReuseIndex

Reuse = Callable[[Sequence[str]], dict[str, dict[str, Any]]]
"""The rows there are already, as column values by reuse key; a key that is missing must be made."""


def nothing_kept(keys: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Makes everything anew."""
    return {}


class Kept:
    """Looks rows up, and remembers what came from where and what has to be made."""

    def __init__(self, index: ReuseIndex | None) -> None:
        self.index = index
        self.made: set[str] = set()
        """Keys that were asked for and not found."""
        self.sources: Counter[str] = Counter()

    def __call__(self, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        found = self.index.find(keys) if self.index else {}
        self.made.update(key for key in keys if key not in found)
        self.sources.update(source for source, _ in found.values())
        return {key: row for key, (_, row) in found.items()}
