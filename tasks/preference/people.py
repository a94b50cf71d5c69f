"""Human comparisons among the AI's (section 4.1: harmlessness by AI feedback, helpfulness by people)."""

from collections.abc import Sequence

from tasks.preference.config import PreferencesConfig
from tasks.readers import ParsedPreference
from tasks.schema import Preference
from tasks.store.identity import digest


def human_preferences(parsed: Sequence[ParsedPreference], target_prob: float, weight: float) -> list[Preference]:
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
            weight=weight,
            origin="human",
            decided_by="human",
        )
        for index, row in enumerate(parsed)
    ]


def mixed_in(human: Sequence[Preference], num_ai: int, config: PreferencesConfig) -> list[Preference]:
    """The human rows that go beside `num_ai` usable AI labels: all, or the first that make up `human_fraction`.

    Raises: ValueError: the file has too few usable ones.
    """
    if config.human_fraction is None:
        return list(human)
    wanted = round(num_ai * config.human_fraction / (1 - config.human_fraction))
    usable = [index for index, row in enumerate(human) if row.status == "ok"]
    if len(usable) < wanted:
        raise ValueError(
            f"preferences: human_fraction {config.human_fraction} beside {num_ai} usable AI labels asks for {wanted} "
            f"human comparisons, {config.human} gives {len(usable)} usable ones; give a longer file, a larger "
            "human_limit or a smaller human_fraction"
        )
    return list(human[: usable[wanted - 1] + 1]) if wanted else []
