"""How policies are called and marked, on every chart and table alike."""

from collections.abc import Sequence

ALONG_THE_WAY = 7
"""Place, and so colour and shape, of every policy along the way of a training."""


def policy_name(policy: str) -> str:
    name, at, update = policy.partition("@")
    return f"{name.upper() if name in ('sl', 'rl') else name}{at}{update}"


def is_along_the_way(policy: str) -> bool:
    """Whether it is the policy after some updates, and not the result of its training."""
    return "@" in policy


def results(policies: Sequence[str]) -> list[str]:
    """The policies that are results: what tables and texts show where all of them would be too many."""
    return [policy for policy in policies if not is_along_the_way(policy)]


def course(policies: Sequence[str]) -> list[str]:
    """The results of this run's own training, from the first policy to the last; references come after it."""
    own = results(policies)
    return own[: own.index("rl") + 1] if "rl" in own else own


def is_trained_here(policy: str, policies: Sequence[str]) -> bool:
    """Whether it is of this run's training, and no reference."""
    return is_along_the_way(policy) or policy in course(policies)


def place_of(policy: str, policies: Sequence[str]) -> int:
    """A policy's place among the results, which gives its colour and shape."""
    return ALONG_THE_WAY if is_along_the_way(policy) else results(policies).index(policy)
