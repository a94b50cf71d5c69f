"""When PPO ends early, and which of the policies measured is the result. Pure functions of a training's figures.

They depend on nothing but what a resume point keeps, so a resumed run comes to the same verdicts.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.training.rl_config import StopRules

Figures = Mapping[str, Any]

WORDS = {
    "max_kl": (
        "the policy's distance from the SL policy, in nats an episode,",
        "raise kl_coef, set target_kl or lower the learning rates; or raise rules.max_kl, if it may go so far",
    ),
    "min_entropy": (
        "the policy's entropy, in nats a token,",
        "it says one thing only: raise kl_coef, lower the learning rates or train on more prompts; "
        "or lower rules.min_entropy",
    ),
    "max_length_ratio": (
        "the length of completions, in lengths of the SL policy's,",
        "look whether the reward model likes length, and give it comparisons where the shorter completion is better; "
        "raise kl_coef; or raise rules.max_length_ratio, if completions should be longer",
    ),
    "max_reward_gap": (
        "what the score has risen by more than the held-out reward model's, in standard deviations,",
        "the reward model is being exploited: train it on more or better comparisons, raise kl_coef or take fewer "
        "updates; or raise rules.max_reward_gap",
    ),
}
"""Of each rule what it looks at, and what to do where it is broken."""


@dataclass(frozen=True)
class Stop:
    """A rule that was broken."""

    rule: str
    """Its name in `StopRules`."""
    update: int
    """Updates done when it was."""
    value: float
    limit: float
    message: str
    """What was found, what the limit is, and what to do."""


def check_rules(rules: StopRules, history: Sequence[Figures], evaluations: Sequence[Figures]) -> Stop | None:
    """The first rule that the last `rules.window` updates break on average, or None; None too while there are fewer.

    `history` has a line an update, which says of the policy what it was at the update's start. `evaluations` has one a
    measurement, the first of the SL policy; the reward gap is averaged over those within the window.
    """
    if len(history) < rules.window:
        return None
    start = (evaluations or history)[0]  # without evaluations: an update's first episodes are the SL policy's own
    windows = [
        [_measures(line, start) for line in history[-rules.window :]],
        [_measures(line, start) for line in evaluations if line["update"] > len(history) - rules.window],
    ]
    means = {
        name: statistics.fmean(line[name] for line in lines)
        for lines in reversed(windows)  # where both have a figure, that of the updates counts
        for name in (lines[0] if lines else ())
    }
    for rule in WORDS:
        if rule in means and _is_broken(rules, rule, means[rule]):
            return _stop(rules, rule, len(history), means[rule])
    return None


def choose_result(
    rules: StopRules, evaluations: Sequence[Figures], num_updates: int, stop: Stop | None
) -> tuple[int, str]:
    """How many updates the policy that is the result had behind it, of `num_updates`, and which that is in words.

    It is the best one measured. Where nothing was measured it is the last one, or after a stop the SL policy (0): what
    broke a rule is no result, and of no other policy is anything known.
    """
    best = best_evaluation(rules, evaluations)
    unmeasured = "nothing was measured, because no prompts were set aside (eval_prompts; at most a tenth of them)"
    if best is None and stop:
        return 0, f"the SL policy: {unmeasured}"
    if best is None:
        return num_updates, f"the policy after the last update, {num_updates}: {unmeasured}"
    if best["update"] == 0:
        return 0, f"the SL policy: of {len(evaluations) - 1} measured after it none was better within the rules"
    which = f"the policy after update {best['update']}"
    return best["update"], f"{which}, the best within the rules among {len(evaluations)} measured"


def best_evaluation(rules: StopRules, evaluations: Sequence[Figures]) -> Figures | None:
    """The one with the highest score by the held-out reward model, or else by the one that trains; None of none.

    A policy that breaks a rule by itself is not the best, whatever its score: without a held-out reward model that
    score is just what a policy that exploits the reward model has most of. Of equals the earliest is the best, as
    the nearest to the SL policy, which always stands.
    """
    if not evaluations:
        return None
    start, *later = evaluations
    standing = [line for line in later if not _broken(rules, _measures(line, start))]
    return max([start, *standing], key=_deciding_score)


def _deciding_score(evaluation: Figures) -> float:
    held_out: float | None = evaluation["held_out_score"]
    score: float = evaluation["score"]
    return score if held_out is None else held_out


def _measures(line: Figures, start: Figures) -> dict[str, float]:
    """What the rules look at, by the rule's name; `start` is the SL policy's line."""
    measures = {
        "max_kl": line["kl"],
        "min_entropy": line["entropy"],
        "max_length_ratio": line["num_tokens"] / start["num_tokens"],
    }
    if line.get("held_out_score") is not None:
        risen = line["score"] - start["score"]
        measures["max_reward_gap"] = risen - (line["held_out_score"] - start["held_out_score"])
    return measures


def _broken(rules: StopRules, measures: Mapping[str, float]) -> list[str]:
    return [rule for rule, value in measures.items() if _is_broken(rules, rule, value)]


def _is_broken(rules: StopRules, rule: str, value: float) -> bool:
    limit = getattr(rules, rule)
    return bool(value < limit if rule.startswith("min_") else value > limit)


def _stop(rules: StopRules, rule: str, update: int, value: float) -> Stop:
    limit: float = getattr(rules, rule)
    what, remedy = WORDS[rule]
    message = (
        f"ppo: stopped after update {update} by the rule {rule}: {what} is {value:.3g} as the mean of the last "
        f"{rules.window} updates, the limit is {limit:g}. What to do: {remedy}"
    )
    return Stop(rule, update, value, limit, message)
