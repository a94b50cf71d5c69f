"""What the reward model learns from (section 4.1): AI harmlessness labels beside human helpfulness comparisons.

*Reads* `prompts`, `comparisons`, `labels`, human preferences in the HH format. *Writes* `preferences`: `chosen` is the
likelier side and `target_prob` says how likely, so that soft labels stay soft.
"""

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean
from typing import Any, ClassVar

from pydantic import Field

from tasks.readers import ParsedPreference, read_preferences
from tasks.schema import Comparison, DatasetRef, Frozen, Label, Message, Preference, Prompt
from tasks.stage import Session, Stage
from tasks.store import Store
from tasks.store.identity import content_hash, digest, rows_to_table, table_to_rows


class PreferencesConfig(Frozen):
    """How labels become preferences."""

    human: str = ""
    """Human helpfulness comparisons, a file or hub dataset in the HH format; empty mixes none in."""
    human_limit: int | None = Field(None, ge=1)
    """Take only the first so many."""
    human_target_prob: float = Field(1.0, ge=0.5, le=1)
    """P(chosen is better) that a human choice stands for."""
    min_margin: float = Field(0.0, ge=0, lt=0.5)
    """Skip AI labels whose averaged probability is nearer to 0.5 than this."""


class PreferencesStage(Stage):
    """Labels of both orders averaged, and human comparisons mixed in."""

    stage: ClassVar[str] = "preferences"
    dataset: ClassVar[str] = "preferences"
    code_version: ClassVar[int] = 1
    cheap: ClassVar[bool] = True

    prompts: DatasetRef
    comparisons: DatasetRef
    labels: DatasetRef
    config: PreferencesConfig

    def extra_identity(self, store: Store) -> dict[str, Any]:
        # the file is outside the store: its content is the identity, its name is not
        config = self.config.model_dump(mode="json", exclude={"human", "human_limit"})
        rows = human_preferences(self.human(), self.config.human_target_prob)
        return {"config": config, "human": content_hash(row.reuse_key for row in rows)}

    def human(self) -> list[ParsedPreference]:
        return read_preferences(self.config.human, limit=self.config.human_limit) if self.config.human else []

    def make(self, session: Session) -> DatasetRef:
        store = session.store
        rows = ai_preferences(
            table_to_rows(store.read(self.prompts), Prompt),
            table_to_rows(store.read(self.comparisons), Comparison),
            table_to_rows(store.read(self.labels), Label),
            self.config.min_margin,
        )
        rows += human_preferences(self.human(), self.config.human_target_prob)
        metrics = {origin: sum(r.origin == origin and r.status == "ok" for r in rows) for origin in ("ai", "human")}
        return store.commit_rows(self.derivation(store), rows_to_table(rows, Preference), metrics=metrics, cost={})


def ai_preferences(
    prompts: Sequence[Prompt], comparisons: Sequence[Comparison], labels: Sequence[Label], min_margin: float
) -> list[Preference]:
    """One row for each comparison, in order: P(a better) is the mean over orders and evaluators that answered both."""
    messages = {prompt.prompt_id: prompt.messages for prompt in prompts if prompt.split == "train"}
    by_comparison = defaultdict(list)
    for row in labels:
        by_comparison[row.comparison_id].append(row)
    return [ai_preference(c, by_comparison[c.row_id], messages[c.prompt_id], min_margin) for c in comparisons]


def ai_preference(
    comparison: Comparison, labels: Sequence[Label], prompt: list[Message], min_margin: float
) -> Preference:
    prob_a = average_both_orders(labels)
    a, b = comparison.completion_a or "", comparison.completion_b or ""
    a_better = prob_a is None or prob_a >= 0.5
    target = 0.5 if prob_a is None else max(prob_a, 1 - prob_a)
    status, reason = "ok", None
    if prob_a is None:
        bad = next((row for row in labels if row.status != "ok"), None)
        status, reason = "skipped", (bad.reason if bad else None) or "no label in both orders"
    elif target - 0.5 < min_margin:
        status, reason = "skipped", f"margin {target - 0.5:.3f} is below {min_margin}"
    return Preference(
        row_id=f"ai/{comparison.row_id}",
        reuse_key=digest([comparison.row_hash, prob_a]),
        status=status,
        reason=reason,
        prompt_id=comparison.prompt_id,
        prompt=prompt,
        chosen=a if a_better else b,
        rejected=b if a_better else a,
        target_prob=target,
        origin="ai",
        principle_id=labels[0].principle_id if labels else None,
    )


def average_both_orders(labels: Sequence[Label]) -> float | None:
    """Mean P(a better) over evaluators, each the mean of its two orders; None where no evaluator answered both.

    Averaging probabilities (not log-odds) keeps a judge that only follows the position at 0.5.
    """
    answers: dict[str, dict[str, float]] = defaultdict(dict)
    for row in labels:
        if row.status == "ok" and row.prob_a is not None:
            answers[row.evaluator][row.order] = row.prob_a
    both = [fmean(orders.values()) for orders in answers.values() if len(orders) == 2]
    return fmean(both) if both else None


def human_preferences(parsed: Sequence[ParsedPreference], target_prob: float) -> list[Preference]:
    """Human comparisons as preferences; unusable ones are kept with their reason."""
    return [
        Preference(
            row_id=f"human/{index}",
            reuse_key=digest([index, row.status, row.chosen, row.rejected, [m.model_dump() for m in row.prompt]]),
            status=row.status,
            reason=row.reason,
            prompt_id=digest([m.model_dump() for m in row.prompt])[:20],
            prompt=row.prompt,
            chosen=row.chosen or "",
            rejected=row.rejected or "",
            target_prob=target_prob,
            origin="human",
        )
        for index, row in enumerate(parsed)
    ]
