"""The questions that comparisons are labelled by, asked again under an amended constitution: as `tasks/label.py` asks.

Which slot a question stands in is no part of a row's key, so that questions are compared, not slots.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any, NamedTuple

from constitutions import Constitution
from constitutions.phases import principles_of
from tasks.label import LabelConfig, examples_before, questionnaire_of
from tasks.labelling.questions import CONSISTENCY, Questionnaire, orders_of
from tasks.lineage.redraw import other_examples, rivals_of, settings
from tasks.schema import LabelForm
from tasks.store import Derivation

ALL = "all"
"""The slot that asks every question at once."""


class Touch(NamedTuple):
    """What an amendment does to the labels of one comparison."""

    rows: int
    """Those that were asked."""
    touched: int
    """Rows that are asked something else now, or nothing."""
    made: int
    """Rows that a rerun makes: what nobody asked of this comparison before."""


class Asked(NamedTuple):
    """One question of a comparison, as far as the constitution decides it."""

    form: LabelForm
    text: str
    examples: str
    """Empty where the same demonstrations come before it, else whose they are."""


Others = dict[LabelForm, Callable[..., bool]]
"""By form: whether a comparison is shown other demonstrations now."""


def relabelled(
    rows: Iterable[dict[str, Any]], old: Constitution, new: Constitution, made: Derivation
) -> Iterator[Touch]:
    """What the amendment does to each comparison that was asked about, in order."""
    config, seed = LabelConfig.model_validate(settings(made)), made.seed
    groups = (
        (comparison, [row for row in group if row["status"] != "skipped"])
        for comparison, group in groupby(rows, key=lambda row: row["comparison_id"])
    )
    groups = ((comparison, asked) for comparison, asked in groups if asked)
    if not principles_of(new, "comparison"):
        yield from (Touch(len(asked), len(asked), 0) for _, asked in groups)
        return
    was, now = questionnaire_of(old, config, seed), questionnaire_of(new, config, seed)
    rivals, by_id = rivals_of(was.principles, now.principles), {p.id: p for p in was.principles}
    examples = other_demonstrations(old, new, config, seed)
    for comparison, asked in groups:
        drawn = list(dict.fromkeys(row["principle_id"] for row in asked if row["slot"].isdigit()))
        if drawn:  # only among these is it decided; else all questions are asked at once
            was = replace(was, principles=tuple(by_id[name] for name in drawn))
            now = replace(now, principles=rivals(drawn))
        before = questions(was, comparison, examples, "before")
        after = questions(now, comparison, examples, "after")
        yield touch(asked, before, after, config)


def touch(
    rows: Sequence[dict[str, Any]], before: dict[str, Asked], after: dict[str, Asked], config: LabelConfig
) -> Touch:
    kept = set(after.values())
    touched = sum(before[row["slot"]] not in kept for row in rows if row["slot"] != CONSISTENCY)
    added = kept - set(before.values())
    return Touch(len(rows), touched, sum(rows_of(asked.form, config) for asked in added))


def rows_of(form: LabelForm, config: LabelConfig) -> int:
    return len(orders_of(form)) * (config.num_samples if form == "reasoned" else 1)


def questions(questionnaire: Questionnaire, comparison: str, examples: Others, side: str) -> dict[str, Asked]:
    """What is asked in each slot."""

    def shown(form: LabelForm) -> str:
        return side if form in examples and examples[form]("label", comparison) else ""

    slots = [slot for slot in questionnaire.slots(comparison) if slot.name != CONSISTENCY]
    return {slot.name: Asked(slot.form, slot.text, shown(slot.form)) for slot in slots}


def other_demonstrations(old: Constitution, new: Constitution, config: LabelConfig, seed: int) -> Others:
    was, now = examples_before(old, config, seed), examples_before(new, config, seed)
    forms: tuple[LabelForm, ...] = ("soft", "reasoned")
    return {form: other_examples(was[form], now[form], config.demonstrations, seed) for form in forms}
