"""Each comparison with its prompt and all its labels, one at a time: every label set keeps the comparisons' order."""

from collections.abc import Iterator, Mapping
from itertools import groupby

from tasks.prompt_rows import beside_prompts, read_prompts, read_rows
from tasks.schema import Comparison, DatasetRef, Label, Prompt
from tasks.stage import StageFailed
from tasks.store import Store

Labelled = tuple[Prompt, Comparison, list[Label]]


def read_labelled(
    store: Store, prompts: DatasetRef, comparisons: DatasetRef, labels: Mapping[str, DatasetRef]
) -> Iterator[Labelled]:
    """Every comparison in order, with its prompt and what the evaluators made of it. Raises: StageFailed."""
    pairs = beside_prompts(read_prompts(store, prompts, "train"), read_rows(store, comparisons, Comparison))
    return beside_labels(pairs, {name: read_rows(store, ref, Label) for name, ref in labels.items()})


def beside_labels(
    pairs: Iterator[tuple[Prompt, Comparison]], labels: Mapping[str, Iterator[Label]]
) -> Iterator[Labelled]:
    """Each comparison with its labels, evaluators by name, whatever order they were given in.

    Raises: StageFailed: labels of a comparison that does not follow; they are of other comparisons.
    """
    waiting = {name: groupby(rows, lambda row: row.comparison_id) for name, rows in sorted(labels.items())}
    heads = {name: next(groups, None) for name, groups in waiting.items()}
    for prompt, comparison in pairs:
        found: list[Label] = []
        for name, head in heads.items():
            if head is not None and head[0] == comparison.row_id:
                found += head[1]
                heads[name] = next(waiting[name], None)
        yield prompt, comparison, found
    for name, head in heads.items():
        if head is not None:
            raise StageFailed(
                f"labels of {name}: comparison {head[0]!r} is not among the comparisons of this run, or not in their "
                "order; give labels that were made of these comparisons"
            )
