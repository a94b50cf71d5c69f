"""All labels of one comparison as one decision: evaluators, then consistency, then hard constraints above all."""

from collections.abc import Sequence
from typing import NamedTuple

from constitutions import Constitution
from tasks.preference.combine import evaluator_answers, over_evaluators
from tasks.preference.config import PreferencesConfig
from tasks.preference.opinions import Opinion, opinions_of
from tasks.preference.overrides import broken_constraints, consistency_override, hard_override
from tasks.schema import Label
from tasks.store.identity import digest


class Ranks(NamedTuple):
    """What the constitution says about its principles beyond their texts."""

    priorities: dict[str, int]
    hard: frozenset[str]

    @classmethod
    def of(cls, constitution: Constitution) -> "Ranks":
        hard = frozenset(principle.id for principle in constitution.comparison_constraints())
        return cls(constitution.priorities(), hard)

    @property
    def slice(self) -> str | None:
        """Hash of what it says; None where it says nothing, so that other edits touch no preferences."""
        ranked = sorted((name, rank) for name, rank in self.priorities.items() if rank)
        return digest(["ranks", ranked, sorted(self.hard)]) if ranked or self.hard else None


class Decision(NamedTuple):
    """What became of a comparison's labels."""

    prob_a: float | None
    """P(completion_a is better); None where no evaluator answered."""
    weight: float
    decided_by: str
    reason: str | None
    """Why there is no probability, or what is odd about it."""
    unanswered: tuple[str, ...]
    """Evaluators that gave no answer."""


def decide(labels: Sequence[Label], config: PreferencesConfig, ranks: Ranks) -> Decision:
    """The decision on one comparison from all its labels."""
    opinions = opinions_of(labels, config.contradictions, config.clamp)
    answers = evaluator_answers(opinions, ranks.priorities)
    unanswered = tuple(sorted({opinion.evaluator for opinion in opinions} - set(answers)))
    answer = over_evaluators(answers, config.combine)
    prob = answer.prob_a if answer else None
    broken = broken_constraints(opinions, ranks.hard, config.hard_margin)
    override, note = hard_override(broken, ranks.priorities, prob)
    override = override or consistency_override(labels)
    if override is not None:
        return Decision(override.prob_a, 1.0, override.decided_by, note, unanswered)
    if answer is None:
        return Decision(None, 1.0, "labels", why_unanswered(opinions), unanswered)
    return Decision(prob, answer.weight, "priority" if answer.by_priority else "labels", note, unanswered)


def why_unanswered(opinions: Sequence[Opinion]) -> str:
    return next((opinion.reason for opinion in opinions if opinion.reason), "no label in both orders")
