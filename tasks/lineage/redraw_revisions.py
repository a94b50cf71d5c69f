"""The rounds of critique and revision, asked again under an amended constitution: as `tasks/revise.py` asks them."""

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any

from constitutions import Constitution, Principle, draw
from constitutions.phases import principles_of
from tasks.lineage.redraw import other_examples, rivals_of, settings
from tasks.revise import ReviseConfig, before_rounds
from tasks.revision.verdicts import ALL_PASSED, NO_OP
from tasks.revision.wording import CritiqueForm, Requests, requests_of
from tasks.store import Derivation

ASKED = frozenset(str(ended["reason"]) for ended in (NO_OP, ALL_PASSED))
"""Reasons of skipped rows that a model was asked for all the same."""


def rerevised(
    rows: Iterable[dict[str, Any]], old: Constitution, new: Constitution, made: Derivation
) -> Iterator[tuple[dict[str, Any], bool]]:
    """Every row that was asked, and whether it is asked something else now: requests or demonstrations."""
    config, seed = ReviseConfig.model_validate(settings(made)), made.seed
    was, now = asks(old, config.critique), asks(new, config.critique)
    rivals = rivals_of(principles_of(old, "revision"), principles_of(new, "revision"))
    shown, shows = (before_rounds(c.revision_demonstrations, config, seed) for c in (old, new))
    examples = other_examples(shown, shows, config.demonstrations, seed)
    for row in rows:
        if row["status"] == "skipped" and row["reason"] not in ASKED:
            continue
        key, chosen = ("revise", row["prompt_id"], row["round"]), rivals([row["principle_id"]])
        drawn = draw(chosen, seed, *key) if len(chosen) > 1 else next(iter(chosen), None)
        yield row, drawn is None or was(row["principle_id"]) != now(drawn.id) or examples(*key)


def asks(constitution: Constitution, form: CritiqueForm) -> Callable[[str], Requests]:
    """What a round asks under a drawn principle, by its id, with the hard constraints beside it."""
    constraints = constitution.revision_constraints()
    by_id: dict[str, Principle] = {p.id: p for p in principles_of(constitution, "revision")}
    return cache(lambda name: requests_of(by_id[name], constraints, form))
