"""Drawing again under an amended constitution: among whom a draw is decided, and whether other examples are shown."""

from collections.abc import Callable, Sequence
from typing import Any

from constitutions import Principle
from tasks.demonstrations import Before, DemonstrationsConfig, selection
from tasks.store import Derivation


def rivals_of(
    before: Sequence[Principle], after: Sequence[Principle]
) -> Callable[[Sequence[str]], tuple[Principle, ...]]:
    """By the principles that were drawn before: those among which it is decided now, mostly themselves alone.

    Only what has more weight than before can win against one that has no less; and drawing is what takes time.
    """
    weights = {p.id: p.weight for p in before}
    risen = [p for p in after if p.weight > weights.get(p.id, 0.0)]
    own = {p.id: p for p in after if p.id in weights and p.weight >= weights[p.id]}

    def rivals(drawn: Sequence[str]) -> tuple[Principle, ...]:
        if any(name not in own for name in drawn):
            return tuple(after)
        return (*(own[name] for name in drawn), *(p for p in risen if p.id not in drawn))

    return rivals


def settings(made: Derivation) -> dict[str, Any]:
    """The stage's own settings."""
    found = made.config.get("config")
    return found if isinstance(found, dict) else {}


def other_examples(before: Before, after: Before, config: DemonstrationsConfig, seed: int) -> Callable[..., bool]:
    """Whether a row is shown other turns now; decided once for each of the selections that rows share."""
    known: dict[tuple[str | int, ...], bool] = {}

    def differs(*key: str | int) -> bool:
        if config.num_variants == 0:  # each row has one of its own
            return before(*key) != after(*key)
        name = selection(config, seed, *key)
        if name not in known:
            known[name] = before(*key) != after(*key)
        return known[name]

    return differs
