"""What the reward model learns from (section 4.1): AI harmlessness labels beside human helpfulness comparisons.

*Reads* `prompts`, `comparisons`, the `labels` of every evaluator, human preferences in the HH format. *Writes*
`preferences`: `chosen` is the likelier side and `target_prob` says how likely, so that soft labels stay soft.
How labels are combined is `tasks/preference/`.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import islice
from typing import Any, ClassVar

from tasks.constitution import read_constitution
from tasks.preference.combine import side_of
from tasks.preference.config import PreferencesConfig
from tasks.preference.decide import Decision, Ranks, decide
from tasks.preference.people import human_preferences, mixed_in
from tasks.preference.reading import read_labelled
from tasks.readers import read_preferences
from tasks.schema import Comparison, DatasetRef, Label, Preference, Prompt, Status
from tasks.stage import Session, Stage
from tasks.store import Store
from tasks.store.identity import content_hash, digest, rows_to_table

BATCH_ROWS = 1024


class PreferencesStage(Stage):
    """Labels of all evaluators, questions and orders combined, and human comparisons mixed in."""

    stage: ClassVar[str] = "preferences"
    dataset: ClassVar[str] = "preferences"
    code_version: ClassVar[int] = 2
    cheap: ClassVar[bool] = True

    prompts: DatasetRef
    comparisons: DatasetRef
    labels: dict[str, DatasetRef]
    """By evaluator."""
    constitution: DatasetRef
    config: PreferencesConfig

    def extra_identity(self, store: Store) -> dict[str, Any]:
        # the file is outside the store: its content is the identity, its name is not
        config = self.config.model_dump(mode="json", exclude={"human", "human_limit"})
        return {"config": config, "human": content_hash(row.reuse_key for row in self.human())}

    def constitution_slice(self, store: Store) -> str | None:
        return Ranks.of(read_constitution(store, self.constitution)).slice

    def human(self) -> list[Preference]:
        config = self.config
        parsed = read_preferences(config.human, limit=config.human_limit) if config.human else []
        return human_preferences(parsed, config.human_target_prob, config.human_weight)

    def make(self, session: Session) -> DatasetRef:
        store, tally = session.store, Tally()
        ranks = Ranks.of(read_constitution(store, self.constitution))
        labelled = read_labelled(store, self.prompts, self.comparisons, self.labels)
        rows = (tally.count(*ai_preference(*found, self.config, ranks)) for found in labelled)
        with store.writer(self.derivation(store)) as writer:
            while batch := list(islice(rows, BATCH_ROWS)):
                writer.append(rows_to_table(batch, Preference))
            human = mixed_in(self.human(), tally.ai, self.config)
            writer.append(rows_to_table(human, Preference))
            return writer.commit(metrics=tally.metrics(human), cost={})


class Tally:
    """What decided the AI preferences, and which evaluators were missing."""

    def __init__(self) -> None:
        self.ai = 0
        self.decided_by: Counter[str] = Counter()
        self.unanswered: Counter[str] = Counter()

    def count(self, row: Preference, decision: Decision) -> Preference:
        self.unanswered.update(decision.unanswered)
        if row.status == "ok":
            self.ai += 1
            self.decided_by[row.decided_by] += 1
        return row

    def metrics(self, human: Sequence[Preference]) -> dict[str, Any]:
        return {
            "ai": self.ai,
            "human": sum(row.status == "ok" for row in human),
            "decided_by": dict(sorted(self.decided_by.items())),
            "unanswered": dict(sorted(self.unanswered.items())),
        }


def ai_preference(
    prompt: Prompt, comparison: Comparison, labels: Sequence[Label], config: PreferencesConfig, ranks: Ranks
) -> tuple[Preference, Decision]:
    """The preference that all labels of a comparison make, and how it was decided."""
    decision = decide(labels, config, ranks)
    prob_a = 0.5 if decision.prob_a is None else decision.prob_a
    a, b = comparison.completion_a or "", comparison.completion_b or ""
    first_is_chosen = side_of(prob_a) != "b"
    status, reason = verdict(decision, config)
    row = Preference(
        row_id=f"ai/{comparison.row_id}",
        reuse_key=digest([comparison.row_hash, decision]),
        status=status,
        reason=reason,
        prompt_id=comparison.prompt_id,
        prompt=prompt.messages,
        chosen=a if first_is_chosen else b,
        rejected=b if first_is_chosen else a,
        target_prob=1.0 if config.labels == "hard" and status == "ok" else max(prob_a, 1 - prob_a),
        weight=decision.weight,
        origin="ai",
        principle_id=labels[0].principle_id if labels else None,
        decided_by=decision.decided_by,
    )
    return row, decision


def verdict(decision: Decision, config: PreferencesConfig) -> tuple[Status, str | None]:
    """Status and reason; an `ok` row has a reason only where hard constraints were at odds."""
    if decision.prob_a is None:
        return "skipped", decision.reason
    margin = abs(decision.prob_a - 0.5)
    if margin < config.min_margin:
        return "skipped", f"margin {margin:.3f} is below {config.min_margin}"
    if config.labels == "hard" and side_of(decision.prob_a) == "tie":
        return "skipped", "at 0.5 neither side is likelier: there is no hard label"
    return "ok", decision.reason
