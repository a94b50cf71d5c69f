"""Differences between two runs, prompt by prompt: both were measured on the same ones, which narrows the interval."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from tasks.bootstrap import Interval, bootstrap_mean
from tasks.evaluation.assessed import assessed_values
from tasks.evaluation.judged import Value, judged_values
from tasks.evaluation.texts import text_values
from tasks.schema import Assessment, Judgement, Sample

Means = dict[str, dict[str, float]]
"""The mean of a policy's values by measure and prompt id."""


def means_of(
    policy: str, judgements: Sequence[Judgement], assessments: Sequence[Assessment], samples: Sequence[Sample]
) -> Means:
    """What a policy's measures were made from."""
    said = {policy: samples}
    own = [assessment for assessment in assessments if assessment.policy == policy]
    found = [*judged_values(judgements), *text_values(said), *assessed_values(own, said)]
    return by_prompt(value for value in found if value.policy == policy)


def by_prompt(values: Iterable[Value]) -> Means:
    cells: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for value in values:
        cells[value.measure][value.prompt_id].append(value.value)
    return {name: {prompt: fmean(found) for prompt, found in of.items()} for name, of in cells.items()}


def difference(before: Means, after: Means, measure: str, units: Mapping[str, str]) -> Interval | None:
    """After less before on the prompts that both have; None where there is none. `units` by prompt id."""
    old, new = before.get(measure, {}), after.get(measure, {})
    common = sorted(old.keys() & new.keys())
    if not common:
        return None
    return bootstrap_mean([new[p] - old[p] for p in common], [units.get(p, p) for p in common])


def went(found: Interval) -> str:
    """`rose` or `fell`; empty where the interval holds zero, so that nothing is claimed."""
    if found.low > 0:
        return "rose"
    return "fell" if found.high < 0 else ""
