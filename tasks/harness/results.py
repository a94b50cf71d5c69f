"""What lm-eval says of a task, as rows; and what it does not say: how many prompts lost their beginning."""

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tasks.harness.environment import HarnessError
from tasks.schema import Row
from tasks.store.identity import digest

GENERATED_TOKENS = 256
"""Room for a text where the task does not say how long it may be: lm-eval's own default."""
ROLLING = "loglikelihood_rolling"
_SAMPLES = re.compile(r"samples_(.+)_\d{4}-\d\d-\d\dT[\d.-]+\.jsonl")


class Capability(Row):
    """`capabilities`: one metric of one task, as lm-eval gives it."""

    task: str
    """A task, or a group whose metric is over several."""
    metric: str
    filter: str
    """How lm-eval took the answer out of the text; `none` for as it is."""
    value: float | None
    stderr: float | None
    """Standard error by lm-eval; None where it gives none."""
    num_samples: int
    """Documents that it is over."""
    num_all: int | None
    """Documents that the task has; more where a limit was set. None for a group."""
    num_fewshot: int | None
    num_truncated: int | None
    """Documents of which a prompt was longer than the context and lost its beginning. None for a group."""
    higher_is_better: bool | None
    task_version: str


def rows_of(results: Mapping[str, Any], truncated: Mapping[str, int], add_bos: bool) -> list[Capability]:
    """One row a metric, in lm-eval's order.

    Raises: HarnessError: no metric, or none over any document.
    """
    rows = [
        row_of(results, task, key, truncated, add_bos)
        for task, entry in results["results"].items()
        for key in entry
        if "," in key and not key.rpartition(",")[0].endswith("_stderr")
    ]
    if not any(row.num_samples for row in rows):
        raise HarnessError(
            f"lm-eval measured nothing for {', '.join(results['results']) or 'its task'}: no metric over any "
            "document; look whether its split is empty, or its data files elsewhere"
        )
    return rows


def row_of(results: Mapping[str, Any], task: str, key: str, truncated: Mapping[str, int], add_bos: bool) -> Capability:
    """The row of `key`, which is `metric,filter`."""
    entry, (metric, _, kind) = results["results"][task], key.rpartition(",")
    counts = results.get("n-samples", {}).get(task, {})
    value, place = number(entry[key]), [task, metric, kind]
    problem = f"no finite number: {str(entry[key])[:80]}" if value is None else None
    if add_bos and results.get("configs", {}).get(task, {}).get("output_type") == ROLLING:
        problem = "lm-eval's API models count the BOS token itself in rolling log-likelihoods"
    return Capability(
        row_id="/".join(place),
        reuse_key=digest(place),
        status="failed" if problem else "ok",
        reason=problem,
        task=task,
        metric=metric,
        filter=kind,
        value=value,
        stderr=number(entry.get(f"{metric}_stderr,{kind}")),
        num_samples=counts.get("effective") or group_samples(entry, key),
        num_all=counts.get("original"),
        num_fewshot=results.get("n-shot", {}).get(task),
        num_truncated=truncated.get(task, 0) if counts else None,
        higher_is_better=results.get("higher_is_better", {}).get(task, {}).get(metric),
        task_version=str(results.get("versions", {}).get(task, "")),
    )


def number(value: object) -> float | None:
    """A finite number; None for `N/A`, a text, a list or what is not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def group_samples(entry: Mapping[str, Any], key: str) -> int:
    """Documents behind a metric that is no single task's."""
    return int((entry.get("sample_count") or {}).get(key) or entry.get("sample_len") or 0)


def count_truncated(folder: Path, encode: Callable[[str], list[int]], context_tokens: int) -> Counter[str]:
    """Documents by task of which a prompt did not fit, from the samples that lm-eval left in `folder`.

    lm-eval says so in its log for some kinds of requests only. It keeps one of the context's tokens free.
    """
    found: Counter[str] = Counter()
    for path in folder.rglob("samples_*.jsonl"):
        match = _SAMPLES.fullmatch(path.name)
        assert match, path
        with path.open(encoding="utf-8") as file:
            docs = {doc["doc_id"] for doc in map(json.loads, file) if is_truncated(doc, encode, context_tokens - 1)}
        found[match[1]] += len(docs)
    return found


def is_truncated(sample: Mapping[str, Any], encode: Callable[[str], list[int]], room: int) -> bool:
    """Whether any request of a document had to lose its beginning; rolling ones are cut into windows instead."""
    for request in sample["arguments"].values():
        text, then = request["arg_0"], request.get("arg_1")
        if isinstance(then, str) and len(encode(text + then)) > room:
            return True
        if isinstance(then, Mapping):
            wanted = then.get("max_gen_toks", GENERATED_TOKENS)
            if len(encode(text)) > room - wanted:
                return True
    return False
