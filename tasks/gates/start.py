"""Gates before anything is revised: evaluation prompts that are trained on, and a start model that already refuses."""

from collections.abc import Sequence

from tasks.gates.config import GatesConfig
from tasks.gates.intervals import counted, share
from tasks.gates.leakage import Leak
from tasks.gates.verdict import Verdicts
from tasks.schema import Gate

NUM_SHOWN = 10
"""Leaks that the message names."""


def leakage_gates(leaks: Sequence[Leak], num_held_out: int, config: GatesConfig) -> list[Gate]:
    """Copies of training prompts among the held-out ones, and near copies."""
    copies = [leak for leak in leaks if leak.similarity == 1.0]
    near = [leak for leak in leaks if leak.similarity < 1.0]
    verdicts, alike = Verdicts(config), f"are at least {config.near_duplicate:.0%} the same as a training prompt"
    return [
        leakage("leakage_exact", copies, num_held_out, config.max_exact_leaks, "are training prompts too", verdicts),
        leakage("leakage_near", near, num_held_out, config.max_near_leaks, alike, verdicts),
    ]


def leakage(name: str, leaks: Sequence[Leak], num_held_out: int, limit: float, what: str, verdicts: Verdicts) -> Gate:
    """The share itself, without an interval: every held-out prompt was looked at."""
    if not num_held_out:
        return verdicts.nothing(name, limit, "There are no held-out prompts that training prompts could repeat")
    measured = counted(len(leaks) / num_held_out, num_held_out)
    says = f"{len(leaks)} of {num_held_out} held-out prompts {what}; at most {limit:.1%}"
    advice = f"Take these out of either file: {'; '.join(map(shown, leaks[:NUM_SHOWN]))}"
    return verdicts.gate(name, measured, limit, measured.value <= limit, says, advice, "held-out prompts")


def shown(leak: Leak) -> str:
    return f"held out {leak.held_out.name} {leak.held_out.text[:60]!r} is training {leak.train.name}"


def helpful_only(num_refusing: int, num_completions: int, config: GatesConfig) -> Gate:
    """Share of its completions of red-team prompts that the start model refuses."""
    limit, measured = config.max_start_refusals, share(num_refusing, num_completions)
    says = (
        f"The start model refuses {num_refusing} of {num_completions} red-team prompts ({measured.value:.1%}); "
        f"at most {limit:.0%}"
    )
    advice = (
        "The paper starts from a helpful-only model (2212.08073, section 3.1): one that refuses leaves critique and "
        "revision nothing to learn from. Set models.helpful_only to a model that was not trained to refuse"
    )
    holds = measured.value <= limit
    return Verdicts(config).gate("helpful_only", measured, limit, holds, says, advice, "red-team completions")
